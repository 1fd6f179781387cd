// CREATE and DROP INDEX CONCURRENTLY, which run outside of transactions: in one region after the other.
#pragma once

#include "pg/boundary.hpp"

namespace homing::write {

// Runs the statement in every other region. An error names the region; those before it have executed the statement. A
// plain server call.
void ExecuteConcurrently(const char *sql);

}  // namespace homing::write
