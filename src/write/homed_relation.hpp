// What utility statements need to know of a homed table. Plain server calls, plain data.
#pragma once

#include "core/ids.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "access/attnum.h"
}

namespace homing::write {

struct HomedRelation {
	Oid relid;              // as asked for, possibly a partition
	Oid homed;              // the homed table it is or belongs to
	AttrNumber key_attnum;  // in `homed`
	core::KeyspaceId keyspace;
	bool all_here;     // this region owns every home of the keyspace
	bool first_write;  // its keys are claimed
	bool only_region;  // no other region has the table
	bool fenced;       // this region may not serve
	bool ready;        // every region has it
};

// Whether this database has any homed table. Cheap.
bool AnyHomedTable();

// False: the relation is neither a homed table nor a partition of one.
bool FindHomed(Oid relid, HomedRelation *found);

// The homed tables, without their partitions; their number is stored in `count`.
Oid *HomedTables(int *count);

// The name of the key column, in the current memory context.
char *KeyColumn(const HomedRelation *table);

}  // namespace homing::write
