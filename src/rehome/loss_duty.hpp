// What the worker of a survivor does about losses when nobody else does: it finishes those that were begun, and
// declares those that homing.auto_declare_lost is about (parts/declarer.sql).
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
	// One round, outside a transaction. `wanted`: there is a loss to finish or to declare. `before`: how many regions that
	// answer would do it before this one. Connects as `administrator`. Throws std::exception.
	void Round(bool wanted, int before, remote::Waiter &waiter, Oid administrator);

private:
	using Clock = std::chrono::steady_clock;

	void Begin(remote::Waiter &waiter, Oid administrator);
	void Hear();

	std::optional<Clock::time_point> due_;  // when to do something about them
	pg::RegionConnection declaring_;        // somebody is at it
	Clock::time_point declare_until_;
};

}  // namespace homing::rehome
