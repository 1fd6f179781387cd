// Foreign keys that refer to a row which an UPDATE of its key moves to another home.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/primnodes.h"
#include "utils/rel.h"
}

namespace homing::write {

// Whether foreign keys refer to the table. A plain server call.
bool IsReferenced(Relation relation);

// For the RETURNING list of the DELETE that takes the row away: raises, at the home, what the UPDATE would
// have raised if other rows refer to it, before ON DELETE does anything to them. A plain server call.
Expr *CheckUnreferenced(Relation relation, int varno, Expr *new_key);

}  // namespace homing::write
