// The simulation as a test: seeds without a fault, the same outcome for the same seed, and that the checkers
// find what is planted.
#include "world.hpp"

#include <gtest/gtest.h>

#include <set>

using namespace homing::sim;

namespace {

constexpr std::uint64_t kSeeds = 60;

// The first seed that finds the bug; 0: none does.
std::uint64_t FindBug(bool Bugs::*bug, std::string *fault)
{
	constexpr std::uint64_t kMost = 1000;
	for (std::uint64_t seed = 1; seed <= kMost; ++seed) {
		Plan plan = PlanOf(seed);
		// More of what leases are for.
		plan.regions = 3 + static_cast<int>(seed % 3);
		plan.most_lost = (plan.regions - 1) / 2;
		plan.cut_per_s = 1;
		plan.declare_per_s = 0.5;
		plan.bugs.*bug = true;
		const Outcome outcome = World(plan).Run();
		if (!outcome.fault.empty()) {
			*fault = outcome.fault;
			return seed;
		}
	}
	return 0;
}

void ExpectFound(bool Bugs::*bug, const std::string &kind)
{
	std::string fault;
	const std::uint64_t seed = FindBug(bug, &fault);
	EXPECT_NE(seed, 0u) << "no seed finds it";
	EXPECT_EQ(fault.substr(0, kind.size()), kind) << "seed " << seed << ": " << fault;
}

TEST(Simulation, HoldsForManySeeds)
{
	Outcome sum;
	std::set<std::pair<homing::core::HomeState, homing::core::HomeState>> seen;
	for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
		const Outcome outcome = World(PlanOf(seed)).Run();
		ASSERT_EQ(outcome.fault, "") << "seed " << seed;
		sum.writes += outcome.writes;
		sum.moves += outcome.moves;
		sum.losses += outcome.losses;
		sum.crashes += outcome.crashes;
		for (const auto &transition : outcome.transitions)
			seen.insert(transition.first);
	}
	// A simulation in which nothing happens proves nothing.
	EXPECT_GT(sum.writes, 5000);
	EXPECT_GT(sum.moves, 150);
	EXPECT_GT(sum.losses, 50);
	EXPECT_GT(sum.crashes, 150);
	using S = homing::core::HomeState;
	for (const auto &transition : homing::core::Transitions()) {
		// A loss here never takes all heirs, and an heir here first waits for the ends of the lost: without
		// leases all survivors have them before the map says that a region is lost.
		const bool elsewhere = transition.from == S::kOrphan || transition.to == S::kOrphan ||
		                       (transition.from == S::kElsewhere && transition.to == S::kServed);
		if (transition.from != transition.to && !elsewhere) {
			EXPECT_EQ(seen.count({transition.from, transition.to}), 1u)
				<< NameOf(transition.from) << " to " << NameOf(transition.to) << " never happened";
		}
	}
}

TEST(Simulation, IsTheSameForTheSameSeed)
{
	const Outcome once = World(PlanOf(4)).Run(), again = World(PlanOf(4)).Run();
	EXPECT_EQ(once.writes, again.writes);
	EXPECT_EQ(once.moves, again.moves);
	EXPECT_EQ(once.transitions, again.transitions);
}

TEST(PlantedBug, ServingBeforeAcceptanceIsFound)
{
	ExpectFound(&Bugs::serve_before_acceptance, "P7");
}

TEST(PlantedBug, NoBarrierIsFound)
{
	ExpectFound(&Bugs::no_barrier, "P7");
}

TEST(PlantedBug, VotingBeforeThePromiseEndsIsFound)
{
	ExpectFound(&Bugs::vote_before_promise_ends, "P1");
}

TEST(PlantedBug, ServingWithoutALeaseIsFound)
{
	ExpectFound(&Bugs::serve_without_lease, "P1");
}

TEST(PlantedBug, ApplyingFromAFencedRegionIsFound)
{
	ExpectFound(&Bugs::apply_from_fenced, "P");
}

TEST(PlantedBug, SkippingASurvivorIsFound)
{
	ExpectFound(&Bugs::final_by_some, "P");
}

TEST(PlantedBug, ServingWithoutTheEndsOfLostRegionsIsFound)
{
	ExpectFound(&Bugs::serve_before_tails, "P");
}

}  // namespace
