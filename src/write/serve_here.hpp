// Writes of homed tables as a whole.
#pragma once

#include "write/homed_relation.hpp"

namespace homing::write {

// FindHomed; waits a while for a homed table that other regions do not have yet, then raises 55000. A plain server
// call.
bool FindReady(Oid relid, HomedRelation *found);

// Takes the lock that keeps every home here and lets statements write the table until `context` is reset.
// Raises when a home is elsewhere, as "cannot <what> homed table", or this region may not serve. A plain server
// call.
void ServeWholeTable(const HomedRelation *table, const char *what, const char *detail,
                     MemoryContext context);

}  // namespace homing::write
