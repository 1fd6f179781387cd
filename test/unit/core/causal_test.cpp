#include "core/causal.hpp"

#include <gtest/gtest.h>

namespace homing::core {
namespace {

OutcomeToken Part(int region, std::uint8_t fill)
{
	std::array<std::uint8_t, 16> random;
	random.fill(fill);
	return MakeToken(random, RegionId(static_cast<std::int16_t>(region)), 1700000000);
}

TEST(Causal, KeepsTheHighestPosition)
{
	CausalState state;
	state.NeedPosition(RegionId(2), 100);
	state.NeedPosition(RegionId(2), 50);
	EXPECT_EQ(state.needed().at(RegionId(2)).position, 100u);
}

TEST(Causal, KeepsEveryPartOnce)
{
	CausalState state;
	state.NeedPart(RegionId(2), Part(2, 1));
	state.NeedPart(RegionId(2), Part(2, 2));
	state.NeedPart(RegionId(2), Part(2, 1));
	EXPECT_EQ(state.needed().at(RegionId(2)).parts.size(), 2u);
}

TEST(Causal, AForgottenPartLeavesThePosition)
{
	CausalState state;
	state.NeedPart(RegionId(2), Part(2, 1));
	state.NeedPosition(RegionId(2), 7);
	state.ForgetPart(RegionId(2), Part(2, 1));
	EXPECT_EQ(state.Text(), "2:7");
	state.Forget(RegionId(2));
	state.ForgetPart(RegionId(2), Part(2, 1));
	EXPECT_TRUE(state.Empty());
}

TEST(Causal, PartsThatHaveArrivedAreForgotten)
{
	CausalState state;
	state.NeedPart(RegionId(2), Part(2, 1));
	state.NeedPart(RegionId(2), Part(2, 2));
	state.NeedPart(RegionId(3), Part(3, 1));
	state.ForgetParts(RegionId(2), [](const OutcomeToken &part) { return part == Part(2, 1); });
	EXPECT_EQ(state.needed().at(RegionId(2)).parts, std::vector<OutcomeToken>{Part(2, 2)});
	state.ForgetParts(RegionId(2), [](const OutcomeToken &) { return true; });
	EXPECT_EQ(state.Text(), "3:" + Part(3, 1).Text());
	state.ForgetParts(RegionId(9), [](const OutcomeToken &) { return true; });
	EXPECT_FALSE(state.Empty());
}

TEST(Causal, TheLastPartForgottenLeavesNothing)
{
	CausalState state;
	state.NeedPart(RegionId(2), Part(2, 1));
	state.ForgetPart(RegionId(2), Part(2, 1));
	EXPECT_TRUE(state.Empty());
}

TEST(Causal, ComesBackFromItsText)
{
	CausalState state;
	state.NeedPosition(RegionId(1), 0xFFFFFFFFFFFFFFFFu);
	state.NeedPosition(RegionId(32767), 0x1A2B3C40);
	state.NeedPart(RegionId(3), Part(3, 9));
	const auto parsed = CausalState::Parse(state.Text());
	ASSERT_TRUE(parsed);
	EXPECT_EQ(parsed->Text(), state.Text());
	EXPECT_EQ(parsed->needed().at(RegionId(32767)).position, 0x1A2B3C40u);
	EXPECT_EQ(parsed->needed().at(RegionId(3)).parts.front(), Part(3, 9));
}

TEST(Causal, EmptyTextNeedsNothing)
{
	ASSERT_TRUE(CausalState::Parse(""));
	EXPECT_TRUE(CausalState::Parse("")->Empty());
}

TEST(Causal, OtherTextIsNone)
{
	for (const char *bad :
	     {",", "1", "1:", ":1", "0:1", "32768:1", "-1:1", "1:0", "1:g", "1:1a",
	      "1:11111111111111111", "1:1,", ",1:1", "1:1,,2:2", "1:1 ", " 1:1", "999999:1", "1:1:1"})
		EXPECT_FALSE(CausalState::Parse(bad)) << bad;
	// A part of another region.
	EXPECT_FALSE(CausalState::Parse("1:" + Part(2, 1).Text()));
}

TEST(Causal, MergeNeedsBoth)
{
	CausalState a, b;
	a.NeedPosition(RegionId(1), 10);
	b.NeedPosition(RegionId(1), 20);
	b.NeedPart(RegionId(2), Part(2, 1));
	a.Merge(b);
	EXPECT_EQ(a.needed().at(RegionId(1)).position, 20u);
	EXPECT_EQ(a.needed().at(RegionId(2)).parts.size(), 1u);
}

}  // namespace
}  // namespace homing::core
