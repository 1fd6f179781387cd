// A process that is cancelled because it is in a deadlock over several regions says so: 40P01 instead of 57014,
// for whoever catches the error and for the client.
//
// The worker marks the process and cancels it. An error context callback of ours, at the far end of the
// process's stack of them, renames the error while it is made.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace homing::pg {

// Shared memory; from _PG_init.
void RegisterDeadlockVictim();

// Called before statements run: makes sure that the callback is there.
void WatchForDeadlock() noexcept;

// Start of the latest of the waits for locks that have lasted deadlock_timeout, in this server; 0: there is none.
// Looks without locks: what it misses it sees the next time.
TimestampTz LatestLongWait() noexcept;

}  // namespace homing::pg
