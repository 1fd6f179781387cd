// A statement as text for another region: every name qualified, parameters renumbered from 1.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "access/tupdesc.h"
#include "nodes/parsenodes.h"
}

namespace homing::write {

struct RemoteParam {
	int number;  // of the parameter in the statement here
	Oid type;
	bool typed;  // the remote server is told the type's number; else the text casts it by name
};

struct RemoteText {
	char *sql;
	int param_count;
	RemoteParam *params;  // $1 … at the other region
	bool reads;           // homed rows, besides those that it writes; set by who sends it
};

// Raises 0A000 when the statement holds something that only exists in this session: temporary tables,
// transition tables, a view's WITH CHECK OPTION. A plain server call.
RemoteText DeparseForRegion(Query *query);

// The same for a query that stays as it is, made once and kept in the cell, which lives in `context`: a list that
// can be copied with the plan that it belongs to, at first NIL. It is made anew when names in it may have changed.
RemoteText KeptText(Query *query, ListCell *kept, MemoryContext context);

// Watches for changes of names; from _PG_init.
void RegisterRemoteText();

// Whether INSERT's value for the column is the default that the rewriter filled in. Plain.
bool IsDefault(Query *insert, TargetEntry *entry);

}  // namespace homing::write
