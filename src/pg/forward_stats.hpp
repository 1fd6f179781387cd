// What the sessions of this server have forwarded, counted for each database and region in shared memory.
//
// Kept over a clean restart, in a file that is read and removed at start: after a crash the counts begin anew,
// rather than at those of some time ago. Counting costs a few atomic additions for each statement.
#pragma once

#include "core/ids.hpp"

#include <chrono>
#include <string>

#include "pg/server.hpp"

namespace homing::pg {

// Times in microseconds. The order is that of the columns of homing._forward_stats().
enum class Forwarded : int {
	kStatements,
	kRows,
	kConnectionErrors,
	kConflicts,
	kConstraintErrors,
	kCancels,
	kOtherErrors,
	kConnections,
	kConnectTime,
	kExecuteTime,
	kCommits,
	kCommitTime,
	kPrepared,
	kDecided,
	kRolledBack,
	kReadWaits,
	kReadWaitTime,
	kReadTimeouts,
	kCounters
};

// Of one region. Lives as long as the server.
struct ForwardCounters;

// Shared memory; from _PG_init.
void RegisterForwardStats();

// nullptr: there is no room for the region, or no shared memory; nothing is counted then. Never raises.
ForwardCounters *CountersOf(core::RegionId region) noexcept;

void Count(ForwardCounters *counters, Forwarded what, uint64 by = 1) noexcept;
void CountError(ForwardCounters *counters, const std::string &sqlstate) noexcept;
void CountSince(ForwardCounters *counters, Forwarded what,
                std::chrono::steady_clock::time_point begin) noexcept;

// Counts the conversations of one session with a region.
class ForwardMeter {
public:
	explicit ForwardMeter(core::RegionId region) : counters_(CountersOf(region)) {}

	// Something was sent: its time is counted as `time`.
	void Sent(Forwarded time) noexcept
	{
		time_ = time;
		sent_ = std::chrono::steady_clock::now();
	}
	// It was answered.
	void Answered() noexcept { CountSince(counters_, time_, sent_); }
	void Failed(const std::string &sqlstate) noexcept
	{
		Answered();
		CountError(counters_, sqlstate);
	}
	std::chrono::steady_clock::time_point LastSent() const { return sent_; }
	void Count(Forwarded what, uint64 by = 1) noexcept { pg::Count(counters_, what, by); }

private:
	ForwardCounters *counters_;
	Forwarded time_ = Forwarded::kExecuteTime;
	std::chrono::steady_clock::time_point sent_ = std::chrono::steady_clock::now();
};

}  // namespace homing::pg
