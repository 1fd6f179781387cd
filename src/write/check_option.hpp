// WITH CHECK OPTION of a view, in a statement that another region executes.
//
// A view that is written through is gone from the statement that is sent, and text cannot say what its rows must
// fulfil. The check goes into RETURNING, which sees each row just after core would have checked it.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Lets RETURNING of the write check its rows. Changes the query; the number of its columns only if it has none.
void CheckRowsInReturning(Query *query);

}  // namespace homing::write
