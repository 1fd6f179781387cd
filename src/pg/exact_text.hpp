// Values as text that loses nothing.
#pragma once

#include "pg/server.hpp"

namespace homing::pg {

// The output of a type's output function in the form that every session reads in the same way, whatever
// the display settings: shortest exact floating-point numbers, ISO dates and intervals. A plain server call.
char *ExactText(Oid output_function, Datum value);

// The same for any function that prints values.
char *WithExactText(char *(*print)(void *), void *argument);

}  // namespace homing::pg
