// Values of a key column as canonical bytes: one byte string for each class of values that the type
// calls equal.
#pragma once

#include "pg/boundary.hpp"

namespace homing::pg {

constexpr Size kMaxKeySize = 1024;  // bytes

struct KeyBytes {
	const uint8 *data;
	Size size;
};

// The supported key types, for error hints.
extern const char *const kKeyTypes;

// Whether `type` (a base type) with `collation` can be a key.
bool IsKeyType(Oid type, Oid collation);

// Whether values of `type` compared with a key of `key_type` are equal exactly when their bytes are.
bool SharesKeyBytes(Oid key_type, Oid type);

// Canonical bytes of a value; they live in `buffer` or in the current memory context. Raises 54000 for a
// key over kMaxKeySize. A plain server call.
KeyBytes CanonicalKey(Datum value, Oid type, uint8 buffer[8]);

// Their hash. A plain server call.
uint64 HashOfKey(Datum value, Oid type);

}  // namespace homing::pg
