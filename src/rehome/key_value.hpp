// Keys as arguments of the functions that name one.
#pragma once

#include "pg/key.hpp"

namespace homing::rehome {

// Canonical bytes of a function argument of type `type`, converted to `key_type` (a base type) as a literal
// would be: through its text. Raises what the type's input says of a value that does not fit. The bytes live
// in `buffer` or in the current memory context.
pg::KeyBytes KeyFromArgument(Datum argument, Oid type, Oid key_type, uint8 buffer[8]);

}  // namespace homing::rehome
