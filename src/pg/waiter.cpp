#include "pg/waiter.hpp"

#include <algorithm>

#include "pg/boundary.hpp"
#include "pg/compat.hpp"

extern "C" {
#include "storage/latch.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

namespace {

using Clock = std::chrono::steady_clock;
constexpr long kLongWait = 200;  // ms

constexpr int kSocketEvent = 0;  // its place in a set

WaitEventSet *MakeSet(int socket)
{
	WaitEventSet *set = CreateLastingWaitEventSet(3);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, socket, nullptr, nullptr);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
	return set;
}

int WaitForSet(WaitEventSet *set, int events, long milliseconds)
{
	ModifyWaitEvent(set, kSocketEvent, events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE), nullptr);
	WaitEvent event;
	if (WaitEventSetWait(set, milliseconds, &event, 1, PG_WAIT_EXTENSION) == 0)
		return WL_TIMEOUT;
	return static_cast<int>(event.events);
}

int Events(bool for_read, bool for_write)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT;
	if (for_read)
		events |= WL_SOCKET_READABLE;
	if (for_write)
		events |= WL_SOCKET_WRITEABLE;
	return events;
}

// Waits once. What is pending is handled, a cancel only if it is to be raised.
int WaitOnce(WaitEventSet *set, int events, int socket, long milliseconds, bool raise_cancel)
{
	int happened;
	if (set != nullptr)
		happened = WaitForSet(set, events, milliseconds);
	else if (socket >= 0)
		happened = WaitLatchOrSocket(MyLatch, events, socket, milliseconds, PG_WAIT_EXTENSION);
	else
		happened = WaitLatch(MyLatch, events, milliseconds, PG_WAIT_EXTENSION);
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

// Waits once. False: nothing but time has passed.
bool WaitOnceForAny(LatchWaiter::Awaited *awaited, int count, long milliseconds)
{
	WaitEventSet *set = CreateLastingWaitEventSet(count + 2);
	for (int i = 0; i < count; ++i)
		AddWaitEventToSet(set, awaited[i].for_read ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE,
		                  awaited[i].socket, nullptr, &awaited[i]);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
	auto *events = static_cast<WaitEvent *>(palloc(sizeof(WaitEvent) * (count + 2)));
	const int happened = WaitEventSetWait(set, milliseconds, events, count + 2, PG_WAIT_EXTENSION);
	FreeWaitEventSet(set);
	bool interrupted = false;
	for (int i = 0; i < happened; ++i) {
		if (events[i].user_data != nullptr)
			static_cast<LatchWaiter::Awaited *>(events[i].user_data)->ready = true;
		else
			interrupted = true;
	}
	pfree(events);
	if (interrupted) {
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return happened > 0;
}

}  // namespace

bool LatchWaiter::WaitAny(Awaited *awaited, int count, std::chrono::milliseconds timeout)
{
	const auto deadline = Clock::now() + timeout;
	for (;;) {
		const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
		if (left.count() <= 0)
			return false;
		(void) PgCall(
			[&] { return WaitOnceForAny(awaited, count, static_cast<long>(left.count())); });
		if (std::any_of(awaited, awaited + count, [](const Awaited &one) { return one.ready; }))
			return true;
	}
}

void LatchWaiter::Opened(int socket)
{
	Closed(socket);
	sets_[socket] = PgCall([&] { return MakeSet(socket); });
}

void LatchWaiter::Closed(int socket) noexcept
{
	const auto known = sets_.find(socket);
	if (known == sets_.end())
		return;
	FreeWaitEventSet(known->second);
	sets_.erase(known);
}

bool LatchWaiter::Wait(int socket, bool for_read, bool for_write, std::chrono::milliseconds timeout)
{
	return WaitWith(nullptr, socket, Events(for_read, for_write), timeout);
}

bool LatchWaiter::WaitAgain(int socket, bool for_read, bool for_write,
                            std::chrono::milliseconds timeout)
{
	const auto known = sets_.find(socket);
	return WaitWith(known != sets_.end() ? known->second : nullptr, socket,
	                Events(for_read, for_write), timeout);
}

bool LatchWaiter::WaitWith(WaitEventSet *set, int socket, int events,
                           std::chrono::milliseconds timeout)
{
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
		const int happened =
			PgCall([&] { return WaitOnce(set, events, socket, left, raise_cancel); });
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
