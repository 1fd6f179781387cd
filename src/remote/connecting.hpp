// A connection that is being made. It never waits: several can be on their way at once.
#pragma once

#include "remote/error.hpp"

#include <string>
#include <utility>
#include <vector>

namespace homing::remote {

// libpq keywords and values, in the order given to PQconnectStartParams.
using ConnectionOptions = std::vector<std::pair<std::string, std::string>>;

class Waiter;

class Connecting {
public:
	// Throws CannotConnect.
	explicit Connecting(const ConnectionOptions &options);
	~Connecting();
	Connecting(Connecting &&other) noexcept;
	Connecting(const Connecting &) = delete;
	Connecting &operator=(const Connecting &) = delete;

	// Until it is done: what to wait for. The socket may be another one after each step.
	bool Done() const { return status_ == PGRES_POLLING_OK; }
	int Socket() const { return PQsocket(conn_); }
	bool ForRead() const { return status_ == PGRES_POLLING_READING; }
	// Requires: the socket is ready for it. Throws CannotConnect.
	void Step();
	// Steps as long as the socket is ready, and never waits. Returns Done(). Throws CannotConnect.
	bool Advance(Waiter &waiter);

	// The connection, when it is done: the caller's from now on.
	PGconn *Release() { return std::exchange(conn_, nullptr); }

private:
	void Check() const;

	PGconn *conn_;
	PostgresPollingStatusType status_ = PGRES_POLLING_WRITING;
};

}  // namespace homing::remote
