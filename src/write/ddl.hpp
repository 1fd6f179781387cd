// DDL on homed tables.
//
// Every region must make the same changes to a homed table, or replication between them stops. What a
// statement names is found in its parse tree, and the statement runs in every region (everywhere.hpp); what a
// cascade reaches is found when it is about to be dropped, and refused.
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

struct DdlStatement {
	Node *tree;
	char *text;
	bool top_level;  // not part of another statement
	bool alone;      // the client sent it by itself: it may run outside of transaction blocks
	RunStatement run;
	void *argument;
};

// Runs the statement here, and, when it changes homed tables, in every other region; or raises. A plain server call.
void ExecuteDdl(const DdlStatement *statement);

// Runs it with the right to drop whatever it reaches.
void RunPermitted(RunStatement run, void *argument);

// Raised for what can only be changed by a statement that names the table.
[[noreturn]] void RefuseDdl(const char *what, Oid relid);

}  // namespace homing::write
