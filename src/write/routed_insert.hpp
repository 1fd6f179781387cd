// INSERT … SELECT over several regions: the rows are computed here, routed one by one, and inserted at
// their homes in batches. Memory is bounded by a batch a region; all regions work at the same time.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

// Runs the INSERT; adds to estate->es_processed. `homed` is the homed table that the target belongs to.
// RETURNING rows, which `returning` describes, are appended to `rows` in the order of their arrival.
void ExecuteRoutedInsert(Query *insert, Oid homed, EState *estate, TupleDesc returning,
                         Tuplestorestate *rows);

// UPDATE of the key column, with the same arguments: every row is deleted at its home and inserted at the
// home of its new key, with the triggers of both, as PostgreSQL does when a row changes its partition.
void ExecuteMovingUpdate(Query *update, Oid homed, EState *estate, TupleDesc returning,
                         Tuplestorestate *rows);

}  // namespace homing::write
