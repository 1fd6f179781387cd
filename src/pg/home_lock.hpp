// Locks on homes, with tags that SQL cannot reach.
//
// A writer holds its home in RowExclusiveLock to the end of its transaction, across PREPARE too. A move takes
// ExclusiveLock, so that every write of the old owner is in WAL before the baton. A writer of many homes
// holds the keyspace instead, in ShareLock, which a move holds in RowExclusiveLock: moves do not wait for each other.
//
// A home is locked as if it were a relation, under a number that no relation has, because weak locks of relations
// are the only ones that a backend keeps to itself until somebody wants a strong one: any other would go through the
// server's shared lock table with each write. Two homes may share a number; then a move of one waits for the
// writers of the other as well, and that is all.
//
// Do not remember "held" in the backend: ROLLBACK TO SAVEPOINT gives the lock back. All are plain server
// calls.
#pragma once

#include "core/ids.hpp"

#include "pg/boundary.hpp"

namespace homing::pg {

// For a write of one home.
void LockHomeForWrite(core::KeyspaceId keyspace, core::HomeId home);
// For a write of any of the keyspace's homes.
void LockKeyspaceForWrite(core::KeyspaceId keyspace);
// For a change of the home's owner, or of a key's assignment from or to it. Waits for its writers.
void LockHomeForMove(core::KeyspaceId keyspace, core::HomeId home);
// The same without waiting. False: somebody writes the home, or the whole keyspace.
bool TryLockHomeForMove(core::KeyspaceId keyspace, core::HomeId home);

// --- claims of keys (core/claim): who claims and who keeps keys open exclude each other --------------

// For a claim of one key, or of many.
void LockKeyForClaim(core::KeyspaceId keyspace, uint64 key_hash);
void LockKeysForClaim(core::KeyspaceId keyspace);
// For a write of unclaimed keys that claims nothing: one key, or any.
void KeepKeyOpen(core::KeyspaceId keyspace, uint64 key_hash);
void KeepKeysOpen(core::KeyspaceId keyspace);

// Whether this transaction has taken a lock for a write in the keyspace.
bool HoldsLockForWrite(core::KeyspaceId keyspace, int homes);

// The lock that lets one change of members or homed tables at a time happen at this region.
void LockChange();
// The same until the end of the session.
void HoldChange();
void ReleaseChange();

// Raises 40P01 when a change of homed tables waits here for a table that this transaction uses. For a writer that
// waits for another region: the change may be what holds it up there.
void CheckHoldsUpNoChange();

}  // namespace homing::pg
