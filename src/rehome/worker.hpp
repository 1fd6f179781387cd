// The process that keeps a region's cluster map current: entry point homing_worker_main, started by the
// launcher.
#pragma once

namespace homing::rehome {

// Serves this process's database until it holds no region any more or must be left. The transaction
// system is up.
void RunWorker();

}  // namespace homing::rehome
