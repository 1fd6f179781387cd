#include "core/placement.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

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

}  // namespace
