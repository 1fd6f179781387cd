// The user's transaction over regions.
//
// Every region that a transaction has forwarded a statement to takes part in it with one remote
// transaction. At most one participant may have written, this region counted: with one writer its COMMIT
// decides, so nothing needs to be prepared. It is sent before our own commit, which then has nothing to
// lose.
#pragma once

#include "core/ids.hpp"
#include "remote/connection.hpp"

#include "write/region_session.hpp"

namespace homing::write {

// Callbacks; from _PG_init.
void RegisterTransaction();

// Runs a write at another region: in the remote transaction that follows ours or, when `alone` (it is all
// that our transaction does), committed at once. Throws the remote error, CannotConnect, OutcomeUnknown.
remote::Result Forward(core::RegionId region, const RemoteStatement &statement, bool alone);

// Raises 0A000 when a write here would be the second writer of the transaction. A plain server call.
void CheckMayWriteHere();

// True when nothing was forwarded or written in this transaction so far.
bool TransactionIsUntouched();

}  // namespace homing::write
