#include "core/deadlock.hpp"

#include <gtest/gtest.h>

#include <random>

namespace homing::core {
namespace {

const RegionId kUs(1), kEu(2), kAp(3);

WaitGraph Graph(const std::string &us, const std::string &eu = "", const std::string &ap = "")
{
	WaitGraph graph;
	EXPECT_TRUE(graph.Add(kUs, us));
	EXPECT_TRUE(graph.Add(kEu, eu));
	EXPECT_TRUE(graph.Add(kAp, ap));
	return graph;
}

// 10 of us works at eu as 11 and waits at us for 21, which works for 20 of eu, which waits there for 11.
const char *const kUsSide = "w,10,21,500,100\nb,10,2,11,100";
const char *const kEuSide = "w,20,11,600,200\nb,20,1,21,200";

TEST(Deadlock, OfTwoRegionsIsFound)
{
	const std::vector<Victim> victims = FindVictims(Graph(kUsSide, kEuSide));
	ASSERT_EQ(victims.size(), 1u);
	EXPECT_EQ(victims[0].waiter, (Backend{kEu, 20}));
	EXPECT_EQ(victims[0].since, 600);
	EXPECT_EQ(victims[0].circle, (std::vector<Backend>{{kUs, 10}, {kEu, 20}}));
}

TEST(Deadlock, IsNoneWithoutKnowingWhoWorksForWhom)
{
	EXPECT_TRUE(FindVictims(Graph("w,10,21,500,100", "w,20,11,600,200")).empty());
	EXPECT_TRUE(FindVictims(Graph(kUsSide, "w,20,11,600,200")).empty());
}

TEST(Deadlock, AChainIsNone)
{
	EXPECT_TRUE(FindVictims(Graph(kUsSide, "b,20,1,21,200")).empty());
	EXPECT_TRUE(FindVictims(WaitGraph()).empty());
}

TEST(Deadlock, WithinAServerIsLeftToIt)
{
	EXPECT_TRUE(FindVictims(Graph("w,10,20,500,100\nw,20,10,600,200")).empty());
	// Also when those that wait have sessions elsewhere, where nobody waits.
	EXPECT_TRUE(
		FindVictims(Graph("w,10,20,500,100\nw,20,10,600,200\nb,10,2,11,100\nb,20,2,21,200")).empty());
}

TEST(Deadlock, TheVictimWaitsWhereItsStatementRuns)
{
	// Both are of us, and wait at eu and ap.
	const std::vector<Victim> victims =
		FindVictims(Graph("b,10,2,101,100\nb,10,3,102,100\nb,20,2,201,50\nb,20,3,202,50",
	                      "w,101,201,7,1", "w,202,102,8,1"));
	ASSERT_EQ(victims.size(), 1u);
	EXPECT_EQ(victims[0].waiter, (Backend{kEu, 101}));
}

TEST(Deadlock, OfEqualAgeTheHigherIdGoes)
{
	const std::vector<Victim> victims =
		FindVictims(Graph("w,10,21,500,100\nb,10,2,11,100", "w,20,11,600,100\nb,20,1,21,100"));
	ASSERT_EQ(victims.size(), 1u);
	EXPECT_EQ(victims[0].waiter, (Backend{kEu, 20}));
}

TEST(Deadlock, OfThreeRegionsIsFound)
{
	// 10 of us holds at eu, 20 of eu at ap, 30 of ap at us; each waits for the next one at home.
	const std::vector<Victim> victims =
		FindVictims(Graph("w,10,301,1,300\nb,10,2,101,300", "w,20,101,2,200\nb,20,3,201,200",
	                      "w,30,201,3,100\nb,30,1,301,100"));
	ASSERT_EQ(victims.size(), 1u);
	EXPECT_EQ(victims[0].waiter, (Backend{kUs, 10}));
	EXPECT_EQ(victims[0].circle.size(), 3u);
}

TEST(Deadlock, EachKnotHasItsVictim)
{
	const std::string us = std::string(kUsSide) + "\nw,1010,1021,500,100\nb,1010,2,1011,100";
	const std::string eu = std::string(kEuSide) + "\nw,1020,1011,600,200\nb,1020,1,1021,200";
	EXPECT_EQ(FindVictims(Graph(us, eu)).size(), 2u);
}

TEST(Deadlock, OnlyWhatLastsCounts)
{
	const WaitGraph first = Graph(kUsSide, kEuSide);
	EXPECT_EQ(FindVictims(Lasting(first, first)).size(), 1u);
	// Another wait of the same two; another transaction of the same session.
	EXPECT_TRUE(
		FindVictims(Lasting(first, Graph("w,10,21,501,100\nb,10,2,11,100", kEuSide))).empty());
	EXPECT_TRUE(
		FindVictims(Lasting(first, Graph("w,10,21,500,100\nb,10,2,11,101", kEuSide))).empty());
	EXPECT_TRUE(FindVictims(Lasting(first, Graph(kUsSide))).empty());
}

TEST(Deadlock, OtherTextIsRefusedWhole)
{
	for (const char *bad :
	     {"w", "w,1", "w,1,2,3", "w,1,2,3,4,5", "x,1,2,3,4", "w,-1,2,3,4", "w,1,2,3,", "w,1,2,,4",
	      "w,1,2,3,4\n\nw,1,2,3,4", "b,1,0,3,4", "b,1,32768,3,4", "w,9999999999,2,3,4",
	      "w,1,2,3,1111111111111111111", "w,1,2,3,4 "}) {
		WaitGraph graph;
		EXPECT_FALSE(graph.Add(kUs, bad)) << bad;
		EXPECT_TRUE(graph.waits.empty()) << bad;
	}
}

// Cancelling the victims leaves no hidden circle, whatever the graph.
TEST(Deadlock, VictimsSufficeInTheEnd)
{
	std::mt19937 random(7);
	for (int round = 0; round < 300; ++round) {
		WaitGraph graph;
		const auto any = [&](int count) { return static_cast<int>(random() % count); };
		for (int i = 0; i < 8; ++i)
			graph.branches.push_back({{RegionId(static_cast<std::int16_t>(1 + i % 3)), i},
			                          {RegionId(static_cast<std::int16_t>(1 + (i + 1) % 3)), 100 + i},
			                          any(5)});
		for (int i = 0; i < 12; ++i) {
			const int region = any(3);
			const auto backend = [&] {
				// Origins and remote ends that live in this region.
				const int number = any(8);
				return number % 3 == region         ? number
				       : (number + 1) % 3 == region ? 100 + number
				                                    : -1;
			};
			const int waiter = backend(), blocker = backend();
			const RegionId id(static_cast<std::int16_t>(1 + region));
			if (waiter >= 0 && blocker >= 0 && waiter != blocker)
				graph.waits.push_back({{id, waiter}, {id, blocker}, i + 1, any(5)});
		}
		for (int step = 0; step < 20; ++step) {
			const std::vector<Victim> victims = FindVictims(graph);
			if (victims.empty())
				break;
			ASSERT_LT(step, 19);
			for (const Victim &victim : victims) {
				ASSERT_GT(victim.circle.size(), 1u);
				const std::size_t before = graph.waits.size();
				std::vector<LockWait> left;
				for (const LockWait &wait : graph.waits) {
					if (!(wait.waiter == victim.waiter))
						left.push_back(wait);
				}
				graph.waits = left;
				ASSERT_LT(graph.waits.size(), before);
			}
		}
	}
}

}  // namespace
}  // namespace homing::core
