#include "core/placement.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

using namespace homing::core;

namespace {

TEST(Placement, SizesDifferByAtMostOne)
{
	for (int regions = 1; regions <= 9; ++regions) {
		std::vector<int> ids;
		for (int id = 1; id <= regions; ++id)
			ids.push_back(id);
		for (std::int32_t homes : {1, 2, 7, 128, 129, 4096}) {
			const auto owners = SpreadEvenly(homes, Ids(ids));
			ASSERT_EQ(owners.size(), static_cast<std::size_t>(homes));
			std::map<int, int> count;
			for (int id : ids)
				count[id] = 0;
			for (RegionId owner : owners)
				++count[owner.value];
			int low = homes, high = 0;
			for (auto [id, n] : count) {
				low = std::min(low, n);
				high = std::max(high, n);
			}
			EXPECT_LE(high - low, 1) << homes << " homes, " << regions << " regions";
		}
	}
}

TEST(Placement, RunsAreContiguous)
{
	const auto owners = SpreadEvenly(128, Ids({4, 2, 9}));
	std::vector<RegionId> runs = owners;
	runs.erase(std::unique(runs.begin(), runs.end()), runs.end());
	EXPECT_EQ(runs, Ids({4, 2, 9}));
}

// The homes of a lost region are spread by residue: that must be even as well.
TEST(Placement, ALostRegionsHomesSpreadEvenly)
{
	for (int survivors = 1; survivors <= 6; ++survivors) {
		std::vector<Region> regions;
		std::vector<int> all, living;
		for (int id = 1; id <= survivors + 1; ++id) {
			all.push_back(id);
			if (id != 1)
				living.push_back(id);
		}
		regions.push_back(Lost(1, "lost", {}, living));
		for (int id : living)
			regions.push_back(Active(id, "r" + std::to_string(id)));
		std::vector<int> recorded;
		for (RegionId owner : SpreadEvenly(128, Ids(all)))
			recorded.push_back(owner.value);
		const HomeMap map = MapOf(regions, recorded, 2);
		std::map<int, int> gained;
		for (int id : living)
			gained[id] = 0;
		for (int home = 0; home < 128; ++home) {
			if (recorded[static_cast<std::size_t>(home)] == 1)
				++gained[OwnerOf(map, home)];
		}
		int low = 128, high = 0;
		for (auto [id, n] : gained) {
			low = std::min(low, n);
			high = std::max(high, n);
		}
		EXPECT_LE(high - low, 1) << survivors << " survivors";
	}
}

TEST(Placement, AnAssignedKeyGoesToAHomeOfThatRegion)
{
	const HomeMap map = MapOf({Active(1, "us"), Active(2, "eu")}, {1, 2, 1, 2, 2});
	std::set<int> used;
	for (std::uint64_t hash = 0; hash < 60; ++hash) {
		const auto home = HomeOwnedBy(map, kSpace, RegionId(2), hash);
		ASSERT_TRUE(home);
		EXPECT_EQ(OwnerOf(map, home->value), 2);
		used.insert(home->value);
	}
	EXPECT_EQ(used, (std::set<int>{1, 3, 4})) << "keys spread over all the region's homes";
}

TEST(Placement, AnInheritedHomeCountsAsOwned)
{
	const HomeMap map = MapOf({Lost(1, "us", {}, {2}), Active(2, "eu")}, {1}, 2);
	EXPECT_EQ(HomeOwnedBy(map, kSpace, RegionId(2), 17), HomeId(0));
	EXPECT_FALSE(HomeOwnedBy(map, kSpace, RegionId(1), 17));
}

TEST(Placement, WithoutAHomeThereIsNothingToAssignTo)
{
	const HomeMap map = MapOf({Active(1, "us"), Active(2, "eu")}, {1, 1});
	EXPECT_FALSE(HomeOwnedBy(map, kSpace, RegionId(2), 0));
	EXPECT_FALSE(HomeOwnedBy(map, KeyspaceId(9), RegionId(1), 0));
}

std::vector<RegionId> Parted(const std::vector<int> &owners,
                             const std::vector<std::pair<int, double>> &weights)
{
	std::vector<Weight> list;
	for (const auto &[region, weight] : weights)
		list.push_back({RegionId(static_cast<std::int16_t>(region)), weight});
	return Repartition(Ids(owners), list);
}

std::size_t Moves(const std::vector<int> &before, const std::vector<RegionId> &after)
{
	std::size_t moves = 0;
	for (std::size_t i = 0; i < before.size(); ++i)
		moves += after[i] != RegionId(static_cast<std::int16_t>(before[i])) ? 1 : 0;
	return moves;
}

long Count(const std::vector<RegionId> &owners, int region)
{
	return std::count(owners.begin(), owners.end(), RegionId(static_cast<std::int16_t>(region)));
}

TEST(Repartition, GivesEachRegionItsShare)
{
	const std::vector<int> before = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
	const auto after = Parted(before, {{1, 2}, {2, 1}, {3, 1}});
	EXPECT_EQ(Count(after, 1), 6);
	EXPECT_EQ(Count(after, 2), 3);
	EXPECT_EQ(Count(after, 3), 3);
	EXPECT_EQ(Moves(before, after), 6u);
}

TEST(Repartition, MovesNothingWhenTheSharesAreRight)
{
	const std::vector<int> before = {1, 2, 3, 1, 2, 3};
	EXPECT_EQ(Parted(before, {{1, 1}, {2, 1}, {3, 1}}), Ids(before));
	EXPECT_EQ(Parted(before, {{1, 0.1}, {2, 0.1}, {3, 0.1}}), Ids(before));
}

TEST(Repartition, KeepsAnOddHomeWhereItIs)
{
	// 7 homes by halves: whoever has four keeps four.
	EXPECT_EQ(Moves({1, 1, 1, 2, 2, 2, 2}, Parted({1, 1, 1, 2, 2, 2, 2}, {{1, 1}, {2, 1}})), 0u);
	EXPECT_EQ(Moves({1, 1, 1, 1, 2, 2, 2}, Parted({1, 1, 1, 1, 2, 2, 2}, {{1, 1}, {2, 1}})), 0u);
}

TEST(Repartition, DrainsRegionsWithoutWeight)
{
	const auto after = Parted({1, 1, 2, 2, 3, 3}, {{1, 1}, {2, 0}});
	EXPECT_EQ(Count(after, 1), 6) << "2 by weight 0, 3 because it is not named";
}

TEST(Repartition, NeverMovesMoreThanItMust)
{
	std::uint32_t seed = 1;
	const auto next = [&](std::uint32_t below) {
		return (seed = seed * 1664525u + 1013904223u, (seed >> 8) % below);
	};
	for (int round = 0; round < 2000; ++round) {
		std::vector<int> before;
		const std::uint32_t homes = 1 + next(40);
		for (std::uint32_t i = 0; i < homes; ++i)
			before.push_back(1 + static_cast<int>(next(5)));
		std::vector<std::pair<int, double>> weights = {{1, 1.0}};
		double sum = 1;
		for (int region = 2; region <= 4; ++region) {
			weights.emplace_back(region, next(10));
			sum += weights.back().second;
		}
		const auto after = Parted(before, weights);
		std::size_t surplus = 0;
		for (int region = 1; region <= 5; ++region) {
			const double weight =
				region <= 4 ? weights[static_cast<std::size_t>(region) - 1].second : 0;
			const double exact = static_cast<double>(homes) * weight / sum;
			EXPECT_LT(std::fabs(static_cast<double>(Count(after, region)) - exact), 1.0)
				<< "round " << round;
			const long owned = std::count(before.begin(), before.end(), region);
			if (owned > Count(after, region))
				surplus += static_cast<std::size_t>(owned - Count(after, region));
		}
		EXPECT_EQ(Moves(before, after), surplus) << "round " << round;
	}
}

}  // namespace
