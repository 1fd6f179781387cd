// Transactions of our own processes, which are not to die of an error in one.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

#include "pg/boundary.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/memutils.h"
}

namespace homing::rehome {

// A transaction of ours, or an exchange, that failed.
class Failure : public std::runtime_error {
public:
	using std::runtime_error::runtime_error;
};

// Runs the body in a transaction of its own; the memory context is the same afterwards. Throws Failure.
template <typename Body>
void InTransaction(const Body &body)
{
	std::optional<std::string> failure;
	MemoryContext context = CurrentMemoryContext;
	try {
		pg::PgCall([] { StartTransactionCommand(); });
		body();
		pg::PgCall([] { CommitTransactionCommand(); });
	} catch (const pg::ServerError &error) {
		failure = error.what();  // a copy: the abort below frees the original
	} catch (const std::exception &error) {
		failure = error.what();
	}
	if (failure)
		pg::PgCall([] { AbortCurrentTransaction(); });
	MemoryContextSwitchTo(context);
	if (failure)
		throw Failure(*failure);
}

// Gives the process the settings it counts on: it has the server's defaults, which a database can change.
void SettleIn();

}  // namespace homing::rehome
