// Executes a whole statement at its home region.
#pragma once

#include "core/ids.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

struct ForwardedWrite {
	Query *query;
	core::RegionId region;
	EState *estate;
	TupleDesc returning;  // no columns: no RETURNING
};

// Sends the statement with its parameters, adds the number of rows to estate->es_processed. Returns the
// RETURNING rows; nullptr when there are none. Raises the remote error as it is.
Tuplestorestate *ExecuteForwarded(const ForwardedWrite &write);

// The text that a home would be sent, for EXPLAIN. A plain server call.
const char *RemoteSql(Query *query);

}  // namespace homing::write
