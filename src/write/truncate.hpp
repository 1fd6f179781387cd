// TRUNCATE of homed tables.
//
// Where this region owns all homes of the tables, TRUNCATE is a write like others, and replicated. Else every region
// empties its own copy (everywhere.hpp), and what each of them does is not replicated: it would reach a region that
// has rows of the time after.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

struct TruncateStatement {
	const TruncateStmt *tree;
	const char *text;
	bool top_level;               // not part of another statement
	void (*run)(void *argument);  // core's part
	void *argument;
};

// Runs the statement; its writes are approved until `context` is reset. A plain server call.
void ExecuteTruncate(const TruncateStatement *statement, MemoryContext context);

}  // namespace homing::write
