// Utility statements on homed tables: COPY, TRUNCATE, DDL.
#pragma once

namespace homing::write {

// Hooks into ProcessUtility; from _PG_init.
void RegisterUtility();

}  // namespace homing::write
