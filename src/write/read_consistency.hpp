// Lets a session see what it has committed at other regions (P6).
//
// homing.read_consistency = session: before a statement reads a homed table here, it waits until the streams
// of the regions where the session has committed have been applied up to there, for homing.read_timeout, and
// then takes a new snapshot. What the session was told of with homing.wait_for counts too. A transaction
// that keeps one snapshot waits before it takes it.
#pragma once

#include "core/causal.hpp"

#include <chrono>

#include "pg/boundary.hpp"
#include "write/routing.hpp"

extern "C" {
#include "nodes/params.h"
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Hooks; from _PG_init.
void RegisterReadConsistency();

// The session has committed at the region. With a default isolation level that keeps one snapshot, waits at
// once, as the next transaction's snapshot would be taken before we are called. Throws ServerError.
void NeedCommit(core::RegionId region, std::uint64_t position);

// Waits until what the session has committed at other regions has been applied here, for homing.read_timeout.
// False: there is nothing to wait for, or it is too late. Throws ServerError.
bool AwaitOwnCommits();

// Waits until what `state` stands for has been applied here. False: it has not in time; later reads wait for it too.
// Throws ServerError.
bool AwaitTold(const core::CausalState &state, std::chrono::milliseconds patience);

// Whether a part, by the token that it keeps, has been applied here, or is so old that it must have.
bool PartHasArrived(const core::OutcomeToken &part);

// The subscription that brings what the region writes; InvalidOid: there is none.
Oid StreamFrom(core::RegionId region);

// The transaction that is being committed has a part there; if it fails, the parts are forgotten again.
void NeedPart(core::RegionId region, const core::OutcomeToken &part);
void ForgetPart(core::RegionId region, const core::OutcomeToken &part) noexcept;

// A write also reads the tables that it joins or that its subqueries name. When the transaction has written
// at other regions than where these are read, it would miss its own rows: raises 0A000, unless conditions
// prove that what it reads has its home there. A plain server call.
void CheckSeesOwnWrites(Query *query, ParamListInfo params, const Decision *decision);

}  // namespace homing::write
