// What handing over a home needs of the server: locks, the barrier, waking the worker (parts/ownership.sql).
#pragma once

namespace homing::rehome {

// Transaction callback; from _PG_init.
void RegisterHandover();

}  // namespace homing::rehome
