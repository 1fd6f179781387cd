#include "core/ids.hpp"
#include "write/truncate.hpp"

#include "pg/boundary.hpp"
#include "pg/settings.hpp"
#include "write/ddl.hpp"
#include "write/everywhere.hpp"
#include "write/guard.hpp"
#include "write/homed_relation.hpp"
#include "write/serve_here.hpp"

extern "C" {
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "nodes/pg_list.h"
#include "replication/origin.h"
#include "utils/lsyscache.h"
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

// Empties tables here only.
void RunUnreplicated(const TruncateStatement *statement)
{
	const RepOriginId before = replorigin_session_origin;
	replorigin_session_origin = DoNotReplicateId;
	ErrorData *error = pg::CallGuarded(statement->run, statement->argument);
	replorigin_session_origin = before;
	if (error != nullptr)
		ReThrowError(error);
}

// A part of a TRUNCATE that another region executes everywhere.
bool IsPart()
{
	return pg::settings.local_ddl && pg::settings.forwarded_from[0] != '\0';
}

}  // namespace

void ExecuteTruncate(const TruncateStatement *statement, MemoryContext context)
{
	List *homed = NIL, *named = NIL;
	bool all_here = true;
	ListCell *cell;
	foreach (cell, TruncatedTables(statement->tree)) {
		HomedRelation table;
		if (!FindReady(lfirst_oid(cell), &table))
			continue;
		homed = lappend_oid(homed, table.relid);
		all_here = all_here && (table.all_here || table.fenced);
	}
	if (homed == NIL) {
		statement->run(statement->argument);
		return;
	}
	if (all_here && !IsPart()) {
		foreach (cell, homed) {
			HomedRelation table;
			if (FindHomed(lfirst_oid(cell), &table))
				ServeWholeTable(&table, "TRUNCATE",
				                "It would leave the rows of other regions' homes.", context);
		}
		statement->run(statement->argument);
		return;
	}
	if (!IsPart()) {
		if (!statement->top_level)
			RefuseDdl("TRUNCATE", linitial_oid(homed));
		foreach (cell, homed) {
			// A partition is locked with its table.
			if (!get_rel_relispartition(lfirst_oid(cell)) || list_length(homed) == 1)
				named = lappend_oid(named, lfirst_oid(cell));
		}
		ExecuteElsewhere(statement->text, named != NIL ? named : homed, true);
	}
	foreach (cell, homed)
		ApproveWrites(lfirst_oid(cell), context);
	RunUnreplicated(statement);
}

}  // namespace homing::write
