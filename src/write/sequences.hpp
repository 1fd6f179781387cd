// Keeps the sequences of homed tables on this region's values (parts/sequences.sql) when users set them.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// A function is about to be executed: setval may leave a sequence at another region's value, which is put right
// before the transaction commits.
void NoteFunction(Oid function);

// After ALTER SEQUENCE. A plain server call.
void FollowAlteredSequence();

}  // namespace homing::write
