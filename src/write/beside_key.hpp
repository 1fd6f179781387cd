// Whether a query reads, beside the rows of one table, only rows with the same key: those have the same home.
#pragma once

#include "pg/catalog.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Every row of a homed table that decides what becomes of a row of `anchor`, one of the query's homed tables, has the
// key of that row: by joins, by conditions of subqueries on it, or because both are compared with the same value.
// So whoever executes it at the home of what it does there needs no row of another home. A plain server call.
bool ReadsBesideKey(Query *query, int anchor);

}  // namespace homing::write
