// TRUNCATE of homed tables.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Lets the statement's homed tables be truncated here until `context` is reset, or raises. A plain server call.
void PrepareTruncate(const TruncateStmt *truncate, MemoryContext context);

}  // namespace homing::write
