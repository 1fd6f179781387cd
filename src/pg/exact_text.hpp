// Values as text that loses nothing.
#pragma once

#include "pg/server.hpp"

namespace homing::pg {

// The output of a type's output function; floating-point numbers in their shortest exact form whatever
// extra_float_digits says. A plain server call.
char *ExactText(Oid output_function, Datum value);

}  // namespace homing::pg
