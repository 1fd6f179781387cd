// Executes a statement in this region inside another one, as a part of it.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

// Plans and runs the analysed and rewritten query with PostgreSQL's own plan: its home has been decided.
// Rows go to `receiver`. Returns the number of rows processed. A plain server call.
uint64 ExecuteHere(Query *query, EState *outer, ParamListInfo params, DestReceiver *receiver);

// The same, but through the planner hook: the query finds its own homes.
uint64 ExecuteByHome(Query *query, EState *outer, ParamListInfo params, DestReceiver *receiver);

// The same for a query of one level that writes: its RETURNING rows go to `rows`, which may be nullptr.
uint64 WriteHere(Query *query, EState *outer, ParamListInfo params, Tuplestorestate *rows);

// Whether what runs now is part of a write that is served here: of its expressions or triggers. What they
// read is read here, as on one server. A plain server call.
bool InsideServedWrite();

// True while ExecuteHere plans: the planner hook stands aside.
bool PlansPartHere();

// Calls the body so that what it plans is executed in this region as it is. Returns its error, or nullptr.
ErrorData *CallUnrouted(void (*body)(void *), void *argument);

}  // namespace homing::write
