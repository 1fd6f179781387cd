// Reads at another region: "Homed Read" in place of a SELECT's plan.
//
// A transaction that has written at another region, and not yet committed, sees those rows only there. So a
// SELECT that reads homed tables then runs at that region, which has a complete copy. A plan is made without
// knowing that, and may be cached; it carries its query along, and is exchanged when execution starts.
#pragma once

#include "core/ids.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "executor/execdesc.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
}

namespace homing::write {

// From _PG_init.
void RegisterReadNode();

// Whether the query reads a homed table, at any depth. Throws ServerError.
bool ReadsHomedTables(Query *query);

// The same of tables that it neither writes nor locks. Throws ServerError.
bool ReadsOtherHomedTables(Query *query);

// Attaches the query to the plan that was made of it. Plain server calls.
void AttachQuery(PlannedStmt *statement, Query *query);
// nullptr: none is attached.
Query *AttachedQuery(const PlannedStmt *statement);

// The region of the homes of all rows that the query reads, when its conditions give all their keys. Raises
// 0A000 when they do not, or the regions differ; `purpose` says for what they should. `here`: it is this one.
//
// With `hold`, the homes are kept from moving away from here until the transaction ends; one on its way to here is
// waited for.
struct ReadPlace {
	bool here;
	core::RegionId region;
	bool outdated;  // what is here came after the statement's snapshot
};
ReadPlace PlaceOfRead(Query *query, ParamListInfo params, const char *purpose, bool hold);

// Raises 0A000: it cannot be told where to read homed tables, for this purpose and reason.
[[noreturn]] void RefusePlace(const char *purpose, const char *why);

// Lets the query run at the region instead of here. Raises 0A000 when it uses what only this region has.
void ReadAt(core::RegionId region, QueryDesc *query);

}  // namespace homing::write
