#include "core/router.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

using namespace homing::core;

namespace {

using Kind = Route::Kind;

// Here is us (1). Home 0 is here, 1 and 2 at eu, 3 at ap, 4 has nobody.
HomeMap World()
{
	return MapOf({Active(1, "us"), Active(2, "eu"), Active(3, "ap"), Lost(4, "sa", {}, {})},
	             {1, 2, 2, 3, 4});
}

Route To(const std::vector<int> &homes, bool fenced = false, bool forwarded = false)
{
	std::vector<HomeId> ids;
	for (int home : homes)
		ids.emplace_back(home);
	return RouteStatement(World(), kSpace, ids, fenced, forwarded);
}

TEST(Router, ServesWhatIsHere)
{
	EXPECT_EQ(To({0}).kind, Kind::kServe);
	EXPECT_EQ(To({0, 0}).kind, Kind::kServe);
	EXPECT_EQ(To({0}, false, true).kind, Kind::kServe) << "also for a region that forwards to us";
}

TEST(Router, ForwardsToTheOwner)
{
	const Route route = To({1, 2});
	EXPECT_EQ(route.kind, Kind::kForward);
	EXPECT_EQ(route.region, RegionId(2));
	EXPECT_EQ(To({3}).region, RegionId(3));
}

TEST(Router, NeverForwardsTwice)
{
	const Route route = To({1}, false, true);
	EXPECT_EQ(route.kind, Kind::kRefuse);
	EXPECT_EQ(route.refusal, Refusal::kNotHome);
	EXPECT_EQ(route.region, RegionId(2)) << "names the owner it knows";
}

TEST(Router, RefusesSeveralRegions)
{
	EXPECT_EQ(To({0, 1}).refusal, Refusal::kSeveralHomes);
	EXPECT_EQ(To({1, 3}).refusal, Refusal::kSeveralHomes);
	EXPECT_EQ(To({3, 1, 3}).kind, Kind::kRefuse);
}

TEST(Router, RefusesWhenNobodyOwnsTheHome)
{
	EXPECT_EQ(To({4}).refusal, Refusal::kNoOwner);
	EXPECT_EQ(To({0, 4}).refusal, Refusal::kNoOwner);
	EXPECT_EQ(To({99}).refusal, Refusal::kNoOwner);
}

TEST(Router, RefusesAKeyspaceNewerThanItsMap)
{
	EXPECT_EQ(RouteStatement(World(), KeyspaceId(2), {HomeId(0)}, false, false).refusal,
	          Refusal::kUnknownKeyspace);
}

TEST(Router, AFencedRegionRefusesEverything)
{
	for (bool forwarded : {false, true}) {
		for (int home : {0, 1, 3, 4}) {
			const Route route = To({home}, true, forwarded);
			EXPECT_EQ(route.kind, Kind::kRefuse);
			EXPECT_EQ(route.refusal, Refusal::kFenced);
		}
	}
}

// P1 over all pairs of regions that share a map: exactly one of them serves a home.
TEST(Router, ExactlyOneRegionServesAHome)
{
	const std::vector<Region> regions = {Active(1, "us"), Active(2, "eu"), Active(3, "ap"),
	                                     Lost(4, "sa", {3}, {1, 2, 3}),
	                                     Lost(5, "af", {}, {1, 2, 3})};
	const std::vector<int> recorded = {1, 2, 3, 4, 5, 5, 5, 4, 2};
	for (int home = 0; home < 9; ++home) {
		int served = 0;
		for (int here = 1; here <= 5; ++here) {
			const HomeMap map = MapOf(regions, recorded, here);
			const Route route = RouteStatement(map, kSpace, {HomeId(home)}, map.HereIsLost(), false);
			served += route.kind == Kind::kServe;
		}
		EXPECT_EQ(served, 1) << "home " << home;
	}
}

}  // namespace
