// The extension's own tables, cached in the backend.
//
// The cache is valid while a shared generation counter stands still. Whoever changes one of the tables
// raises the counter after its commit is visible and before its locks are released (a transaction
// callback), so a writer that takes a home's lock after the change and then looks at the counter sees it.
// The tables are read with a snapshot taken after the counter, never with the transaction's own.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/home_map.hpp"
#include "core/lease.hpp"

#include "pg/boundary.hpp"
#include "pg/coming_move.hpp"

extern "C" {
#include "access/attnum.h"
}

namespace homing::pg {

struct HomedTable {
	Oid relid = InvalidOid;
	core::KeyspaceId keyspace;
	AttrNumber key_attnum = 0;
	Oid key_type = InvalidOid;  // base type when the column is of a domain
	bool active = false;        // false: closing, or home_table has not reached every region yet
	bool closing = false;       // unhome_table is at work
	// Of the keyspace: HomeMap::UnmovedHere. Nothing either while a move of its homes is announced.
	const std::vector<bool> *unmoved_here = nullptr;
};

struct Catalog {
	core::HomeMap map;
	std::string cluster;  // its id
	std::string fenced;   // why this region must not serve; empty: it may
	core::Electorate electorate;
	std::unordered_map<Oid, HomedTable> tables;
	std::vector<ComingMove> coming_moves;
	std::vector<core::RegionId> missing = {};  // lost regions the end of whose streams is not here
	bool only_lacks = false;                   // fenced, but for no other reason than `missing`
	mutable const HomedTable *met_last = nullptr;

	// The homed table that a relation is, or is a partition of, at any depth; nullptr: not homed.
	const HomedTable *Find(Oid relid) const;
	// The homed table that has this id; nullptr: there is none. Cheap: most statements meet the one that was met last.
	const HomedTable *FindExactly(Oid relid) const
	{
		if (met_last == nullptr || met_last->relid != relid) {
			auto found = tables.find(relid);
			if (found == tables.end())
				return nullptr;
			met_last = &found->second;
		}
		return met_last;
	}
	const std::string &RegionName(core::RegionId id) const;
	// Whether all that survives of the region, which is lost, is here.
	bool HasEndOf(core::RegionId lost) const
	{
		return std::find(missing.begin(), missing.end(), lost) == missing.end();
	}
};

// Shared memory and callbacks; from _PG_init.
void RegisterCatalog();

// The current catalog; nullptr when this database is no region. Valid until the next call.
// Throws ServerError.
const Catalog *CurrentCatalog();

// The one that was current at the last call; nullptr: there was none. Never reads anything.
const Catalog *LastCatalog();

// False when the library was not loaded at server start.
bool CatalogIsShared();

// True when nothing changed since `CurrentCatalog` was last called. Cheap; no server calls.
bool CatalogIsCurrent();

// What a session has seen of the cluster.
struct CatalogVersion {
	uint64 catalog;
	uint64 assignments;
	friend bool operator==(CatalogVersion a, CatalogVersion b)
	{
		return a.catalog == b.catalog && a.assignments == b.assignments;
	}
};
CatalogVersion CurrentVersion();

// Sleeps until anything has changed since `seen`, at most `timeout` ms. False: nothing has. A plain server
// call, interruptible.
bool AwaitChange(CatalogVersion seen, long timeout);

// While it is set, what is inserted into homing.assignment are claims of keys that had no assignment: the
// transaction may be prepared. Returns what was set before.
bool SetClaiming(bool now);

// Lets those look again who wait in AwaitChange. Never fails.
void WakeWaiters() noexcept;

// Rises with every committed change of an assignment.
uint64 AssignmentGeneration();

// A table of the extension; InvalidOid: there is none. A plain server call.
Oid HomingRelation(const char *name);

// The server that stands for a region; raises when it was dropped. A plain server call.
Oid RegionServer(const char *region_name);

}  // namespace homing::pg
