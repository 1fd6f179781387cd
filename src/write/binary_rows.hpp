// Rows of COPY's binary format, taken apart without converting their fields. Plain server calls.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "commands/copyfrom_internal.h"
#include "lib/stringinfo.h"
}

namespace homing::write {

struct BinaryField {
	int32 size;  // -1: NULL
	char *data;  // inside the row; the byte behind it exists
};

// Appends the next row to `row` as it is. With `numbered`, its first field is taken off and stored in `line`; else
// `line` is the number of the rows before it. `key_field`, if not negative, is found in it. With a negative one,
// the row's count of fields has room for one more, which the caller appends.
bool ReadBinaryRow(CopyFromState source, bool numbered, int key_field, StringInfo row, uint64 *line,
                   BinaryField *key);

void AppendBinaryField(StringInfo row, const bytea *value);

// What a stream of rows begins and ends with.
void AppendBinaryHeader(StringInfo out);
void AppendBinaryTrailer(StringInfo out);

}  // namespace homing::write
