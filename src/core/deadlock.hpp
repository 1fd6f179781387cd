// Transactions that wait for each other at several regions: no region sees more than a part of the circle.
//
// Every region tells which of its processes waits for which other one, and which process at another region works
// for which of its own: the two are one transaction. Two looks are taken one after the other, and what is in
// both has been so all the time in between; so all of it was true at the moment when the first look was
// complete, and a circle in it is a deadlock, although no two regions were looked at at the same time.
#pragma once

#include "core/ids.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace homing::core {

struct Backend {
	RegionId region;
	int pid = 0;
	friend bool operator==(const Backend &a, const Backend &b)
	{
		return a.region == b.region && a.pid == b.pid;
	}
	friend bool operator<(const Backend &a, const Backend &b)
	{
		return a.region < b.region || (a.region == b.region && a.pid < b.pid);
	}
};

// Times are in microseconds, by the clock of the region that tells them.
struct LockWait {
	Backend waiter, blocker;  // of one region
	std::int64_t since = 0;   // identifies the wait
	std::int64_t began = 0;   // the waiter's transaction
};

struct Branch {
	Backend origin, remote;  // a session, and the one that works for it at another region
	std::int64_t began = 0;  // the origin's transaction
};

struct WaitGraph {
	std::vector<LockWait> waits;
	std::vector<Branch> branches;

	// Adds what a region tells: lines "w,WAITER,BLOCKER,SINCE,BEGAN" and "b,PID,REGION,PID THERE,BEGAN". False: the
	// text is not of this form; then nothing is added.
	bool Add(RegionId region, const std::string &text);
};

// What is in both.
WaitGraph Lasting(const WaitGraph &before, const WaitGraph &after);

// A process to cancel while it waits since then, and the transactions of its circle, by their origins.
struct Victim {
	Backend waiter;
	std::int64_t since = 0;
	std::vector<Backend> circle;
};

// One for each knot of circles that no region sees by itself: of the youngest transaction in it. Everybody who
// knows the graph finds the same.
std::vector<Victim> FindVictims(const WaitGraph &graph);

}  // namespace homing::core
