// What one run of the simulation is like: everything follows from it and the seed.
#pragma once

#include <cstdint>

namespace homing::sim {

// Errors planted on purpose: the checkers must find each of them.
struct Bugs {
	bool serve_before_acceptance = false;
	bool no_barrier = false;
	bool vote_before_promise_ends = false;
	bool serve_without_lease = false;
	bool apply_from_fenced = false;
	bool final_by_some = false;  // not all survivors have reported
	bool serve_before_tails = false;
	bool copy_over_own_writes = false;  // those that the source has not received
	bool move_before_copying = false;   // streams go on from a copy that may not get ready
};

// What the promises do not cover. The checkers must see what comes of it.
struct Beyond {
	bool wall_clock = false;     // leases are measured by a clock that somebody sets
	bool frozen_clock = false;   // the clock of a machine stands still while it is paused
	bool two_may_serve = false;  // P1 is not looked at
};

struct Plan {
	std::uint64_t seed = 1;
	int regions = 3;
	int homes = 2;
	std::int64_t faulty_ms = 40000;   // faults and work
	std::int64_t healing_ms = 30000;  // then neither, to become quiet
	double drop = 0.05;               // of messages
	double duplicate = 0.05;
	int longest_delay_ms = 300;
	double cut_per_s = 0.1;  // one direction of one link, or both, or a region from all
	double crash_per_s = 0.1;
	double crash_at_write = 0.002;  // before or after a durable write
	double pause_per_s = 0.05;
	double declare_per_s = 0.1;  // some region wants some other declared lost
	double hand_over_per_s = 2;
	double write_per_s = 40;
	int drift_ppm = 1000;       // how far the regions believe that their clocks are off, at most
	int real_drift_ppm = 1000;  // how far they are
	bool cut_off_lost = false;  // whom somebody wants declared lost, all the time
	int most_lost = 2;          // declarations are not begun beyond that
	bool tails_kept = true;     // regions pass on the end of a lost one's stream; else it is copied
	Bugs bugs;
	Beyond beyond;
};

// A plan with everything drawn from the seed.
Plan PlanOf(std::uint64_t seed);

}  // namespace homing::sim
