#include "core/ids.hpp"
#include "write/truncate.hpp"

#include "pg/boundary.hpp"
#include "write/guard.hpp"
#include "write/homed_relation.hpp"
#include "write/serve_here.hpp"

extern "C" {
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "nodes/pg_list.h"
}

namespace homing::write {

namespace {

// Every table that will be emptied: as ExecuteTruncate collects them, which takes the locks later.
List *TruncatedTables(const TruncateStmt *truncate)
{
	List *relids = NIL;
	ListCell *cell;
	foreach (cell, truncate->relations) {
		auto *name = lfirst_node(RangeVar, cell);
		const Oid relid = RangeVarGetRelid(name, NoLock, true);
		if (!OidIsValid(relid))
			continue;
		relids = list_append_unique_oid(relids, relid);
		if (name->inh)
			relids = list_concat_unique_oid(relids, find_all_inheritors(relid, NoLock, nullptr));
	}
	if (truncate->behavior != DROP_CASCADE)
		return relids;
	for (;;) {
		List *more = heap_truncate_find_FKs(relids);
		const int known = list_length(relids);
		relids = list_concat_unique_oid(relids, more);
		if (list_length(relids) == known)
			return relids;
	}
}

}  // namespace

void PrepareTruncate(const TruncateStmt *truncate, MemoryContext context)
{
	List *relids = TruncatedTables(truncate);
	ListCell *cell;
	foreach (cell, relids) {
		HomedRelation table;
		if (FindReady(lfirst_oid(cell), &table))
			ServeWholeTable(&table, "TRUNCATE", "It would leave the rows of other regions' homes.",
			                context);
	}
}

}  // namespace homing::write
