// The simulation as a test: seeds without a fault, the same outcome for the same seed, and that the checkers
// find what is planted.
#include "world.hpp"

#include <gtest/gtest.h>

#include <set>

using namespace homing::sim;

namespace {

constexpr std::uint64_t kSeeds = 60;

// More of what leases are for.
Plan HardPlanOf(std::uint64_t seed)
{
	Plan plan = PlanOf(seed);
	plan.regions = 3 + static_cast<int>(seed % 3);
	plan.most_lost = (plan.regions - 1) / 2;
	plan.cut_per_s = 1;
	plan.declare_per_s = 0.5;
	plan.tails_kept = true;
	return plan;
}

// Regions that nobody reaches are declared lost, one after the other.
void Isolate(Plan *plan)
{
	plan->regions = 7;
	plan->homes = 7;
	plan->most_lost = 3;
	plan->declare_per_s = 0.5;
	plan->cut_off_lost = true;
	plan->cut_per_s = 0;
	plan->longest_delay_ms = 20;
	plan->drop = plan->crash_per_s = plan->crash_at_write = plan->pause_per_s = 0;
}

enum class Others { kNone, kMayCome };  // faults of another kind

// Some seed finds what `change` does to the plan.
template <typename Change>
void ExpectFoundIn(const Change &change, const std::string &kind, Others others = Others::kNone)
{
	constexpr std::uint64_t kMost = 1000;
	for (std::uint64_t seed = 1; seed <= kMost; ++seed) {
		Plan plan = HardPlanOf(seed);
		change(&plan);
		const Outcome outcome = World(plan).Run();
		const bool of_kind = outcome.fault.substr(0, kind.size()) == kind;
		if (!of_kind && (outcome.fault.empty() || others == Others::kMayCome))
			continue;
		EXPECT_TRUE(of_kind) << "seed " << seed << ": " << outcome.fault;
		return;
	}
	FAIL() << "no seed finds it";
}

void ExpectFound(bool Bugs::*bug, const std::string &kind)
{
	ExpectFoundIn([bug](Plan *plan) { plan->bugs.*bug = true; }, kind);
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
		sum.copies += outcome.copies;
		for (const auto &transition : outcome.transitions)
			seen.insert(transition.first);
	}
	// A simulation in which nothing happens proves nothing.
	EXPECT_GT(sum.writes, 5000);
	EXPECT_GT(sum.moves, 150);
	EXPECT_GT(sum.losses, 50);
	EXPECT_GT(sum.crashes, 150);
	EXPECT_GT(sum.copies, 0);
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

// PROTOCOL §3 row 8: within the bound HoldsForManySeeds, whose clocks differ by as much as it allows.
TEST(BeyondThePromises, ClocksOffByMoreThanTheBoundAreFound)
{
	ExpectFoundIn(
		[](Plan *plan) {
			Isolate(plan);
			plan->real_drift_ppm = 600000;
		},
		"P1");
}

// Row 7: servers measure leases by CLOCK_BOOTTIME, which nobody sets; this is what the wall clock would do.
TEST(BeyondThePromises, LeasesByAClockThatIsSetAreFound)
{
	// Set back, it also holds up what is done every so often.
	ExpectFoundIn(
		[](Plan *plan) {
			Isolate(plan);
			plan->beyond.wall_clock = true;
		},
		"P1", Others::kMayCome);
}

// Row 6, a machine that is paused together with its clock: it may serve for a moment after its loss. The survivors
// take nothing of that, and agree.
TEST(BeyondThePromises, AFrozenClockLetsALostRegionServe)
{
	ExpectFoundIn(
		[](Plan *plan) {
			Isolate(plan);
			plan->beyond.frozen_clock = true;
			plan->pause_per_s = 0.3;
		},
		"P1");
}

TEST(BeyondThePromises, SurvivorsOfAFrozenRegionAgree)
{
	std::int64_t losses = 0;
	for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
		Plan plan = HardPlanOf(seed);
		plan.beyond.frozen_clock = plan.beyond.two_may_serve = true;
		plan.pause_per_s = 1;
		const Outcome outcome = World(plan).Run();
		ASSERT_EQ(outcome.fault, "") << "seed " << seed;
		losses += outcome.losses;
	}
	EXPECT_GT(losses, 50);
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

TEST(PlantedBug, CopyingOverOwnWritesIsFound)
{
	ExpectFoundIn(
		[](Plan *plan) {
			plan->tails_kept = false;
			plan->most_lost = 1;
			plan->bugs.copy_over_own_writes = true;
		},
		"P");
}

TEST(PlantedBug, MovingStreamsBeforeTheCopyIsFound)
{
	ExpectFoundIn(
		[](Plan *plan) {
			plan->tails_kept = false;
			plan->most_lost = 1;
			plan->crash_at_write = 0.01;
			plan->bugs.move_before_copying = true;
		},
		"P");
}

TEST(PlantedBug, ServingWithoutTheEndsOfLostRegionsIsFound)
{
	ExpectFound(&Bugs::serve_before_tails, "P");
}

}  // namespace
