#include "pg/waiter.hpp"

#include <algorithm>

#include "pg/boundary.hpp"

extern "C" {
#include "storage/latch.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

namespace {

using Clock = std::chrono::steady_clock;
constexpr long kLongWait = 200;  // ms

// Waits once. What is pending is handled, a cancel only if it is to be raised.
int WaitOnce(int events, int socket, long milliseconds, bool raise_cancel)
{
	const int happened =
		socket >= 0 ? WaitLatchOrSocket(MyLatch, events, socket, milliseconds, PG_WAIT_EXTENSION)
					: WaitLatch(MyLatch, events, milliseconds, PG_WAIT_EXTENSION);
	if ((happened & WL_LATCH_SET) != 0) {
		ResetLatch(MyLatch);
		if (!raise_cancel)
			HOLD_CANCEL_INTERRUPTS();
		CHECK_FOR_INTERRUPTS();
		if (!raise_cancel)
			RESUME_CANCEL_INTERRUPTS();
	}
	return happened;
}

}  // namespace

bool LatchWaiter::Wait(int socket, bool for_read, bool for_write, std::chrono::milliseconds timeout)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	if (for_read)
		events |= WL_SOCKET_READABLE;
	if (for_write)
		events |= WL_SOCKET_WRITEABLE;
	events |= WL_TIMEOUT;
	const auto deadline = Clock::now() + timeout;

	// A set latch is no answer about the socket: handle the interrupt, wait on.
	for (;;) {
		if (on_cancel_ == OnCancel::kTell && QueryCancelPending)
			throw CancelRequested();
		long left = kLongWait;
		bool ends = false;
		if (timeout.count() >= 0) {
			const auto exact = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
			ends = exact.count() <= kLongWait;
			if (ends)
				left = static_cast<long>(std::max<std::chrono::milliseconds::rep>(exact.count(), 0));
		}
		const bool raise_cancel = on_cancel_ == OnCancel::kRaise;
		const int happened = PgCall([&] { return WaitOnce(events, socket, left, raise_cancel); });
		if ((happened & WL_LATCH_SET) != 0)
			OnLatch();
		if ((happened & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
			return true;
		if ((happened & WL_TIMEOUT) != 0) {
			if (ends)
				return false;
			if (raise_cancel)
				OnLongWait();
		}
	}
}

void LatchWaiter::Pause(std::chrono::milliseconds timeout)
{
	(void) Wait(-1, false, false, timeout);
}

}  // namespace homing::pg
