// COPY FROM as a statement: the checks that core makes before it reads, and the text for another region. Plain
// server calls.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "utils/rel.h"
}

namespace homing::write {

// A COPY FROM that was checked: core's own error was raised if it must not run.
struct CopyTarget {
	Relation relation;  // locked as COPY does
	List *where;        // implicitly and-ed conditions, as core's COPY wants them; NIL: none
	Node *condition;    // the same, before it was simplified; nullptr: none
	List *attnums;      // of the columns
};

CopyTarget OpenCopyTarget(ParseState *pstate, const CopyStmt *copy);

// The option with which a region is told that the rows are numbered: see copy_rows.hpp.
constexpr const char *kNumberedRows = "homing_numbered_rows";
bool HasNumberedRows(const CopyStmt *copy);

// The statement's options for reading what the user sent.
List *SourceOptions(const CopyStmt *copy);
// The options for core's COPY of rows that we pass on: in our encoding, without a header.
List *RowOptions(const CopyStmt *copy);

// COPY … FROM STDIN of numbered rows for another region, of these columns (String *).
char *RemoteCopy(const CopyTarget *target, const CopyStmt *copy, List *columns);

}  // namespace homing::write
