// Commits a transaction that has written at several regions, this one counted: everywhere or nowhere (P4).
//
// This region is the coordinator. The order of steps:
//
//   1  before our commit, every region that was written to gets PREPARE TRANSACTION, all at the same time;
//   2  meanwhile the decision, a row of homing.outcome with the token of the whole, is inserted in our own
//      transaction, so that it is durable exactly when our own part is;
//   3  when all have prepared, our transaction commits, flushed. That is the decision.
//   4  each region commits its prepared part when it has *applied* the decision out of our stream: we send
//      COMMIT PREPARED, which waits there for the row; if we or the link are gone, the region's worker does it.
//
// What a crash leaves, by the last step that was reached:
//   before 3   our part is rolled back; we send ROLLBACK PREPARED if we can. A part that is left asks us, and
//              we rule the decision out for good by inserting the token as "never", before we answer that. The
//              insert waits while our transaction may still commit, and makes its own insert fail afterwards.
//   after 3    the row is in our WAL. A region that applies it commits, with or without us.
//   we are lost  every survivor has our stream up to the same position. With the row in it are our own part
//              and all parts; without it neither.
//
// Why never by a direct message: a region that had committed on our word while the row was not yet sent would
// keep its part of a transaction whose other part is lost with us (PROTOCOL 2i; model/twopc_model.py).
//
// Races: (a) worker of a participant against our own step 4: one finds the part gone. (b) "never" against 2:
// the primary key of homing.outcome lets one of the two rows in. (c) our backend dies between 3 and 4: the
// part is overdue after a while, but the decision is there, so the worker does not even ask. (d) homes keep
// their locks through PREPARE, so none moves away under a part.
#pragma once

#include "core/ids.hpp"

#include <vector>

#include "write/region_session.hpp"

namespace homing::write {

// Steps 1 and 2, in XACT_EVENT_PRE_COMMIT. Throws the remote error, ConnectionLost; then the transaction
// aborts, and Rollback of the sessions undoes what was prepared.
void PrepareEverywhere(const std::vector<RegionSession *> &writers);

// Step 4, in XACT_EVENT_COMMIT: never fails. With homing.wait_second_phase, waits up to
// homing.outcome_timeout.
void FinishEverywhere() noexcept;

// The transaction has ended in another way.
void ForgetPrepared() noexcept;

// Raises 55000 when the region of the session cannot prepare transactions. A session that has not been heard
// of yet passes. Throws remote::Error.
void CheckCanPrepare(const RegionSession &session);

}  // namespace homing::write
