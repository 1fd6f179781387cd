// Parameters added to those of a statement.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "nodes/params.h"
#include "nodes/parsenodes.h"
}

namespace homing::write {

// The highest number that the query uses or the list has; 0: none. A plain server call.
int HighestParam(Query *query, ParamListInfo list);

// The list with `values` (of ParamExternData *) as the parameters from `first` on. The original list may
// be nullptr; it is referred to, not copied. Lives in the current memory context. Plain.
ParamListInfo AppendParams(ParamListInfo original, List *values, int first);

}  // namespace homing::write
