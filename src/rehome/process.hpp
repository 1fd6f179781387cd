// Background processes of a region.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "postmaster/bgworker.h"
}

namespace homing::rehome {

// To be registered: a process in a database, shown as "pg_homing <role>", that nobody starts again. `entry` is an
// exported function of this library; its argument is the database.
BackgroundWorker ProcessIn(Oid database, const char *role, const char *entry);

}  // namespace homing::rehome
