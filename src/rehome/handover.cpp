// A home changes hands (DESIGN §8, PROTOCOL 2b). Who acts, what is durable then, and what a crash does:
//
//  1. The owner A locks the home exclusively: its writers have ended, their commits are in A's WAL. With a
//     fresh snapshot it checks that it still owns the home, and inserts the release. When that commits, A
//     serves the home no more. A crash before: nothing happened.
//  2. The new owner B applies A's stream in order. When it sees the release it has every write of A. B's
//     worker, a backend of its own, inserts how far it has applied A (homing.dependency) and the acceptance,
//     in one transaction. When that commits, B serves. A crash before: the worker does it after the restart.
//  3. A third region may receive B's first writes before A's last ones. They come after the dependency in
//     B's stream, and the trigger on homing.dependency makes the apply worker wait for A's stream first.
//
// Waits of step 3 follow happens-before: B had applied A that far when it wrote the row. So they cannot form
// a circle. The waiting transaction holds no lock on a user's row.
//
// If B is lost between 1 and 2, its heir accepts in its place. If A is lost and no survivor has the release,
// A is the owner, and its heir takes over.
#include "core/home_map.hpp"
#include "core/placement.hpp"
#include "rehome/worker_table.hpp"

#include "pg/transaction_end.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "pg/apply_progress.hpp"
#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/lease.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "replication/logicalworker.h"
#include "replication/walreceiver.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace homing::rehome {

namespace {

bool tell_worker_at_commit = false;

void OnTransactionEnd(XactEvent event, void *)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (tell_worker_at_commit && event == XACT_EVENT_COMMIT)
		TellHandedOver(MyDatabaseId);
	tell_worker_at_commit = false;
}

// --- the barrier -------------------------------------------------------------------------------------

enum class Origin {
	kOurs,    // nothing to wait for
	kStream,  // applied by a subscription here
	kGone,    // lost, and its stream with it: all survivors stopped at one position
	kUnknown
};

struct OriginStream {
	Origin kind;
	Oid subscription;
	const char *region;  // for messages
};

// How the changes of a region come here.
OriginStream StreamOf(int16 origin)
{
	return pg::PgEntry([&]() -> OriginStream {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr)
			return {Origin::kUnknown, InvalidOid, "?"};
		const core::Region *region = catalog->map.FindRegion(core::RegionId(origin));
		const char *name = region != nullptr
		                       ? pg::PgCall([&] { return pstrdup(region->name.c_str()); })
		                       : "unknown";
		if (region != nullptr && region->id == catalog->map.here())
			return {Origin::kOurs, InvalidOid, name};
		const std::string stream = "homing_" + catalog->cluster.substr(0, 8) + "_" +
		                           std::to_string(origin) + "_" +
		                           std::to_string(catalog->map.here().value);
		const Oid subscription =
			pg::PgCall([&] { return pg::SubscriptionOfThisDatabase(stream.c_str()); });
		if (OidIsValid(subscription))
			return {Origin::kStream, subscription, name};
		if (region != nullptr && region->status == core::RegionStatus::kLost)
			return {Origin::kGone, InvalidOid, name};
		return {Origin::kUnknown, InvalidOid, name};
	});
}

// How long one try waits. The publisher must hear from us more often than wal_sender_timeout, which is not
// known here; it is usually what wal_receiver_timeout is.
long BarrierSlice()
{
	constexpr long kMost = 20 * 1000;  // ms
	const long third = wal_receiver_timeout / 3;
	return third > 0 && third < kMost ? third : kMost;
}

// Returns when the stream of `origin` is applied here up to the position. After a slice it gives up: the
// apply worker then starts anew and comes here again.
void AwaitOrigin(int16 origin, XLogRecPtr position)
{
	const TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BarrierSlice());
	pg::TellWaiting();
	for (;;) {
		const uint64 applied = pg::AppliedCount();
		const OriginStream stream = StreamOf(origin);
		if (stream.kind == Origin::kOurs || stream.kind == Origin::kGone)
			return;
		if (stream.kind == Origin::kStream && pg::IsApplied(stream.subscription, position))
			return;
		const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			     errmsg("changes of region \"%s\" up to %X/%X must be applied here first",
			            stream.region, static_cast<uint32>(position >> 32),
			            static_cast<uint32>(position)),
			     errdetail(
					 "A home was handed over by that region, and these are writes of its new owner."),
			     errhint(
					 "The apply worker tries again by itself. homing.regions shows which region is behind.")));
		// A change of the cluster map wakes nobody here, hence not one long wait.
		pg::AwaitApply(applied, left < 200 ? left : 200);
	}
}

Datum Attribute(TriggerData *trigger, const char *name)
{
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	const AttrNumber attnum = SPI_fnumber(desc, name);
	bool isnull;
	Datum value = heap_getattr(trigger->tg_trigtuple, attnum, desc, &isnull);
	if (isnull)
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
		                errmsg("column \"%s\" must not be null", name)));
	return value;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_barrier);
PG_FUNCTION_INFO_V1(homing_handed_over);
PG_FUNCTION_INFO_V1(homing_lock_home);
PG_FUNCTION_INFO_V1(homing_hold_home);
PG_FUNCTION_INFO_V1(homing_home_states);
PG_FUNCTION_INFO_V1(homing_generation);
PG_FUNCTION_INFO_V1(homing_await_change);
PG_FUNCTION_INFO_V1(homing_repartition);

// Row trigger, ENABLE ALWAYS, before inserts into homing.dependency.
PGDLLEXPORT Datum homing_barrier(PG_FUNCTION_ARGS)
{
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	if (IsLogicalWorker())
		AwaitOrigin(DatumGetInt16(Attribute(trigger, "origin")),
		            DatumGetLSN(Attribute(trigger, "position")));
	return PointerGetDatum(trigger->tg_trigtuple);
}

// Row trigger, ENABLE ALWAYS, after inserts that the worker has to do something about.
PGDLLEXPORT Datum homing_handed_over(PG_FUNCTION_ARGS)
{
	if (WorkerTableExists()) {
		pg::AtTransactionEnd<OnTransactionEnd>();
		tell_worker_at_commit = true;
	}
	return PointerGetDatum(nullptr);
}

// Locks a home for the rest of the transaction. False, without `wait`: it is being written.
PGDLLEXPORT Datum homing_lock_home(PG_FUNCTION_ARGS)
{
	const core::KeyspaceId keyspace(PG_GETARG_INT32(0));
	const core::HomeId home(PG_GETARG_INT32(1));
	if (!PG_GETARG_BOOL(2))
		PG_RETURN_BOOL(pg::TryLockHomeForMove(keyspace, home));
	pg::LockHomeForMove(keyspace, home);
	pg::CheckLease();
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT Datum homing_hold_home(PG_FUNCTION_ARGS)
{
	pg::LockHomeForWrite(core::KeyspaceId(PG_GETARG_INT32(0)), core::HomeId(PG_GETARG_INT32(1)));
	PG_RETURN_VOID();
}

// Homes as this region sees them now, whatever the snapshot of the transaction: all, or those of a keyspace.
PGDLLEXPORT Datum homing_home_states(PG_FUNCTION_ARGS)
{
	struct State {
		int32 keyspace, home;
		int16 owner;
		core::Handover handover;
	};
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	struct Found {
		State *states;
		int count;
	};
	const int32 only = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	const Found found = pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		std::vector<State> states;
		if (catalog != nullptr) {
			for (const auto &[id, keyspace] : catalog->map.keyspaces()) {
				if (only != 0 && id.value != only)
					continue;
				for (std::size_t i = 0; i < keyspace.recorded_owners.size(); ++i) {
					const core::HomeId home(static_cast<std::int32_t>(i));
					const auto owner = catalog->map.Owner(id, home);
					states.push_back({id.value, home.value,
					                  owner ? owner->value : static_cast<int16>(0),
					                  catalog->map.LastHandover(id, home)});
				}
			}
		}
		const Size size = sizeof(State) * (states.size() + 1);
		auto *plain = static_cast<State *>(pg::PgCall([&] { return palloc(size); }));
		std::copy(states.begin(), states.end(), plain);
		return Found{plain, static_cast<int>(states.size())};
	});
	for (int i = 0; i < found.count; ++i) {
		const State &state = found.states[i];
		const bool moved = state.handover.version > 0;
		Datum values[] = {Int32GetDatum(state.keyspace),
		                  Int32GetDatum(state.home),
		                  Int16GetDatum(state.owner),
		                  Int64GetDatum(state.handover.version),
		                  Int16GetDatum(state.handover.from.value),
		                  Int16GetDatum(state.handover.to.value),
		                  BoolGetDatum(state.handover.accepted)};
		bool nulls[] = {false, false, state.owner == 0, false, !moved, !moved, false};
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

PGDLLEXPORT Datum homing_generation(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(pg::CatalogIsShared() ? static_cast<int64>(pg::CurrentVersion().catalog) : 0);
}

// Waits until the generation is not that one any more, at most so many ms.
PGDLLEXPORT Datum homing_await_change(PG_FUNCTION_ARGS)
{
	const auto generation = static_cast<uint64>(PG_GETARG_INT64(0));
	PG_RETURN_BOOL(
		pg::AwaitChange({generation, pg::CurrentVersion().assignments}, PG_GETARG_INT32(1)));
}

// New owners of homes by weight: owners, regions, weights → owners.
PGDLLEXPORT Datum homing_repartition(PG_FUNCTION_ARGS)
{
	Datum *owners, *regions, *weights;
	int homes, count, weight_count;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT2OID, sizeof(int16), true, TYPALIGN_SHORT,
	                  &owners, nullptr, &homes);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT2OID, sizeof(int16), true, TYPALIGN_SHORT,
	                  &regions, nullptr, &count);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL,
	                  TYPALIGN_DOUBLE, &weights, nullptr, &weight_count);
	if (homes < 1 || count < 1 || count != weight_count)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be homes, and a weight for each region")));
	pg::PgEntry([&] {
		std::vector<core::RegionId> now;
		std::vector<core::Weight> wanted;
		for (int i = 0; i < homes; ++i)
			now.emplace_back(DatumGetInt16(owners[i]));
		for (int i = 0; i < count; ++i)
			wanted.push_back({core::RegionId(DatumGetInt16(regions[i])), DatumGetFloat8(weights[i])});
		int home = 0;
		for (core::RegionId owner : core::Repartition(now, wanted))
			owners[home++] = Int16GetDatum(owner.value);
	});
	PG_RETURN_ARRAYTYPE_P(
		construct_array(owners, homes, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
}

}  // extern "C"

}  // namespace homing::rehome
