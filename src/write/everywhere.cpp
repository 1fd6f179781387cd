#include "write/everywhere.hpp"

#include <algorithm>

#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "write/homed_relation.hpp"
#include "write/own_sql.hpp"
#include "write/transaction.hpp"

#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "replication/message.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"
}

namespace homing::write {

namespace {

// The nesting level at which this transaction has changed homed tables; 0: it has not.
int changed_level = 0;

void OnTransactionEnd(XactEvent event, void *)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		changed_level = 0;
}

void OnSubTransactionEnd(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	const int level = GetCurrentTransactionNestLevel();
	if (changed_level < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		changed_level = 0;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		changed_level = level - 1;
}

void NoteChange()
{
	pg::AtTransactionEnd<OnTransactionEnd>();
	pg::AtSubTransactionEnd<OnSubTransactionEnd>();
	const int level = GetCurrentTransactionNestLevel();
	if (changed_level == 0 || level < changed_level)
		changed_level = level;
}

void CheckNoRowsWritten()
{
	const bool written = pg::PgEntry([] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		for (const auto &[relid, table] : catalog->tables) {
			const core::Keyspace *keyspace = catalog->map.FindKeyspace(table.keyspace);
			if (keyspace != nullptr &&
			    pg::HoldsLockForWrite(keyspace->id,
			                          static_cast<int>(keyspace->recorded_owners.size())))
				return true;
		}
		return WroteElsewhere();
	});
	if (changed_level == 0 && written)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot change homed tables in a transaction that has written rows of some"),
		         errdetail("The rows could not be replicated before the change."),
		         errhint("Commit in between.")));
}

// --- regions ------------------------------------------------------------------------------------------------

// Calls for every living region by id; `here` is false for the others.
template <typename Body>
void ForEachRegion(const std::vector<core::RegionId> &others, const Body &body)
{
	const core::RegionId here = pg::CurrentCatalog()->map.here();
	std::vector<core::RegionId> all = others;
	all.push_back(here);
	std::sort(all.begin(), all.end());
	for (core::RegionId region : all)
		body(region, region == here);
}

RemoteStatement Call(const char *function, const std::string &tables, bool truncating)
{
	RemoteStatement statement;
	statement.sql = std::string("SELECT homing.") + function + "($1, $2)";
	statement.arguments = {{tables, TEXTARRAYOID}, {truncating ? "t" : "f", BOOLOID}};
	return statement;
}

// The answers of all, whatever the first error is: a session takes nothing else before.
void AwaitAll(const std::vector<core::RegionId> &regions)
{
	for (core::RegionId region : regions)
		(void) Await(region);
}

// Qualified names, as an array's text.
const char *TableNames(List *relids)
{
	auto *names = static_cast<Datum *>(palloc(sizeof(Datum) * (list_length(relids) + 1)));
	int count = 0;
	ListCell *cell;
	foreach (cell, relids) {
		const Oid relid = lfirst_oid(cell);
		names[count++] = CStringGetTextDatum(
			quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
		                               get_rel_name(relid)));
	}
	ArrayType *array = construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT);
	Oid output;
	bool is_varlena;
	getTypeOutputInfo(TEXTARRAYOID, &output, &is_varlena);
	return OidOutputFunctionCall(output, PointerGetDatum(array));
}

void CheckMayChange(Oid relid, Oid user, bool truncating)
{
	if (!truncating && !pg_class_ownercheck(relid, user))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
		               get_rel_name(relid));
	if (truncating && pg_class_aclcheck(relid, user, ACL_TRUNCATE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)),
		               get_rel_name(relid));
}

// Not for ever: who has a table here may wait for us at another region.
void LockTables(List *relids)
{
	const int level = NewGUCNestLevel();
	if (LockTimeout == 0)
		(void) set_config_option("lock_timeout", "10s", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
		                         true, 0, false);
	ListCell *cell;
	foreach (cell, relids)
		LockRelationOid(lfirst_oid(cell), AccessExclusiveLock);
	AtEOXact_GUC(true, level);
}

}  // namespace

std::vector<core::RegionId> OtherRegions()
{
	std::vector<core::RegionId> others;
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr)
		return others;
	for (const core::Region &region : catalog->map.regions()) {
		if (region.id != catalog->map.here() && region.status != core::RegionStatus::kLost)
			others.push_back(region.id);
	}
	std::sort(others.begin(), others.end());
	return others;
}

void ExecuteElsewhere(const char *sql, List *relids, bool truncating)
{
	ListCell *cell;
	foreach (cell, relids)
		CheckMayChange(lfirst_oid(cell), GetUserId(), truncating);
	CheckNoRowsWritten();
	NoteChange();
	const char *tables = TableNames(relids);
	pg::PgEntry([&] {
		const std::vector<core::RegionId> others = OtherRegions();
		ForEachRegion(others, [&](core::RegionId region, bool here) {
			if (here) {
				pg::PgCall([] { RunOwnSql("SELECT homing._stop_writes() WHERE $1 IS NOT NULL", 0); });
			} else {
				Post(region, Call("_begin_change_everywhere", tables, truncating));
				(void) Await(region);
			}
		});
		for (core::RegionId region : others)
			Post(region, Call("_await_change_everywhere", tables, truncating));
		pg::PgCall([&] { RunOwnSql("SELECT homing._await_followers() WHERE $1 IS NOT NULL", 0); });
		AwaitAll(others);
		// Not before all have all: an apply worker would wait for the lock, and its region's step 2 for the worker.
		for (core::RegionId region : others)
			Post(region, Call("_prepare_change_everywhere", tables, truncating));
		pg::PgCall([&] { LockTables(relids); });
		AwaitAll(others);
		for (core::RegionId region : others)
			Post(region, {sql, {}, false});
		AwaitAll(others);
	});
}

void FollowElsewhere(const char *sql)
{
	pg::PgEntry([&] {
		const std::vector<core::RegionId> others = OtherRegions();
		for (core::RegionId region : others)
			Post(region, {sql, {}, false});
		AwaitAll(others);
	});
}

[[gnu::hot]] bool HasChangedTables()
{
	return changed_level > 0;
}

void CheckMayWriteRows()
{
	if (HasChangedTables())
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("cannot write rows of homed tables in a transaction that has changed some"),
		     errdetail(
				 "The rows would wait at other regions for the change, and the change for the rows."),
		     errhint("Commit in between.")));
}

char *StatementText(const char *source, int location, int length)
{
	if (location > 0)
		source += location;
	return length > 0 ? pnstrdup(source, length) : pstrdup(source);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_check_may_change);
PG_FUNCTION_INFO_V1(homing_flush);

PGDLLEXPORT Datum homing_check_may_change(PG_FUNCTION_ARGS)
{
	const Oid user = GetOuterUserId();
	Datum *names;
	int count;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, nullptr,
	                  &count);
	// What follows keeps everybody from writing: it is not for those who have no homed table to change.
	bool homed = count > 0;
	for (int i = 0; i < count; ++i) {
		const Oid relid = RangeVarGetRelid(makeRangeVarFromNameList(
											   textToQualifiedNameList(DatumGetTextPP(names[i]))),
		                                   NoLock, false);
		HomedRelation table;
		homed = FindHomed(relid, &table) && homed;
		CheckMayChange(relid, user, PG_GETARG_BOOL(1));
	}
	if (!homed && !superuser_arg(user))
		ereport(ERROR,
		        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		         errmsg("must be superuser to stop the writes of tables that are not homed")));
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_flush(PG_FUNCTION_ARGS)
{
	// A record of its own, because the end of the WAL is not always the end of a record.
	XLogFlush(LogLogicalMessage("pg_homing", "flush", 5, false));
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::write
