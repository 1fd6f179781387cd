// A statement of several regions, taken apart into one statement a region.
#pragma once

#include "write/key_finder.hpp"
#include "write/routing.hpp"

namespace homing::write {

// INSERT … VALUES with the part's rows only. A plain server call.
Query *WithRows(Query *query, const RegionPart *part);

// UPDATE or DELETE of the rows whose keys live in the part's homes. A plain server call.
Query *WithHomes(Query *query, const RegionPart *part, const WrittenTarget *target);

}  // namespace homing::write
