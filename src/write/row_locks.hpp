// FOR UPDATE and the like, anywhere in a query: the rows are locked at their home.
#pragma once

#include "write/key_finder.hpp"

namespace homing::write {

// Whether the query asks for row locks, at any level. Cheap for queries that do not. A plain server call.
bool LocksRows(Query *query);

// Adds a target for every homed table whose rows the query locks. A plain server call.
void AnalyseRowLocks(Query *query, WriteAnalysis *analysis);

}  // namespace homing::write
