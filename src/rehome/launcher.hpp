// Keeps one worker running in every database of this server that is a region.
#pragma once

namespace homing::rehome {

// Registers the launcher process and its shared memory; from _PG_init.
void RegisterLauncher();

}  // namespace homing::rehome
