// Closes sessions at other regions that nothing has used for homing.connection_idle_timeout.
//
// A backend that waits for its client runs no code of ours. So a timer rings there, and makes the backend run an
// empty transaction by way of a catch-up interrupt, at whose end sessions are looked at.
#pragma once

#include <chrono>

namespace homing::write {

// Between two transactions: whether the timer has rung, and the session has been idle for too long.
bool HasIdled(std::chrono::steady_clock::time_point last_use) noexcept;

// At the end of a transaction, when all sessions have been looked at: sets the timer if there are any.
void WatchIdle(bool any);

}  // namespace homing::write
