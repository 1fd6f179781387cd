// What the worker of a survivor does about losses: it takes what this region lacks of them, and when nobody else does it
// finishes those that were begun, and declares those that homing.auto_declare_lost is about (parts/declarer.sql).
//
// In a session of its own, with this very region: the declaration takes sessions with all others, and its steps must
// see each other's commits. It is not waited for: the worker's other duties go on, some of which may be what it waits for.
#pragma once

#include "remote/connection.hpp"

#include <chrono>
#include <optional>

#include "pg/boundary.hpp"
#include "pg/credentials.hpp"

namespace homing::rehome {

class LossDuty {
public:
	// One round, outside a transaction. `wanted`: there is something to do, which begins when it has been wanted for `wait`
	// and is given up after `patience`. Connects as `administrator`. Throws std::exception.
	void Round(bool wanted, std::chrono::milliseconds wait,
	           std::optional<std::chrono::milliseconds> patience, remote::Waiter &waiter,
	           Oid administrator);
	bool Busy() const { return busy_ != nullptr; }
	// Leaves what is being done to itself; returns the process that does it. Requires: Busy().
	int Leave();

private:
	using Clock = std::chrono::steady_clock;

	void Begin(remote::Waiter &waiter, Oid administrator);
	void Hear();

	std::optional<Clock::time_point> due_;  // when to do something about them
	pg::RegionConnection busy_;             // somebody is at it
	std::optional<Clock::time_point> give_up_;
};

}  // namespace homing::rehome
