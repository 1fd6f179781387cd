// DDL on homed tables.
//
// Every region must make the same changes to a homed table, or replication between them stops. What a
// statement names is found in its parse tree, before it runs; what a cascade reaches is found when it is about
// to be dropped.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Callbacks; from _PG_init.
void RegisterDdl();

// Whether the statement kind can change a table at all.
bool IsDdl(Node *statement);

// Runs core's part of a DDL statement.
using RunStatement = void (*)(void *argument);

// Raises when the statement must not run here; else runs it. A plain server call.
void ExecuteDdl(Node *statement, RunStatement run, void *argument);

}  // namespace homing::write
