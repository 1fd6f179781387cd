// Puts "Homed Modify" above every plan that writes a homed table.
#pragma once

namespace homing::write {

// From _PG_init.
void RegisterPlanner();

}  // namespace homing::write
