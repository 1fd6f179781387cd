// Named steps of a protocol at which a test lets the process die or stop (setting homing.debug_point).
#pragma once

namespace homing::pg {

// Kills this process with SIGKILL when the setting names this point; when it names it behind "stop:", stops the
// process until it gets SIGCONT, and says so in the log. May be called anywhere, also after the commit record.
void DebugPoint(const char *name) noexcept;

}  // namespace homing::pg
