// What no DDL may do to a homed table, at any region and with any setting.
#pragma once

#include "write/homed_relation.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Raises 0A000 for changes of the key column and of the guard. A plain server call.
void CheckNeverAllowed(Node *statement, const HomedRelation *target);

// Raises 0A000 for a new column that would have other values in every region. Requires: the tables (relids) are locked.
// A plain server call.
void CheckSameEverywhere(Node *statement, List *relids);

}  // namespace homing::write
