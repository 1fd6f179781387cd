// How to connect to a region: the options of its SERVER and of the user's USER MAPPING.
#pragma once

#include "remote/connection.hpp"

#include <optional>
#include <vector>

#include "pg/boundary.hpp"
#include "pg/waiter.hpp"

namespace homing::pg {

// libpq options for `userid` at the region behind `serverid`, ours added (application_name, keepalives,
// client_encoding). A user without a mapping connects under its own name if it is a superuser, else the
// call raises 42704. A non-superuser needs a password in its mapping unless a superuser set
// password_required 'false' there (the rule of postgres_fdw).
remote::ConnectionOptions OptionsFor(Oid serverid, Oid userid);

// Closes the connection and gives the file descriptor back to the server's count.
struct CloseRegionConnection {
	void operator()(remote::Connection *connection) const noexcept;
};
using RegionConnection = std::unique_ptr<remote::Connection, CloseRegionConnection>;

// Opens a connection within homing.connect_timeout. Throws remote::CannotConnect.
RegionConnection Connect(const remote::ConnectionOptions &options, remote::Waiter &waiter);

// Opens several at once; all within homing.connect_timeout. In their order; without a connection, why not.
struct Attempt {
	RegionConnection connection;
	std::optional<remote::CannotConnect> failure;
};
std::vector<Attempt> ConnectAll(const std::vector<remote::ConnectionOptions> &options,
                                LatchWaiter &waiter);

// Connects to a region as `userid`; enforces that a required password was really used.
RegionConnection ConnectTo(Oid serverid, Oid userid, remote::Waiter &waiter);

// The same in two steps: the first one does not wait, and asks nothing that Begin would raise.
bool CanConnectTo(Oid serverid, Oid userid);
remote::Connecting BeginConnectingTo(Oid serverid, Oid userid);
RegionConnection FinishConnectingTo(Oid serverid, Oid userid, remote::Connecting begun,
                                    remote::Waiter &waiter);

}  // namespace homing::pg
