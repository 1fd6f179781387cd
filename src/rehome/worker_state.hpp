// What the worker needs of the server, as plain server calls without C++ objects.
#pragma once

#include <initializer_list>

#include "pg/boundary.hpp"

namespace homing::rehome {

struct RawPeer {
	int16 id;
	bool lost;
	bool votes;
	bool pending;  // about to be lost
	bool witness;
	char name[NAMEDATALEN];
};

// Allocated in the memory context of the round.
struct RawState {
	bool region = false;  // false: this database is none
	const char *cluster = nullptr;
	int16 here = 0;
	bool fenced = false;
	bool votes = false;
	bool witness = false;
	bool losses = false;   // one is to be finished, or declared
	bool missing = false;  // it lacks the end of a lost region's stream
	bool lost_streams = false;
	Oid administrator = InvalidOid;
	int64 epoch = 0;
	uint64 digest = 0;
	RawPeer *peers = nullptr;
	int peer_count = 0;
};

// Reads this region's own state; what it points to is allocated in `context`. Requires: a transaction.
void ReadState(RawState *state, MemoryContext context);

// Runs a query with text arguments, at most 4, by a plan that is made once; `sql` is a literal. Its rows are in
// SPI_tuptable. Requires: SPI, a snapshot.
void Query(const char *sql, std::initializer_list<const char *> arguments = {});

// Query, of one row and column; returns its text in `context`, nullptr for NULL. Requires: a transaction.
const char *Call(const char *sql, std::initializer_list<const char *> arguments,
                 MemoryContext context);

// Whether somebody has locked this database to drop, rename or copy it.
bool DatabaseIsWanted();

// Sleeps for at most `timeout` ms; handles interrupts and a changed configuration.
void Nap(long timeout);

}  // namespace homing::rehome
