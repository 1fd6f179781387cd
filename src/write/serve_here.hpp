// Writes of a whole homed table that are served in this region.
#pragma once

#include "write/homed_relation.hpp"

namespace homing::write {

// Takes the lock that keeps every home here and lets statements write the table until `context` is reset.
// Raises when a home is elsewhere, as "cannot <what> homed table", or this region may not serve. A plain server
// call.
void ServeWholeTable(const HomedRelation *table, const char *what, const char *detail, MemoryContext context);

}  // namespace homing::write
