#include "rehome/worker_state.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
}

namespace homing::rehome {

namespace {

Datum Column(uint64 row, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	if (isnull)
		ereport(ERROR,
		        (errcode(ERRCODE_DATA_CORRUPTED), errmsg("the tables of pg_homing are damaged")));
	return value;
}

struct KeptPlan {
	const char *sql;  // a literal
	SPIPlanPtr plan;
};

// What a worker asks each second it plans once: it would else cost the server as much as a thousand short statements.
SPIPlanPtr KeptPlanOf(const char *sql, int count, Oid *types)
{
	static KeptPlan kept[32];
	for (KeptPlan &one : kept) {
		if (one.sql == nullptr) {
			one.plan = SPI_prepare(sql, count, types);
			if (one.plan == nullptr)
				ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
				                errmsg("could not prepare \"%s\": %s", sql,
				                       SPI_result_code_string(SPI_result))));
			SPI_keepplan(one.plan);
			one.sql = sql;
		}
		if (one.sql == sql)
			return one.plan;
	}
	return SPI_prepare(sql, count, types);
}

}  // namespace

// DROP DATABASE, ALTER DATABASE … RENAME and CREATE DATABASE … TEMPLATE lock the database, then wait a few
// seconds for it to become empty. The lock they hold is the one that a new session could not get.
bool DatabaseIsWanted()
{
	LOCKTAG tag;
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	MemoryContext context = CurrentMemoryContext;
	StartTransactionCommand();
	const bool wanted = LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return wanted;
}

void Nap(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
	                 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending) {
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void ReadState(RawState *state, MemoryContext context)
{
	if (!OidIsValid(get_extension_oid("pg_homing", true)))
		return;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Query(
		"SELECT l.cluster_id::text, l.region_id, l.fenced IS NOT NULL, homing._has_lost_streams(), l.admin, c.epoch, "
		"homing._map_digest(), EXISTS (SELECT FROM homing.member m WHERE m.region_id = l.region_id AND m.status = 'active'), "
		"pg_catalog.cardinality(homing._unfinished_losses()) > 0 OR pg_catalog.cardinality(homing._silent_here("
		"(pg_catalog.extract('epoch', pg_catalog.current_setting('homing.auto_declare_lost')::pg_catalog.interval) * 1000)::pg_catalog.int8)) > 0, homing._is_witness(), l.missing <> '{}' "
		"FROM homing.local_region l CROSS JOIN homing.cluster_map c");
	if (SPI_processed == 1) {
		state->region = true;
		state->cluster = MemoryContextStrdup(context, TextDatumGetCString(Column(0, 1)));
		state->here = DatumGetInt16(Column(0, 2));
		state->fenced = DatumGetBool(Column(0, 3));
		state->lost_streams = DatumGetBool(Column(0, 4));
		state->administrator = get_role_oid(NameStr(*DatumGetName(Column(0, 5))), true);
		state->epoch = DatumGetInt64(Column(0, 6));
		state->digest = static_cast<uint64>(DatumGetInt64(Column(0, 7)));
		state->votes = DatumGetBool(Column(0, 8));
		state->losses = DatumGetBool(Column(0, 9));
		state->witness = DatumGetBool(Column(0, 10));
		state->missing = DatumGetBool(Column(0, 11));

		// A lost region whose name lives on in a later incarnation has no server of its own.
		Query(
			"SELECT m.region_id, m.name::text, m.status = 'lost', m.status = 'active', m.pending, false FROM homing.member m JOIN homing.local_region l "
			"ON m.region_id <> l.region_id WHERE m.status <> 'lost' OR NOT EXISTS (SELECT FROM homing.member n "
			"WHERE n.name = m.name AND n.region_id > m.region_id) "
			"UNION ALL SELECT w.region_id, w.name, false, w.status = 'active', false, true FROM homing.witness w "
			"JOIN homing.local_region l ON w.region_id <> l.region_id WHERE w.status <> 'removed' ORDER BY 1");
		state->peer_count = static_cast<int>(SPI_processed);
		state->peers = static_cast<RawPeer *>(
			MemoryContextAlloc(context, (state->peer_count + 1) * sizeof(RawPeer)));
		for (int i = 0; i < state->peer_count; ++i) {
			RawPeer *peer = &state->peers[i];
			peer->id = DatumGetInt16(Column(i, 1));
			strlcpy(peer->name, TextDatumGetCString(Column(i, 2)), NAMEDATALEN);
			peer->lost = DatumGetBool(Column(i, 3));
			peer->votes = DatumGetBool(Column(i, 4));
			peer->pending = DatumGetBool(Column(i, 5));
			peer->witness = DatumGetBool(Column(i, 6));
		}
	}
	PopActiveSnapshot();
	SPI_finish();
}

void Query(const char *sql, std::initializer_list<const char *> arguments)
{
	Oid types[4];
	Datum values[4];
	int count = 0;
	for (const char *argument : arguments) {
		types[count] = TEXTOID;
		values[count++] = CStringGetTextDatum(argument);
	}
	const int result = SPI_execute_plan(KeptPlanOf(sql, count, types), values, nullptr, false, 0);
	if (result != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
		                errmsg("could not run \"%s\": %s", sql, SPI_result_code_string(result))));
}

const char *Call(const char *sql, std::initializer_list<const char *> arguments,
                 MemoryContext context)
{
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Query(sql, arguments);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
		                errmsg("could not run \"%s\": it returned no row", sql)));
	const char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (text != nullptr)
		text = MemoryContextStrdup(context, text);
	PopActiveSnapshot();
	SPI_finish();
	return text;
}

}  // namespace homing::rehome
