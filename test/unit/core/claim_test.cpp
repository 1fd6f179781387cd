#include "core/claim.hpp"

#include "core/key_hash.hpp"
#include "map_builder.hpp"

#include <gtest/gtest.h>

#include <set>

using namespace homing::core;

namespace {

// Homes 0 and 1 are at us (1), 2 at eu (2); ap (3) has none, sa (4) is lost and eu its heir.
HomeMap World(int here, bool first_write = true)
{
	Keyspace keyspace{kSpace, Ids({1, 1, 2, 4}), true};
	keyspace.first_write = first_write;
	return HomeMap(Epoch(1), RegionId(static_cast<std::int16_t>(here)),
	               {Active(1, "us"), Active(2, "eu"), Active(3, "ap"), Lost(4, "sa", {2}, {1, 2, 3})},
	               {keyspace});
}

// A hash that leads to the home.
std::uint64_t HashOf(int home)
{
	for (std::uint64_t hash = 0;; ++hash) {
		if (HomeOfHash(hash, 4) == HomeId(home))
			return hash;
	}
}

Claim By(const HomeMap &map, int home, int writer, bool claims = true, bool claimed = false)
{
	return ClaimFor(map, kSpace, HashOf(home), RegionId(static_cast<std::int16_t>(writer)), claims,
	                claimed);
}

TEST(Claim, TheOwnerOfTheHashHomeKeepsTheKeyThere)
{
	const Claim claim = By(World(1), 0, 1);
	EXPECT_EQ(claim.step, ClaimStep::kClaim);
	EXPECT_EQ(claim.home, HomeId(0));
	EXPECT_FALSE(claim.moves) << "nobody has to accept it";
}

TEST(Claim, AnotherRegionGetsTheKeyToAHomeOfItsOwn)
{
	const HomeMap map = World(1);
	const Claim claim = By(map, 1, 2);
	EXPECT_EQ(claim.step, ClaimStep::kClaim);
	EXPECT_EQ(OwnerOf(map, claim.home.value), 2);
	EXPECT_TRUE(claim.moves);
}

TEST(Claim, KeysOfOneClaimantSpreadOverItsHomes)
{
	const HomeMap map = World(2);
	std::set<int> homes;
	for (std::uint64_t hash = 0; hash < 1000; ++hash) {
		const Claim claim = ClaimFor(map, kSpace, hash, RegionId(1), true, false);
		if (claim.step == ClaimStep::kClaim)
			homes.insert(claim.home.value);
	}
	EXPECT_EQ(homes, (std::set<int>{0, 1}));
}

TEST(Claim, OnlyTheOwnerOfTheHashHomeArbitrates)
{
	EXPECT_EQ(By(World(2), 0, 2).step, ClaimStep::kNone) << "us decides";
	EXPECT_EQ(By(World(3), 2, 3).step, ClaimStep::kNone) << "eu decides";
	EXPECT_EQ(By(World(2), 3, 2).step, ClaimStep::kClaim) << "the heir of a lost region decides";
}

TEST(Claim, AClaimedKeyIsNotClaimedAgain)
{
	EXPECT_EQ(By(World(1), 0, 2, true, true).step, ClaimStep::kNone);
	EXPECT_EQ(By(World(1), 0, 1, false, true).step, ClaimStep::kNone);
}

TEST(Claim, WritesThatDoNotClaimKeepTheKeyOpen)
{
	EXPECT_EQ(By(World(1), 0, 1, false).step, ClaimStep::kKeepOpen);
	EXPECT_EQ(By(World(1), 0, 2, false).step, ClaimStep::kKeepOpen);
}

TEST(Claim, WhoHasNoHomeCannotClaim)
{
	EXPECT_EQ(By(World(1), 0, 3).step, ClaimStep::kKeepOpen) << "ap owns no home";
	EXPECT_EQ(By(World(1), 0, 4).step, ClaimStep::kKeepOpen) << "a lost region gets nothing";
	EXPECT_EQ(By(World(1), 0, 9).step, ClaimStep::kKeepOpen) << "nor does an unknown one";
}

TEST(Claim, OtherPlacementsKnowNoClaims)
{
	EXPECT_EQ(By(World(1, false), 0, 1).step, ClaimStep::kNone);
	EXPECT_EQ(By(World(1, false), 0, 2, false).step, ClaimStep::kNone);
}

}  // namespace
