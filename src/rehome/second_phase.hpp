// Ends the prepared parts of transactions over several regions that are left in this region: their
// coordinator, the link to it or its session here is gone. What is decided is in core/in_doubt.
#pragma once

#include "core/in_doubt.hpp"
#include "remote/connection.hpp"

#include <chrono>
#include <map>
#include <string>

#include "pg/boundary.hpp"

namespace homing::rehome {

class SecondPhase {
public:
	// One round, outside a transaction. Connects as `administrator` to the coordinators that have to be asked,
	// for at most homing.connect_timeout each. Throws std::exception when this region itself fails.
	void Round(remote::Waiter &waiter, Oid administrator);

private:
	using Clock = std::chrono::steady_clock;

	struct Part {
		std::string gid, coordinator;
		core::InDoubt state;
		std::chrono::milliseconds age{0};
	};

	void Ask(remote::Waiter &waiter, Oid administrator, Part &part);
	void End(const Part &part, bool commit);

	std::map<std::string, core::CoordinatorAnswer> answers_;  // by gid
	std::map<std::string, Clock::time_point> not_before_;  // by coordinator that could not be asked
};

}  // namespace homing::rehome
