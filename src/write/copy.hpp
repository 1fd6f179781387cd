// COPY FROM into homed tables.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Lets core's COPY write the statement's homed table until `context` is reset, or raises. A plain server call.
void PrepareCopy(const CopyStmt *copy, MemoryContext context);

}  // namespace homing::write
