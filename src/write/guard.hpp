// Which tables this session may write now: what the guard trigger on every homed table asks (P2).
#pragma once

#include "pg/boundary.hpp"

namespace homing::write {

// Name of the guard trigger.
constexpr const char *kGuardTrigger = "homing_guard";

// Lets statements write the table until `context` is reset or deleted, which also happens on error.
// A plain server call.
void ApproveWrites(Oid relid, MemoryContext context);

// Whether a write of any table is approved now.
bool AnyWriteApproved();

}  // namespace homing::write
