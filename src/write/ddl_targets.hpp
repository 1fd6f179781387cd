// Which homed tables a DDL statement changes, as its parse tree names them. Plain server calls.
#pragma once

#include "write/homed_relation.hpp"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Homed tables (HomedRelation *) that the statement changes: named in it, or users of a type or a schema that
// it changes. What a DROP … CASCADE reaches is not in the list. Takes no locks.
List *DdlTargets(Node *statement);

// The homed table that an object belongs to, such as an index or a policy. False: none.
bool HomedTableOfObject(Oid class_id, Oid object_id, HomedRelation *found);

// A type as DDL names it, by a TypeName or a list of names; InvalidOid: there is none.
Oid TypeNamed(Node *name);

// Whether values of a type hold values of another one, at any depth.
bool TypeUses(Oid type, Oid wanted);

}  // namespace homing::write
