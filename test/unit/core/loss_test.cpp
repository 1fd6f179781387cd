#include "core/loss.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

using namespace homing::core;

namespace {

constexpr RegionId kUs{1}, kEu{2}, kAp{3};

TEST(Loss, FinalPositionIsTheFurthest)
{
	EXPECT_EQ(FinalPosition({kUs, kEu}, {{kUs, 10}, {kEu, 30}}), Position(30));
	EXPECT_EQ(FinalPosition({kUs, kEu}, {{kUs, 10}, {kEu, 30}, {kAp, 99}}), Position(30))
		<< "ap does not go on";
}

TEST(Loss, NobodyIsSkipped)
{
	EXPECT_EQ(FinalPosition({kUs, kEu, kAp}, {{kUs, 10}, {kEu, 30}}), std::nullopt);
	EXPECT_EQ(FinalPosition({}, {{kUs, 10}}), std::nullopt);
}

TEST(Loss, TheFurthestPassesOnWhatOthersLack)
{
	const auto relays = RelaysNeeded(30, {{kUs, 10}, {kEu, 30}, {kAp, 30}});
	ASSERT_EQ(relays.size(), 1u);
	EXPECT_EQ(relays[0].from, kEu);
	EXPECT_EQ(relays[0].to, kUs);
	EXPECT_TRUE(RelaysNeeded(30, {{kUs, 30}, {kEu, 30}}).empty());
}

TEST(Loss, WhatWasPassedOnCannotBePassedOnAgain)
{
	EXPECT_TRUE(RelaysNeeded(30, {{kUs, 10}, {kEu, 30, false}}).empty());
}

// PROTOCOL §3 row 63: a position is one number, not two halves of 4 GB each.
TEST(Loss, PositionsBeyondFourGigabytesCompareAsOneNumber)
{
	constexpr Position kBelow = 0xFFFFFFF0, kAbove = 0x100000008, kFar = 0xFFFFFFFF00000001;
	EXPECT_EQ(FinalPosition({kUs, kEu}, {{kUs, kBelow}, {kEu, kAbove}}), kAbove);
	EXPECT_EQ(FinalPosition({kUs, kEu}, {{kUs, kFar}, {kEu, kAbove}}), kFar);
	const auto relays = RelaysNeeded(kAbove, {{kUs, kBelow}, {kEu, kAbove}});
	ASSERT_EQ(relays.size(), 1u);
	EXPECT_EQ(relays[0].to, kUs);
	EXPECT_FALSE(HasAllTails({{kUs, kBelow}}, {{kUs, kAbove}}));
	EXPECT_TRUE(HasAllTails({{kUs, kFar}}, {{kUs, kAbove}}));
}

TEST(Loss, AnHeirNeedsTheEndOfEveryLostRegion)
{
	EXPECT_TRUE(HasAllTails({{kUs, 10}, {kEu, 20}}, {{kUs, 10}, {kEu, 20}}));
	EXPECT_FALSE(HasAllTails({{kUs, 10}, {kEu, 19}}, {{kUs, 10}, {kEu, 20}}));
	EXPECT_FALSE(HasAllTails({}, {{kUs, 1}}));
	EXPECT_TRUE(HasAllTails({}, {{kUs, 0}})) << "a region that never wrote";
}

}  // namespace
