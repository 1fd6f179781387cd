// What no DDL may do to a homed table, at any region and with any setting.
#pragma once

#include "write/homed_relation.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// The name of the guard trigger on homed tables.
constexpr const char *kGuardTrigger = "homing_guard";

// Raises 0A000 for changes of the key column and of the guard. A plain server call.
void CheckNeverAllowed(Node *statement, const HomedRelation *target);

}  // namespace homing::write
