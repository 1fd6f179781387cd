// Which tables this session may write now: what the guard trigger on every homed table asks (P2).
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/execnodes.h"
}

namespace homing::write {

// Name of the guard trigger.
constexpr const char *kGuardTrigger = "homing_guard";

// Lets statements write the table until `context` is reset or deleted, which also happens on error.
// A plain server call.
struct Approval {
	Oid relid;
	bool serving;  // what runs now is part of that write
	MemoryContext context;
	Approval *previous, *next;
	MemoryContextCallback callback;
};
Approval *ApproveWrites(Oid relid, MemoryContext context);

// Whether a write of any table is approved now; whether one is being served.
bool AnyWriteApproved();
bool AnyWriteServing();

// The next row of a plan by which this region serves an approved write; `next` gives it. A plain server call.
TupleTableSlot *ServeRow(PlanState *plan, ExecProcNodeMtd next);

}  // namespace homing::write
