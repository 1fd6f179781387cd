#include "core/home_map.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

using namespace homing::core;

namespace {

TEST(HomeMap, ALivingOwnerKeepsItsHomes)
{
	const HomeMap map = MapOf({Active(1, "us"), Active(2, "eu")}, {1, 2, 2});
	EXPECT_EQ(OwnerOf(map, 0), 1);
	EXPECT_EQ(OwnerOf(map, 1), 2);
	EXPECT_EQ(OwnerOf(map, 2), 2);
}

TEST(HomeMap, UnknownKeyspaceOrHomeHasNoOwner)
{
	const HomeMap map = MapOf({Active(1, "us")}, {1, 1});
	EXPECT_FALSE(map.Owner(KeyspaceId(9), HomeId(0)));
	EXPECT_FALSE(map.Owner(kSpace, HomeId(2)));
	EXPECT_FALSE(map.Owner(kSpace, HomeId(-1)));
	EXPECT_EQ(map.FindKeyspace(KeyspaceId(9)), nullptr);
}

TEST(HomeMap, ARecordedOwnerThatIsNoMemberOwnsNothing)
{
	EXPECT_EQ(OwnerOf(MapOf({Active(1, "us")}, {7}), 0), 0);
}

TEST(HomeMap, TheFirstLivingHeirTakesOver)
{
	const std::vector<Region> regions = {Lost(1, "us", {3, 2}, {2, 3}), Active(2, "eu"),
	                                     Active(3, "ap")};
	EXPECT_EQ(OwnerOf(MapOf(regions, {1, 1, 1}, 2), 0), 3);
	EXPECT_EQ(OwnerOf(MapOf(regions, {1, 1, 1}, 2), 1), 3);
}

TEST(HomeMap, ALostHeirIsPassedOver)
{
	const std::vector<Region> regions = {Lost(1, "us", {3, 2}, {2, 3}), Active(2, "eu"),
	                                     Lost(3, "ap", {}, {2})};
	EXPECT_EQ(OwnerOf(MapOf(regions, {1, 3}, 2), 0), 2);
	EXPECT_EQ(OwnerOf(MapOf(regions, {1, 3}, 2), 1), 2);
}

TEST(HomeMap, WithoutHeirsHomesSpreadOverTheSurvivors)
{
	const HomeMap map =
		MapOf({Lost(1, "us", {}, {2, 3}), Active(2, "eu"), Active(3, "ap")}, {1, 1, 1, 1, 2, 3}, 2);
	EXPECT_EQ(OwnerOf(map, 0), 2);
	EXPECT_EQ(OwnerOf(map, 1), 3);
	EXPECT_EQ(OwnerOf(map, 2), 2);
	EXPECT_EQ(OwnerOf(map, 3), 3);
	EXPECT_EQ(OwnerOf(map, 4), 2);
	EXPECT_EQ(OwnerOf(map, 5), 3);
}

TEST(HomeMap, ASecondLossFollowsTheSecondRegionsHeirs)
{
	// us was lost first: home 0 went to eu, home 1 to ap. Then eu: its heir is ap.
	const HomeMap map = MapOf({Lost(1, "us", {}, {2, 3}), Lost(2, "eu", {3}, {3, 4}),
	                           Active(3, "ap"), Active(4, "sa")},
	                          {1, 1, 2}, 3);
	EXPECT_EQ(OwnerOf(map, 0), 3);
	EXPECT_EQ(OwnerOf(map, 1), 3);
	EXPECT_EQ(OwnerOf(map, 2), 3);
}

TEST(HomeMap, NobodyLeftMeansNoOwner)
{
	EXPECT_EQ(OwnerOf(MapOf({Lost(1, "us", {}, {})}, {1}), 0), 0);
	EXPECT_EQ(OwnerOf(MapOf({Lost(1, "us", {}, {2}), Lost(2, "eu", {}, {})}, {1}), 0), 0);
}

TEST(HomeMap, ACircleOfHeirsEnds)
{
	EXPECT_EQ(OwnerOf(MapOf({Lost(1, "us", {2}, {2}), Lost(2, "eu", {1}, {1})}, {1}), 0), 0);
}

TEST(HomeMap, AJoiningRegionIsNoHeir)
{
	Region joining = Active(2, "eu");
	joining.status = RegionStatus::kJoining;
	const HomeMap map = MapOf({Lost(1, "us", {2}, {3}), joining, Active(3, "ap")}, {1}, 3);
	EXPECT_EQ(OwnerOf(map, 0), 3);
}

TEST(HomeMap, KnowsTheHomesThatNeverMoved)
{
	// Of the first two one was handed over to us, the third is ours since its owner was lost.
	Keyspace keyspace{kSpace, Ids({1, 1, 3, 2}), false, std::vector<Handover>(4)};
	keyspace.handovers[1] = {5, RegionId(2), RegionId(1), true};
	const std::vector<Region> regions{Active(1, "us"), Active(2, "eu"), Lost(3, "ap", {1}, {1, 2})};
	const HomeMap map(Epoch(2), RegionId(1), regions, {keyspace});
	ASSERT_NE(map.UnmovedHere(kSpace), nullptr);
	EXPECT_EQ(*map.UnmovedHere(kSpace), (std::vector<bool>{true, false, false, false}));
	EXPECT_EQ(map.UnmovedHere(KeyspaceId(9)), nullptr);

	keyspace.has_assignments = true;
	EXPECT_EQ(HomeMap(Epoch(2), RegionId(1), regions, {keyspace}).UnmovedHere(kSpace), nullptr)
		<< "a key may be assigned to any home";
}

TEST(HomeMap, KnowsWhetherHereIsLost)
{
	EXPECT_FALSE(MapOf({Active(1, "us"), Active(2, "eu")}, {1}).HereIsLost());
	EXPECT_TRUE(MapOf({Lost(1, "us", {}, {2}), Active(2, "eu")}, {1}).HereIsLost());
	EXPECT_TRUE(MapOf({Active(2, "eu")}, {2}).HereIsLost()) << "a region the map does not know";
}

TEST(HomeMap, ANameMeansItsNewestIncarnation)
{
	const HomeMap map = MapOf({Lost(1, "us", {}, {2}), Active(2, "eu"), Active(5, "us")}, {1, 5}, 2);
	ASSERT_NE(map.FindRegion("us"), nullptr);
	EXPECT_EQ(map.FindRegion("us")->id, RegionId(5));
	EXPECT_EQ(map.FindRegion("sa"), nullptr);
	EXPECT_EQ(OwnerOf(map, 0), 2) << "the homes of the lost incarnation are not given back";
	EXPECT_EQ(OwnerOf(map, 1), 5);
}

TEST(HomeMap, HeirsOfShowsWhoTakesOver)
{
	const HomeMap named =
		MapOf({Active(1, "us", {3, 2}), Active(2, "eu"), Active(3, "ap")}, {1, 2}, 1);
	EXPECT_EQ(named.HeirsOf(kSpace, HomeId(0)), Ids({3, 2}));
	const HomeMap spread = MapOf({Active(1, "us"), Active(2, "eu"), Active(3, "ap")}, {1, 1, 2}, 1);
	EXPECT_EQ(spread.HeirsOf(kSpace, HomeId(0)), Ids({2, 3}));
	EXPECT_EQ(spread.HeirsOf(kSpace, HomeId(1)), Ids({3, 2}));
	EXPECT_EQ(spread.HeirsOf(kSpace, HomeId(2)), Ids({1, 3}));
	EXPECT_TRUE(spread.HeirsOf(kSpace, HomeId(99)).empty());
}

// --- properties over random histories -------------------------------------------------------------

struct History {
	std::mt19937 random;
	std::vector<Region> regions;
	std::vector<int> recorded;

	explicit History(unsigned seed) : random(seed)
	{
		const int count = Below(2, 7);
		for (int id = 1; id <= count; ++id)
			regions.push_back(Active(id, "r" + std::to_string(id)));
		for (int home = 0; home < 24; ++home)
			recorded.push_back(Below(1, count));
	}

	int Below(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

	HomeMap Map() const { return MapOf(regions, recorded); }

	std::vector<RegionId> Living() const
	{
		std::vector<RegionId> living;
		for (const Region &region : regions) {
			if (region.status == RegionStatus::kActive)
				living.push_back(region.id);
		}
		return living;
	}

	Region &AnyLiving()
	{
		const auto living = Living();
		const RegionId id =
			living[static_cast<std::size_t>(Below(0, static_cast<int>(living.size()) - 1))];
		return *std::find_if(regions.begin(), regions.end(),
		                     [&](const Region &region) { return region.id == id; });
	}

	// As declare_lost does it.
	void Lose(Region &region)
	{
		region.status = RegionStatus::kLost;
		region.spread = Living();
	}

	// As set_heirs does it: of a living region, among living regions.
	void SetHeirs(Region &region)
	{
		region.heirs = Living();
		std::shuffle(region.heirs.begin(), region.heirs.end(), random);
		region.heirs.resize(
			static_cast<std::size_t>(Below(0, static_cast<int>(region.heirs.size()))));
		region.heirs.erase(std::remove(region.heirs.begin(), region.heirs.end(), region.id),
		                   region.heirs.end());
	}
};

// A home whose owner lives stays there, whatever happens to others: moving it would need a hand-over.
TEST(HomeMapProperty, ALossMovesOnlyTheLostRegionsHomes)
{
	for (unsigned seed = 0; seed < 3000; ++seed) {
		SCOPED_TRACE("seed " + std::to_string(seed));
		History history(seed);
		for (int step = 0; step < 12 && history.Living().size() > 1; ++step) {
			if (history.Below(0, 1) == 0) {
				const HomeMap before = history.Map();
				history.SetHeirs(history.AnyLiving());
				const HomeMap after = history.Map();
				for (int home = 0; home < 24; ++home)
					ASSERT_EQ(OwnerOf(before, home), OwnerOf(after, home))
						<< "set_heirs moved a home";
				continue;
			}
			const HomeMap before = history.Map();
			Region &lost = history.AnyLiving();
			history.Lose(lost);
			const HomeMap after = history.Map();
			for (int home = 0; home < 24; ++home) {
				ASSERT_NE(OwnerOf(after, home), 0) << "a home lost its owner while regions live";
				ASSERT_NE(OwnerOf(after, home), lost.id.value);
				if (OwnerOf(before, home) == lost.id.value)
					continue;
				ASSERT_EQ(OwnerOf(before, home), OwnerOf(after, home)) << "home " << home;
			}
		}
	}
}

TEST(HomeMapProperty, HeirsOfForetellsTheOwner)
{
	for (unsigned seed = 0; seed < 3000; ++seed) {
		SCOPED_TRACE("seed " + std::to_string(seed));
		History history(seed);
		for (int step = 0; step < 8 && history.Living().size() > 1; ++step) {
			history.SetHeirs(history.AnyLiving());
			const HomeMap before = history.Map();
			Region &lost = history.AnyLiving();
			history.Lose(lost);
			const HomeMap after = history.Map();
			for (int home = 0; home < 24; ++home) {
				if (OwnerOf(before, home) != lost.id.value)
					continue;
				const auto heirs = before.HeirsOf(kSpace, HomeId(home));
				ASSERT_FALSE(heirs.empty());
				ASSERT_EQ(heirs.front().value, OwnerOf(after, home)) << "home " << home;
			}
		}
	}
}

// Every region computes the owner from the same map: the order in which regions are listed is nothing.
TEST(HomeMapProperty, OrderOfRegionsDoesNotMatter)
{
	for (unsigned seed = 0; seed < 500; ++seed) {
		SCOPED_TRACE("seed " + std::to_string(seed));
		History history(seed);
		while (history.Living().size() > 1) {
			history.Lose(history.AnyLiving());
			const HomeMap map = history.Map();
			std::vector<Region> shuffled = history.regions;
			std::shuffle(shuffled.begin(), shuffled.end(), history.random);
			const HomeMap other = MapOf(shuffled, history.recorded);
			for (int home = 0; home < 24; ++home) {
				ASSERT_EQ(OwnerOf(map, home), OwnerOf(other, home));
				ASSERT_EQ(map.HeirsOf(kSpace, HomeId(home)), other.HeirsOf(kSpace, HomeId(home)));
			}
		}
	}
}

}  // namespace
