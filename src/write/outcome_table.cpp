#include "core/outcome_token.hpp"
#include "write/outcome_table.hpp"

#include <algorithm>

#include "pg/catalog.hpp"
#include "pg/compat.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
}

namespace homing::write {

namespace {

ExecutorFinish_hook_type next_finish = nullptr;
// Rows of the last write that this session finished, for whoever loses the answer.
uint64 last_rows = 0;

void FinishAndCount(QueryDesc *query)
{
	if (next_finish != nullptr)
		next_finish(query);
	else
		standard_ExecutorFinish(query);
	// Writes of its triggers have finished before.
	if (query->operation == CMD_INSERT || query->operation == CMD_UPDATE ||
	    query->operation == CMD_DELETE)
		last_rows = query->estate->es_processed;
}

// From now on: sessions of other regions need it, no others.
void CountRows()
{
	static bool counting = false;
	if (!counting) {
		next_finish = ExecutorFinish_hook;
		ExecutorFinish_hook = FinishAndCount;
	}
	counting = true;
}

void OnTransactionEnd(XactEvent event)
{
	// Apply workers hear of everything.
	if (event == XACT_EVENT_COMMIT && pg::settings.forwarded_from[0] != '\0')
		pg::DebugPoint("served-committed");
}

pg::EndListener end_listener{OnTransactionEnd};

// The server reports it with the end of the transaction: then the setting shows where the commit ended.
void ReportLastCommit()
{
	static bool reported = false;
	if (!reported)
		pg::FindSetting(pg::kLastCommitSetting)->flags |= GUC_REPORT;
	reported = true;
	SetConfigOption(pg::kLastCommitSetting, "on", PGC_INTERNAL, PGC_S_OVERRIDE);
}

core::OutcomeToken TokenOf(const uint8 *bytes)
{
	core::OutcomeToken token;
	std::copy(bytes, bytes + token.bytes.size(), token.bytes.begin());
	return token;
}

int64 Now()
{
	return static_cast<int64>(timestamptz_to_time_t(GetCurrentTimestamp()));
}

// One statement, planned once for each bucket.
struct BucketStatement {
	const char *format;  // with the bucket's number
	Oid types[3];
	int count;
	SPIPlanPtr plans[core::kOutcomeBuckets];
};

BucketStatement insert_committed = {
	"INSERT INTO homing.outcome_%d (id, bucket, committed, rows) VALUES ($1, %d, true, $2)",
	{UUIDOID, INT8OID},
	2,
	{}};
BucketStatement insert_decision = {
	"INSERT INTO homing.outcome_%d (id, bucket, committed, parts) VALUES ($1, %d, true, $2)",
	{UUIDOID, UUIDARRAYOID},
	2,
	{}};
BucketStatement insert_never = {
	"INSERT INTO homing.outcome_%d (id, bucket, committed) VALUES ($1, %d, false) ON CONFLICT DO NOTHING",
	{UUIDOID},
	1,
	{}};
BucketStatement find = {
	"SELECT committed, rows FROM homing.outcome_%d WHERE id = $1 AND bucket = %d", {UUIDOID}, 1, {}};

// Runs it with the rights of the tables' owner. Nobody else has any on them. SPI is connected.
int Run(BucketStatement *statement, int bucket, Datum *values)
{
	Oid user;
	int context;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	if (statement->plans[bucket] == nullptr) {
		SPIPlanPtr plan = SPI_prepare(psprintf(statement->format, bucket, bucket), statement->count,
		                              statement->types);
		if (plan == nullptr || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not plan a statement on homing.outcome");
		statement->plans[bucket] = plan;
	}
	// Never the transaction's own snapshot: it may be older than the row.
	const int result = SPI_execute_snapshot(statement->plans[bucket], values, nullptr,
	                                        GetLatestSnapshot(), InvalidSnapshot, false, true, 0);
	SetUserIdAndSecContext(user, context);
	return result;
}

KeptOutcome FindConnected(int bucket, Datum id)
{
	KeptOutcome kept{};
	(void) Run(&find, bucket, &id);
	if (SPI_processed > 0) {
		bool isnull;
		kept.known = true;
		kept.committed =
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		kept.rows = static_cast<uint64>(
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)));
	}
	return kept;
}

// Raises unless this is the region where the transaction of the token commits.
void CheckHere(const core::OutcomeToken &token)
{
	if (!core::IsToken(token))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid token of a transaction")));
	struct Here {
		bool region, fenced;
	};
	const Here here = pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		return catalog == nullptr ? Here{false, false}
		                          : Here{catalog->map.here() == token.Region(),
		                                 !catalog->fenced.empty() && !catalog->only_lacks};
	});
	if (!here.region)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("the transaction does not commit at this region")));
	if (here.fenced)
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
		                errmsg("cannot tell the outcome of a transaction: this region is fenced")));
}

// Finds out whether the transaction has committed here; if not, it never will. Waits while it is running.
KeptOutcome Settle(const core::OutcomeToken &token)
{
	pg_uuid_t uuid;
	memcpy(uuid.data, token.bytes.data(), UUID_LEN);
	Datum id = UUIDPGetDatum(&uuid);
	KeptOutcome kept{};
	SPI_connect();
	(void) Run(&insert_never, core::BucketOf(token), &id);
	const bool ruled_out = SPI_processed > 0;
	if (!ruled_out)
		kept = FindConnected(core::BucketOf(token), id);
	SPI_finish();
	ForceSyncCommit();
	if (!ruled_out)
		LeaveMark(token.Region().value);
	return kept;
}

// Only the role that the transaction runs as says that it commits, or rules it out.
void CheckOwner(const core::OutcomeToken &token)
{
	const char *role = GetUserNameFromId(GetSessionUserId(), false);
	const bool owns = pg::PgEntry([&] { return core::IsMadeOutTo(token, role); });
	if (!owns && !superuser_arg(GetSessionUserId()))
		ereport(ERROR,
		        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		         errmsg("permission denied for the outcome of a transaction of another role")));
}

[[noreturn]] void RefuseStale(const core::OutcomeToken &token)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	                errmsg("the token of the transaction was made %d hours ago",
	                       core::AgeInHours(token, Now())),
	                errdetail("Outcomes of that time are forgotten."),
	                errhint("Check the clocks of the regions.")));
	pg_unreachable();
}

}  // namespace

void FillToken(int16 region, uint8 *token)
{
	std::array<std::uint8_t, 16> random;
	if (!pg_strong_random(random.data(), random.size()))
		ereport(ERROR,
		        (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	const core::OutcomeToken made = core::MakeToken(random, core::RegionId(region), Now());
	std::copy(made.bytes.begin(), made.bytes.end(), token);
}

KeptOutcome FindOutcome(const uint8 *token)
{
	pg_uuid_t id;
	memcpy(id.data, token, UUID_LEN);
	SPI_connect();
	const KeptOutcome kept = FindConnected(core::BucketOf(TokenOf(token)), UUIDPGetDatum(&id));
	SPI_finish();
	return kept;
}

void KeepDecision(const uint8 *token, const uint8 *parts, int part_count)
{
	pg_uuid_t id;
	memcpy(id.data, token, UUID_LEN);
	SPI_connect();
	auto *elements = static_cast<Datum *>(palloc(sizeof(Datum) * (part_count + 1)));
	auto *tokens = static_cast<pg_uuid_t *>(palloc(sizeof(pg_uuid_t) * (part_count + 1)));
	for (int i = 0; i < part_count; ++i) {
		memcpy(tokens[i].data, parts + i * UUID_LEN, UUID_LEN);
		elements[i] = UUIDPGetDatum(&tokens[i]);
	}
	Datum values[] = {UUIDPGetDatum(&id),
	                  PointerGetDatum(construct_array(elements, part_count, UUIDOID, UUID_LEN,
	                                                  false, TYPALIGN_CHAR))};
	(void) Run(&insert_decision, core::BucketOf(TokenOf(token)), values);
	SPI_finish();
	ForceSyncCommit();
}

void LeaveMark(int16 region, uint8 *mark)
{
	pg_uuid_t token;
	FillToken(region, token.data);
	if (mark != nullptr)
		memcpy(mark, token.data, UUID_LEN);
	Datum id = UUIDPGetDatum(&token);
	SPI_connect();
	(void) Run(&insert_never, core::BucketOf(TokenOf(token.data)), &id);
	SPI_finish();
	ForceSyncCommit();
}

void RegisterOutcomeTable()
{
	pg::AddEndListener(&end_listener);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_greet);
PG_FUNCTION_INFO_V1(homing_keep_outcome);
PG_FUNCTION_INFO_V1(homing_settle_outcome);
PG_FUNCTION_INFO_V1(homing_rule_out);
PG_FUNCTION_INFO_V1(homing_last_commit);
PG_FUNCTION_INFO_V1(homing_bucket_to_empty);
PG_FUNCTION_INFO_V1(homing_token_region);

PGDLLEXPORT Datum homing_greet(PG_FUNCTION_ARGS)
{
	const int16 expected = PG_GETARG_INT16(0);
	const int here = pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		return catalog == nullptr ? 0 : catalog->map.here().value;
	});
	if (here != expected)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("this database is not the region that was to be reached"),
		                here == 0 ? errdetail("It is no region.")
		                          : errdetail("It is region %d of its cluster, not region %d.",
		                                      here, expected),
		                errhint("Correct the server's options in the region that connects.")));
	CountRows();
	PG_RETURN_INT32(max_prepared_xacts);
}

PGDLLEXPORT Datum homing_keep_outcome(PG_FUNCTION_ARGS)
{
	const core::OutcomeToken token = TokenOf(PG_GETARG_UUID_P(0)->data);
	CheckHere(token);
	CheckOwner(token);
	if (!core::IsFresh(token, Now()))
		RefuseStale(token);
	Datum values[] = {PG_GETARG_DATUM(0), Int64GetDatum(static_cast<int64>(last_rows))};
	SPI_connect();
	(void) Run(&insert_committed, core::BucketOf(token), values);
	SPI_finish();
	// Nobody sees it before it is flushed, and the sender's next reads wait for it.
	ForceSyncCommit();
	ReportLastCommit();
	pg::ListenToEnd(&end_listener);
	PG_RETURN_VOID();
}

// See outcome.hpp. Leaves a row in every case, so that a position that waiters can wait for is published.
PGDLLEXPORT Datum homing_settle_outcome(PG_FUNCTION_ARGS)
{
	const core::OutcomeToken token = TokenOf(PG_GETARG_UUID_P(0)->data);
	CheckHere(token);
	CheckOwner(token);
	if (core::IsForgettable(token, Now()))
		RefuseStale(token);

	const KeptOutcome kept = Settle(token);

	TupleDesc desc;
	if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Datum values[] = {BoolGetDatum(kept.committed), Int64GetDatum(static_cast<int64>(kept.rows))};
	bool nulls[] = {false, false};
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

// What a participant hears who asks about the decision: "committed", "never", or "forgotten". In every case a
// row is left, behind which the stream holds the decision if there is one.
PGDLLEXPORT Datum homing_rule_out(PG_FUNCTION_ARGS)
{
	const core::OutcomeToken token = TokenOf(PG_GETARG_UUID_P(0)->data);
	CheckHere(token);
	if (!core::IsForgettable(token, Now()))
		PG_RETURN_TEXT_P(cstring_to_text(Settle(token).committed ? "committed" : "never"));
	LeaveMark(token.Region().value);
	PG_RETURN_TEXT_P(cstring_to_text("forgotten"));
}

PGDLLEXPORT Datum homing_last_commit(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(static_cast<int64>(XactLastCommitEnd));
}

PGDLLEXPORT Datum homing_token_region(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT16(TokenOf(PG_GETARG_UUID_P(0)->data).Region().value);
}

PGDLLEXPORT Datum homing_bucket_to_empty(PG_FUNCTION_ARGS)
{
	const std::optional<int> bucket = core::BucketToEmpty(Now());
	if (!bucket)
		PG_RETURN_NULL();
	PG_RETURN_INT16(static_cast<int16>(*bucket));
}

}  // extern "C"

}  // namespace homing::write
