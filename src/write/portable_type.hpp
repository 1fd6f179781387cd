// Types whose values another database understands: plain server calls.
#pragma once

#include "pg/boundary.hpp"

namespace homing::write {

// A type whose number is the same in every database of this major version, and so is what its values mean.
bool IsPortableType(Oid type);

// A type whose binary form can be sent to any database that has a type of this name and shape.
bool IsPortableInBinary(Oid type);

// A type whose values hold, at any depth, numbers of objects: in binary form they mean something else, or nothing, in
// another database.
bool HoldsObjectNumbers(Oid type);

}  // namespace homing::write
