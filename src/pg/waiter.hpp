// How a backend waits for a socket: on its latch, so that cancel, timeouts and termination are honoured.
#pragma once

#include "remote/connection.hpp"

#include <map>

struct WaitEventSet;

namespace homing::pg {

// The user cancelled, or a timeout did, and nothing was raised yet.
struct CancelRequested {};

// What a cancel does to a waiting backend. Termination is raised in every case.
enum class OnCancel {
	kRaise,  // raised as ServerError
	kTell,   // Wait throws CancelRequested: the caller has to do something first
	kHold,   // nothing: it stays pending
};

class LatchWaiter : public remote::Waiter {
public:
	// Throws ServerError when the backend is interrupted.
	bool Wait(int socket, bool for_read, bool for_write, std::chrono::milliseconds timeout) override;

	bool WaitAgain(int socket, bool for_read, bool for_write,
	               std::chrono::milliseconds timeout) override;
	void Opened(int socket) override;
	void Closed(int socket) noexcept override;

	// Waits for any of several sockets, each ready for reading or else for writing, and marks those that are.
	// False: the timeout passed.
	struct Awaited {
		int socket;
		bool for_read;
		bool ready;
	};
	bool WaitAny(Awaited *awaited, int count, std::chrono::milliseconds timeout);

	// As Wait, for no socket.
	void Pause(std::chrono::milliseconds timeout);

protected:
	// Called during a wait when the latch was set and it was no interrupt.
	virtual void OnLatch() {}

	// Called every so often during a wait that a cancel may end; may throw ServerError.
	virtual void OnLongWait() {}

private:
	friend class CancelMode;

	bool WaitWith(WaitEventSet *set, int socket, int events, std::chrono::milliseconds timeout);

	// What is waited for together with the latch, by socket: made once, not for each wait.
	std::map<int, WaitEventSet *> sets_;
	OnCancel on_cancel_ = OnCancel::kRaise;
};

// Sets what a cancel does, for a while.
class CancelMode {
public:
	CancelMode(LatchWaiter &waiter, OnCancel mode) : waiter_(waiter), before_(waiter.on_cancel_)
	{
		waiter.on_cancel_ = mode;
	}
	~CancelMode() { waiter_.on_cancel_ = before_; }
	void Change(OnCancel mode) { waiter_.on_cancel_ = mode; }
	CancelMode(const CancelMode &) = delete;
	CancelMode &operator=(const CancelMode &) = delete;

private:
	LatchWaiter &waiter_;
	OnCancel before_;
};

}  // namespace homing::pg
