// The plan node "Homed Modify" above the plan of a statement that writes homed tables.
//
// Its child is the plan that PostgreSQL would run without us. When it starts it evaluates the keys, asks
// core::router, and either runs the child (serve) or sends the statement to the home (forward).
#pragma once

#include "write/key_finder.hpp"
#include "write/written_keys.hpp"

extern "C" {
#include "nodes/plannodes.h"
}

namespace homing::write {

// From _PG_init.
void RegisterModifyNode();

// Puts the node on top of the plan. `query` is what a home is sent; it is kept. A plain server call.
void WrapPlan(PlannedStmt *statement, const WriteAnalysis *analysis, Query *query);

// Whether the plan has the node. A plain server call.
bool WritesByHome(const PlannedStmt *statement);

// What is in the node of such a plan: PostgreSQL's own plan, and the query.
Plan *PlanOfWrite(const PlannedStmt *statement);
Query *QueryOfWrite(const PlannedStmt *statement);

// nullptr: it does not have the node, or is not as simple as that; its own plan is a ModifyTable.
const PlainWrite *PlainWriteIn(const PlannedStmt *statement);

}  // namespace homing::write
