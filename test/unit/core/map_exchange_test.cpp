#include "core/map_exchange.hpp"

#include <gtest/gtest.h>

using namespace homing::core;

namespace {

MapSummary Map(std::int64_t epoch, std::uint64_t digest, bool receiver_lost = false)
{
	return {Epoch(epoch), digest, receiver_lost};
}

TEST(MapExchange, KeepsWhenEqual)
{
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(3, 7)), MapAction::kKeep);
}

TEST(MapExchange, KeepsAgainstAnOlderMap)
{
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(2, 9)), MapAction::kKeep);
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(2, 9, true)), MapAction::kKeep)
		<< "an older map cannot fence a region that came back since";
}

TEST(MapExchange, AdoptsANewerMap)
{
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(4, 9)), MapAction::kAdopt);
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(40, 7)), MapAction::kAdopt) << "epochs may be skipped";
}

// PROTOCOL §3 row 63.
TEST(MapExchange, LargeEpochsCompareAsOneNumber)
{
	constexpr std::int64_t kLarge = 9000000000000000000;
	EXPECT_EQ(OnPeerMap(Map(kLarge - 1, 7), Map(kLarge, 9)), MapAction::kAdopt);
	EXPECT_EQ(OnPeerMap(Map(kLarge, 7), Map(kLarge - 1, 9)), MapAction::kKeep);
	EXPECT_EQ(OnPeerMap(Map(0xFFFFFFFF, 7), Map(0x100000000, 9)), MapAction::kAdopt);
}

TEST(MapExchange, FencesWhenDeclaredLost)
{
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(4, 9, true)), MapAction::kFence);
}

TEST(MapExchange, FencesWhenTwoMapsShareAnEpoch)
{
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(3, 8)), MapAction::kFence);
	EXPECT_EQ(OnPeerMap(Map(3, 7), Map(3, 8, true)), MapAction::kFence);
}

// Of two regions that exchange maps, the newer map wins on both sides, or both stop.
TEST(MapExchange, BothSidesAgree)
{
	for (std::int64_t mine = 1; mine <= 3; ++mine) {
		for (std::int64_t theirs = 1; theirs <= 3; ++theirs) {
			const MapAction here = OnPeerMap(Map(mine, 1), Map(theirs, 2));
			const MapAction there = OnPeerMap(Map(theirs, 2), Map(mine, 1));
			if (mine == theirs) {
				EXPECT_EQ(here, MapAction::kFence);
				EXPECT_EQ(there, MapAction::kFence);
			} else {
				EXPECT_NE(here, there);
				EXPECT_EQ(mine > theirs ? here : there, MapAction::kKeep);
				EXPECT_EQ(mine > theirs ? there : here, MapAction::kAdopt);
			}
		}
	}
}

}  // namespace
