// Statements of the extension's own, run with the rights of its functions.
#pragma once

#include "pg/boundary.hpp"

namespace homing::write {

// Runs SQL with one argument $1 of type oid as a superuser. A plain server call.
void RunOwnSql(const char *sql, Oid argument);

}  // namespace homing::write
