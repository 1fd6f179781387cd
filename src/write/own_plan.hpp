// Serves the commonest write by PostgreSQL's own plan alone (P10).
//
// A plan is made without knowing where the key has its home, and may be cached; so "Homed Modify" is on top of
// it. When execution starts, and the key is a constant or parameter whose home is here, there is nothing to
// do for the node and the guard: the plan below is executed in its place.
#pragma once

namespace homing::write {

// Hook; from _PG_init.
void RegisterOwnPlan();

}  // namespace homing::write
