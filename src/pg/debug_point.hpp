// Named steps of a protocol at which a test lets the process die (setting homing.debug_point).
#pragma once

namespace homing::pg {

// Kills this process with SIGKILL when the setting names this point. Does nothing else; may be called
// anywhere, also after the commit record.
void DebugPoint(const char *name) noexcept;

}  // namespace homing::pg
