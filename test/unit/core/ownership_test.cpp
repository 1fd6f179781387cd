#include "core/ownership.hpp"

#include "core/router.hpp"
#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <algorithm>

using namespace homing::core;

namespace {

OwnershipEntry Release(int home, int version, int from, int to)
{
	return {HomeId(home), version, RegionId(static_cast<std::int16_t>(from)),
	        RegionId(static_cast<std::int16_t>(to)), false};
}

OwnershipEntry Accept(int home, int version, int by)
{
	const RegionId region(static_cast<std::int16_t>(by));
	return {HomeId(home), version, region, region, true};
}

// Two homes of us (1), one of eu (2).
Keyspace After(const std::vector<OwnershipEntry> &log)
{
	Keyspace keyspace{kSpace, Ids({1, 1, 2})};
	ApplyOwnershipLog(log, &keyspace);
	return keyspace;
}

HomeMap MapAfter(const std::vector<OwnershipEntry> &log, int here,
                 std::vector<Region> regions = {Active(1, "us"), Active(2, "eu"), Active(3, "ap")})
{
	return HomeMap(Epoch(1), RegionId(static_cast<std::int16_t>(here)), std::move(regions),
	               {After(log)});
}

TEST(OwnershipLog, EmptyLeavesTheFirstOwners)
{
	const Keyspace keyspace = After({});
	EXPECT_EQ(keyspace.recorded_owners, Ids({1, 1, 2}));
	EXPECT_TRUE(keyspace.handovers.empty()) << "a keyspace whose homes never moved costs nothing";
	EXPECT_TRUE(MapAfter({}, 1).LastHandover(kSpace, HomeId(0)).accepted);
}

TEST(OwnershipLog, ReleaseMovesTheHomeButNobodyServesIt)
{
	const HomeMap map = MapAfter({Release(0, 1, 1, 2)}, 2);
	EXPECT_EQ(OwnerOf(map, 0), 2);
	EXPECT_EQ(OwnerOf(map, 1), 1) << "other homes stay";
	EXPECT_FALSE(map.LastHandover(kSpace, HomeId(0)).accepted);
	EXPECT_EQ(map.LastHandover(kSpace, HomeId(0)).from, RegionId(1));
	EXPECT_EQ(RouteStatement(map, kSpace, {HomeId(0)}, false, false).refusal, Refusal::kInTransit);
	EXPECT_EQ(RouteStatement(map, kSpace, {HomeId(0)}, false, true).refusal, Refusal::kInTransit)
		<< "a forwarded statement waits at the new owner too";
}

TEST(OwnershipLog, OldOwnerForwardsFromTheReleaseOn)
{
	const HomeMap map = MapAfter({Release(0, 1, 1, 2)}, 1);
	const Route route = RouteStatement(map, kSpace, {HomeId(0)}, false, false);
	EXPECT_EQ(route.kind, Route::Kind::kForward);
	EXPECT_EQ(route.region, RegionId(2));
	EXPECT_EQ(RouteStatement(map, kSpace, {HomeId(0)}, false, true).refusal, Refusal::kNotHome);
}

TEST(OwnershipLog, AcceptanceLetsTheNewOwnerServe)
{
	const HomeMap map = MapAfter({Release(0, 1, 1, 2), Accept(0, 1, 2)}, 2);
	EXPECT_EQ(RouteStatement(map, kSpace, {HomeId(0)}, false, false).kind, Route::Kind::kServe);
}

TEST(OwnershipLog, OnlyTheNewestReleaseCounts)
{
	// us → eu → us → ap, the last one not accepted.
	std::vector<OwnershipEntry> log = {Release(0, 1, 1, 2), Accept(0, 1, 2), Release(0, 2, 2, 1),
	                                   Accept(0, 2, 1), Release(0, 3, 1, 3)};
	const Keyspace expected = After(log);
	EXPECT_EQ(expected.recorded_owners[0], RegionId(3));
	EXPECT_FALSE(expected.handovers[0].accepted)
		<< "the acceptance of an older version says nothing";

	// Streams of different regions arrive in any order.
	std::sort(log.begin(), log.end(), [](const OwnershipEntry &a, const OwnershipEntry &b) {
		return std::make_pair(a.version, a.accept) < std::make_pair(b.version, b.accept);
	});
	const auto before = [](const OwnershipEntry &a, const OwnershipEntry &b) {
		return std::make_tuple(a.version, a.accept) < std::make_tuple(b.version, b.accept);
	};
	do {
		const Keyspace keyspace = After(log);
		EXPECT_EQ(keyspace.recorded_owners, expected.recorded_owners);
		EXPECT_EQ(keyspace.handovers[0].version, 3);
		EXPECT_FALSE(keyspace.handovers[0].accepted);
	} while (std::next_permutation(log.begin(), log.end(), before));
}

TEST(OwnershipLog, AcceptanceWithoutItsReleaseIsNotYetTrue)
{
	const Keyspace keyspace = After({Release(0, 1, 1, 2), Accept(0, 1, 2), Accept(0, 2, 3)});
	EXPECT_EQ(keyspace.recorded_owners[0], RegionId(2));
	EXPECT_TRUE(keyspace.handovers[0].accepted);
}

TEST(OwnershipLog, HeirOfALostNewOwnerAcceptsInItsPlace)
{
	const std::vector<Region> regions = {Active(1, "us"), Lost(2, "eu", {3}, {1, 3}),
	                                     Active(3, "ap")};
	const HomeMap before = MapAfter({Release(0, 1, 1, 2)}, 3, regions);
	EXPECT_EQ(OwnerOf(before, 0), 3);
	EXPECT_EQ(RouteStatement(before, kSpace, {HomeId(0)}, false, false).refusal,
	          Refusal::kInTransit);
	const HomeMap after = MapAfter({Release(0, 1, 1, 2), Accept(0, 1, 3)}, 3, regions);
	EXPECT_EQ(RouteStatement(after, kSpace, {HomeId(0)}, false, false).kind, Route::Kind::kServe);
}

TEST(OwnershipLog, EntriesOfUnknownHomesAreIgnored)
{
	const Keyspace keyspace = After({Release(3, 1, 1, 2), Release(-1, 1, 1, 2), Accept(7, 1, 2)});
	EXPECT_EQ(keyspace.recorded_owners, Ids({1, 1, 2}));
	EXPECT_TRUE(keyspace.handovers.empty());
	EXPECT_EQ(MapAfter({Release(0, 1, 1, 2)}, 1).LastHandover(kSpace, HomeId(9)).version, 0);
}

}  // namespace
