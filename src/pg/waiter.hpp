// How a backend waits for a socket: on its latch, so that cancel, timeouts and termination are honoured.
#pragma once

#include "remote/connection.hpp"

namespace homing::pg {

class LatchWaiter : public remote::Waiter {
public:
	// Throws ServerError when the backend is interrupted.
	bool Wait(int socket, bool for_read, bool for_write, std::chrono::milliseconds timeout) override;

protected:
	// Called during a wait when the latch was set and it was no interrupt.
	virtual void OnLatch() {}
};

}  // namespace homing::pg
