// The rows that COPY FROM reads, each as its bytes and its key. Plain server calls, plain data.
//
// A row is parsed by core's own parser, and only its key is converted; its bytes are passed on as they are.
// A region that executes a forwarded COPY reads numbered rows: their first field is the number of the line
// before the row in the user's file, so that errors name the user's line.
#pragma once

#include "pg/boundary.hpp"
#include "pg/key.hpp"

extern "C" {
#include "commands/copy.h"
#include "commands/copyfrom_internal.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
}

namespace homing::write {

// How the rows of one table are read.
struct CopyRows {
	CopyFromState source;
	bool numbered;
	int key_field;  // its place among the columns; -1: not among them, the default is appended
	AttrNumber key_attnum;

	// conversion of the key
	FmgrInfo key_input;
	Oid key_io_param;
	int32 key_typmod;
	Oid key_type;            // base type
	ExprState *key_default;  // evaluated once for each row; nullptr: NULL
	FmgrInfo key_output;
	EState *estate;
	MemoryContext row_context;

	// the current row
	StringInfoData row;  // with its end of line
	uint64 line;         // number of the line before it
	bool key_is_null;
	uint8 key_buffer[8];
	pg::KeyBytes key;  // valid until the next row
};

// Requires: `rows->source`, `numbered` are set. `key_attnum` is the key's in the table that is read into.
void BeginRows(CopyRows *rows, AttrNumber key_attnum);

// False: no more rows. Raises as core does when the row cannot be parsed.
bool NextRow(CopyRows *rows);

void EndRows(CopyRows *rows);

}  // namespace homing::write
