// A change of homed tables at all regions: DDL and TRUNCATE.
//
// Every region runs the statement itself, in one transaction that commits everywhere or nowhere
// (atomic_commit.hpp). What must not happen is that a row written before the change at one region arrives after
// the change at another: it may not fit any more, and then the stream stops, or it outlives a TRUNCATE. The steps:
//
//   1  In the order of region ids, each region locks out changes of the cluster and locks all its homes, of every
//      keyspace, as for a move. So all writers have committed, and no new one starts. Apply workers take no such
//      lock: they go on.
//   2  Each region flushes and waits until all others have applied its stream up to there. Now every region has every
//      row that was ever written, and nothing is on its way.
//   3  When all have answered, each region locks the tables, and runs the statement: first all others at the same time, then this one.
//   4  All parts are prepared, the decision is ours, and a region commits its part when it has applied the decision
//      out of our stream.
//
// Why a row of the new shape waits for the table: a region lets writers in when its part is committed. Its rows then
// reach a region whose part is not, and that one's apply worker waits for the table lock of step 3. The part waits
// for our decision, which comes with our stream, never with the stream that waits. Our own rows come after the
// decision in our stream: when they are applied, so is the decision, and the part commits without the apply worker.
// That is also why a transaction cannot both change homed tables and write any: a row of ours before the decision
// would wait, at the other region, for the lock of the part that waits for the decision behind it. So both orders
// are refused.
//
// Why all keyspaces: a statement locks more tables than it names (foreign keys). A row on its way to one of them
// would wait for the part in the same way.
//
// Locks are taken in the order of ids, so two changes do not wait for each other. Against writers of several regions,
// who take homes in any order, step 1 gives up after lock_timeout, 10 s if there is none.
//
// A statement that writes has locked its table before it asks for its home, so it may wait for a home that we hold, here
// or at another region, while we wait for its table: a circle, which the writer finds and breaks (home_lock.cpp). It
// fails with 40P01, as it does when it meets a change of the table in the wrong order on one server. Step 3 gives up
// after lock_timeout, too.
//
// A lost region is passed over. One that cannot be reached makes the statement fail (08001) before anything is
// changed; so does a crash until all parts are prepared.
#pragma once

#include "core/ids.hpp"

#include <string>
#include <vector>

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/pg_list.h"
}

namespace homing::write {

// Does steps 1 to 3, at all other regions; when it returns, it is our turn to execute the statement. `relids` are
// the homed tables that it changes. Raises the error of a region, with its name. A plain server call.
void ExecuteElsewhere(const char *sql, List *relids, bool truncating);

// Runs a statement that changes no homed table in the transactions of all other regions that follow ours. A plain
// server call.
void FollowElsewhere(const char *sql);

// The living regions but this one, by id. Throws ServerError.
std::vector<core::RegionId> OtherRegions();

// Whether the transaction has changed homed tables: then it cannot write any.
bool HasChangedTables();

// Raises 0A000 when it has. A plain server call.
void CheckMayWriteRows();

// The part of a source text that one statement is.
char *StatementText(const char *source, int location, int length);

}  // namespace homing::write
