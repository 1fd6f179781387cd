// What a region answered when it did not answer well.
#pragma once

#ifdef POSTGRES_H
#error "remote knows nothing of the server: include remote headers before pg/server.hpp"
#endif

#include <libpq-fe.h>

#include <stdexcept>
#include <string>

namespace homing::remote {

// An error report with the identity the remote server gave it (P3). Text fields are empty when the
// server sent none.
class Error : public std::runtime_error {
public:
	Error(std::string sqlstate, const std::string &message)
		: std::runtime_error(message), sqlstate(std::move(sqlstate))
	{
	}

	// From an error or notice result. A result without SQLSTATE is libpq's own: 08006.
	static Error FromResult(const PGresult *result);

	std::string severity = "ERROR";  // not localised
	std::string sqlstate;            // five characters
	std::string detail, hint, context;
	std::string schema, table, column, datatype, constraint;
};

// The connection is gone; nothing is known of what was sent and not answered.
class ConnectionLost : public Error {
public:
	explicit ConnectionLost(const std::string &message) : Error("08006", message) {}
};

// No connection could be made: nothing was sent.
class CannotConnect : public Error {
public:
	explicit CannotConnect(const std::string &message) : Error("08001", message) {}
};

}  // namespace homing::remote
