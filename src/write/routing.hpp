// From keys to a decision: where the statement runs. Takes the locks on the homes it serves.
#pragma once

#include "core/router.hpp"

#include "pg/catalog.hpp"
#include "write/written_keys.hpp"

namespace homing::write {

// What one of several regions does of a statement.
struct RegionPart {
	core::RegionId region;
	char *name;
	int32 *homes;  // the homes it owns of those that the statement concerns
	int home_count;
	int *rows;  // Sharing::kValues: numbers of its rows, ascending
	int row_count;
};

// Lives in the memory context that is current at the call.
struct Decision {
	bool serve;             // all of it here
	core::RegionId region;  // where it runs, unless shared out
	RegionPart *parts;      // shared out: this region's part, if it has one, is first
	int part_count;         // 0: not shared out
	Sharing sharing;        // how it is, then
	bool claimable;         // it runs elsewhere, and writes a key that anybody may claim meanwhile
	bool outdated;  // what it serves came here after the statement's snapshot: it needs a new one
	pg::CatalogVersion seen;  // what it was decided from
};

// Raises the refusal: 25006 fenced, 0A000 several homes, 40001 moved, 08001 no owner, 55000 the table is
// not ready. With `lock`, a decision to serve holds the locks that keep it true. Throws ServerError and
// remote::Error.
//
// A table that other regions do not have yet, or will have in a moment, is waited for up to
// kSettlingTime.
Decision Decide(const WrittenKeys &keys, bool lock);

// The shortest way to the commonest decision, in two steps: one key, its home here and never elsewhere; then its lock.
struct HomeHere {
	const pg::Catalog *catalog;
	core::KeyspaceId keyspace;
	core::HomeId home;
	pg::CatalogVersion seen;
};

// `homed`: the table itself, or the one that it is a partition of. False: nothing is known.
bool FindHomeHere(Oid homed, uint64 key_hash, HomeHere *here) noexcept;

// A plain server call. With the lock that keeps the home here; false: nothing is decided.
bool LockHomeHere(const HomeHere &here);
Decision DecisionToServe(const HomeHere &here);

// Waits until no home of the keyspace is on its way to this region, for those who do not know which homes they
// will serve. 40001 after homing.handover_timeout.
void AwaitArrivals(core::KeyspaceId keyspace);

// For a statement that will claim keys it does not know yet: waits for what this session has claimed before.
void PrepareManyClaims();

// How long a change of ownership may take to reach every region before a write that needs it fails, in ms.
constexpr long kSettlingTime = 15000;

// A region that was forwarded a write of a home it does not own answers with this SQLSTATE; nobody but
// the forwarding region sees it.
constexpr const char *kNotHomeState = "HM001";

}  // namespace homing::write
