#include "write/idle_sessions.hpp"

#include <csignal>

#include "pg/settings.hpp"

#include "pg/server.hpp"

extern "C" {
#include "storage/latch.h"
#include "storage/sinval.h"
#include "utils/timeout.h"
}

namespace homing::write {

namespace {

volatile sig_atomic_t rang = 0;
TimeoutId timer = MAX_TIMEOUTS;

void OnTimer()
{
	rang = 1;
	catchupInterruptPending = 1;
	SetLatch(MyLatch);
}

std::chrono::milliseconds Patience()
{
	return std::chrono::milliseconds(pg::settings.connection_idle_timeout_ms);
}

}  // namespace

bool HasIdled(std::chrono::steady_clock::time_point last_use) noexcept
{
	return rang != 0 && Patience().count() > 0 &&
	       std::chrono::steady_clock::now() - last_use >= Patience();
}

void WatchIdle(bool any)
{
	rang = 0;
	if (!any || Patience().count() == 0)
		return;
	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, OnTimer);
	// An error switches it off; so it is set, or set again, at the next end.
	if (!get_timeout_active(timer))
		enable_timeout_after(timer, pg::settings.connection_idle_timeout_ms);
}

}  // namespace homing::write
