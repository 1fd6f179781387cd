#include "core/transition.hpp"

#include "core/ownership.hpp"
#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <set>

using namespace homing::core;

namespace {

HomeMap Map(const std::vector<Region> &regions, int here, const std::vector<OwnershipEntry> &log)
{
	Keyspace keyspace{kSpace, Ids({1})};
	ApplyOwnershipLog(log, &keyspace);
	return HomeMap(Epoch(1), RegionId(static_cast<std::int16_t>(here)), regions, {keyspace});
}

const std::vector<Region> kAll = {Active(1, "us"), Active(2, "eu"), Active(3, "ap")};
const OwnershipEntry kRelease{HomeId(0), 1, RegionId(1), RegionId(2), false};
const OwnershipEntry kAccept{HomeId(0), 1, RegionId(2), RegionId(2), true};

HomeState At(int here, const std::vector<OwnershipEntry> &log,
             const std::vector<Region> &regions = kAll)
{
	return StateOf(Map(regions, here, log), kSpace, HomeId(0), false, true);
}

TEST(Transition, AHandOverAsEachRegionSeesIt)
{
	EXPECT_EQ(At(1, {}), HomeState::kServed);
	EXPECT_EQ(At(1, {kRelease}), HomeState::kElsewhere);
	EXPECT_EQ(At(2, {}), HomeState::kElsewhere);
	EXPECT_EQ(At(2, {kRelease}), HomeState::kAwaited);
	EXPECT_EQ(At(2, {kRelease, kAccept}), HomeState::kServed);
	EXPECT_EQ(At(3, {kRelease, kAccept}), HomeState::kElsewhere);
}

TEST(Transition, NobodyServesBetweenReleaseAndAcceptance)
{
	for (int here = 1; here <= 3; ++here)
		EXPECT_NE(At(here, {kRelease}), HomeState::kServed) << here;
}

TEST(Transition, LossMakesHeirsAndOrphans)
{
	const std::vector<Region> eu_lost = {Active(1, "us"), Lost(2, "eu", {3}, {1, 3}),
	                                     Active(3, "ap")};
	EXPECT_EQ(At(3, {kRelease}, eu_lost), HomeState::kAwaited);
	EXPECT_EQ(At(3, {kRelease, kAccept}, eu_lost), HomeState::kServed);
	EXPECT_EQ(At(2, {kRelease, kAccept}, eu_lost), HomeState::kFenced);
	EXPECT_EQ(StateOf(Map(eu_lost, 3, {kRelease, kAccept}), kSpace, HomeId(0), false, false),
	          HomeState::kAwaited)
		<< "not before it has the end of what eu wrote";
	EXPECT_EQ(At(1, {kRelease}, {Active(1, "us"), Lost(2, "eu", {}, {})}), HomeState::kOrphan);
}

TEST(Transition, TheTableNamesEveryStateAndNoTwoWaysOfOneEvent)
{
	std::set<std::pair<HomeState, HomeEvent>> seen;
	std::set<HomeState> reached;
	for (const Transition &t : Transitions()) {
		EXPECT_TRUE(seen.emplace(t.from, t.event).second)
			<< NameOf(t.from) << " " << NameOf(t.event);
		reached.insert(t.to);
		EXPECT_NE(std::string(t.why), "");
	}
	EXPECT_EQ(reached.size(), 5u);
	EXPECT_FALSE(MayFollow(HomeState::kServed, HomeState::kAwaited))
		<< "a region does not give a home to itself";
	EXPECT_FALSE(MayFollow(HomeState::kFenced, HomeState::kServed))
		<< "it comes back as another incarnation";
	EXPECT_NE(DrawTransitions().find("\"awaited\" -> \"served\" [label=\"accepted\"]"),
	          std::string::npos);
}

}  // namespace
