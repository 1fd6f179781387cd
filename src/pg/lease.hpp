// Whether this region may serve just now (core/lease): what the keeper of its lease and its voters share.
//
// The deadline is one number in shared memory. A writer looks at it when it holds the lock on the home; its
// transaction looks again just before the commit record, and once more after it: when the lease has run out in
// between, the commit stands but is not acknowledged, as the server itself does with a wait for a synchronous
// standby that is cut off.
//
// All times are those of CLOCK_BOOTTIME, which is never set and runs on while the machine sleeps. Nothing of this
// outlives a restart of the server: it starts without a lease, and as if it had promised everything just before.
#pragma once

#include "core/lease.hpp"

#include "pg/boundary.hpp"

namespace homing::pg {

// Shared memory and callbacks; from _PG_init.
void RegisterLease();

core::Instant BootTime();

// Whether this region may serve, by its lease or, where none is needed, because it has heard from a peer since the
// server started, or has none. A transaction that needs the lease is then watched to its end.
bool MayServe(const core::Electorate &electorate);
// How long to wait for it, in ms: a region whose server was just started may in a moment.
long FirstLeasePatience();
// Raises 25006 unless MayServe, after that time. A plain server call.
void CheckLease();
// Why it may not; for an error's detail. A plain server call.
const char *WhyNotServing();

// --- the keeper of this database's lease ---------------------------------------------------------------------

// False: another process keeps it. Given back when the process ends.
bool ClaimLease();
bool LeaseIsKept();
// `epoch`: of the map whose voters it was counted by.
void PublishLease(core::Instant until, std::int64_t epoch);
// Whether somebody waits for the lease to be counted anew; asked once.
bool RecountIsWanted();
// A peer that was asked has not called this region lost: it may go on where no lease is needed.
void ConfirmServing();

}  // namespace homing::pg
