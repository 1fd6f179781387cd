// How far the streams of other regions are applied here, and waiting for it.
//
// A replication origin's progress moves before the transaction that moves it is visible (PROTOCOL 2g), so a
// position counts as applied only when the apply worker's transaction has ended too.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "access/xlogdefs.h"
}

namespace homing::pg {

// Shared memory and callbacks; from _PG_init.
void RegisterApplyProgress();

// The subscription of this database with that name; InvalidOid: there is none. A plain server call.
Oid SubscriptionOfThisDatabase(const char *name);

// Where its progress stands: what is visible here of the stream ends there, or before. 0: nothing has been applied yet.
// A plain server call.
XLogRecPtr AppliedPosition(Oid subscription);

// Whether everything that the subscription's publisher committed up to `position` is visible here to a
// snapshot taken from now on. A plain server call.
bool IsApplied(Oid subscription, XLogRecPtr position);

// For an apply worker that is about to wait for other streams in the middle of a transaction: all that it
// applied before is visible, although it is in a transaction. Two that wait for each other's last one would
// wait for ever.
void TellWaiting();

// Waits until a transaction of some stream has been applied here, or the time is over. `since` is what
// AppliedCount returned before the look that showed that there is something to wait for. Honours interrupts.
// A plain server call.
uint64 AppliedCount();
void AwaitApply(uint64 since, long timeout_ms);

}  // namespace homing::pg
