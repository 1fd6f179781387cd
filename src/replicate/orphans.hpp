// The other face of the output plugin: changes that only this region has, as text.
#pragma once

struct OutputPluginCallbacks;

namespace homing::replicate {

// Whether this session asks for them (homing.orphans_beyond).
bool WantsOrphans();
void InitOrphans(OutputPluginCallbacks *callbacks);

}  // namespace homing::replicate
