// COPY FROM into homed tables.
//
// Where all homes are here, core's COPY runs as it is. Else each row is routed by its key, unparsed but for that:
//
//   1. core's parser reads a row from the user's source (copy_rows);
//   2. its key gives the home, the home its region;
//   3. another region's row goes into that region's COPY … FROM STDIN, numbered (copy_streams);
//   4. a row of this region goes to a COPY of core's own into the table, which asks for its data here, so that it
//      keeps its multi-insert. Core pulls: the search for the next row of this region feeds the others.
//
// The keyspace is locked before its owners are looked up, so no home leaves this region meanwhile. A region that
// does not own the home of a row it is sent refuses it, and the whole COPY fails.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
}

namespace homing::write {

// Executes a COPY FROM into a homed table whose rows may have their homes at several regions; stores the number of
// rows. False: core shall execute the statement, and may write the table until `context` is reset. Raises core's
// errors, and those of other regions. A plain server call.
bool ExecuteCopy(ParseState *pstate, const CopyStmt *copy, MemoryContext context, uint64 *processed);

}  // namespace homing::write
