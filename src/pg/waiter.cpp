#include "pg/waiter.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "storage/latch.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

bool LatchWaiter::Wait(int socket, bool for_read, bool for_write, std::chrono::milliseconds timeout)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	if (for_read)
		events |= WL_SOCKET_READABLE;
	if (for_write)
		events |= WL_SOCKET_WRITEABLE;
	if (timeout.count() >= 0)
		events |= WL_TIMEOUT;
	const long milliseconds = static_cast<long>(timeout.count());

	// A set latch is no answer about the socket: handle the interrupt, wait on. The deadline then starts
	// anew, which only matters to callers that pass what is left of theirs.
	for (;;) {
		const int happened = PgCall([&] {
			int result = WaitLatchOrSocket(MyLatch, events, socket, milliseconds, PG_WAIT_EXTENSION);
			if ((result & WL_LATCH_SET) != 0) {
				ResetLatch(MyLatch);
				CHECK_FOR_INTERRUPTS();
			}
			return result;
		});
		if ((happened & WL_LATCH_SET) != 0)
			OnLatch();
		if ((happened & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
			return true;
		if ((happened & WL_TIMEOUT) != 0)
			return false;
	}
}

}  // namespace homing::pg
