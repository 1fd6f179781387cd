// Executes statements at other regions.
#pragma once

#include "core/ids.hpp"
#include "write/region_session.hpp"
#include "write/remote_text.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

// A statement ready to be sent to any region. Lives in the memory context of its making.
struct Outgoing {
	char *sql;
	int param_count;
	char **values;  // nullptr: NULL
	Oid *types;     // InvalidOid: the text says it
	bool reads;     // as in RemoteText
};

// The text with its parameters' values. Plain.
Outgoing Prepare(const RemoteText &text, ParamListInfo params);

RemoteStatement ToRemote(const Outgoing &outgoing);

// Whether the statement is all that the transaction does: the client sent it by itself, outside a block.
bool IsWholeTransaction(const EState *estate);

// The answer to the last Post at the region; a home that is not there is 40001.
remote::Result Answer(core::RegionId region, const char *verb = "write");
remote::Error HomeMoved(const char *verb = "write");

// Takes in an answer: adds the row count to estate->es_processed, appends RETURNING rows to `rows`.
// Throws ServerError.
void TakeAnswer(const remote::Result &result, EState *estate, TupleDesc returning,
                Tuplestorestate *rows);

// Runs the whole statement at one region. Raises the remote error as it is. False: the home is not there
// (any more), nothing was done, and it is safe to look again where it is.
bool ForwardWhole(const RemoteText &text, core::RegionId region, bool claimable, EState *estate,
                  TupleDesc returning, Tuplestorestate *rows);

// The text that a home would be sent, for EXPLAIN. A plain server call.
const char *RemoteSql(Query *query);

}  // namespace homing::write
