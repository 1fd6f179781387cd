// SQL functions about homes and keys: the parts of homes.sql that SQL cannot say.
#include "core/home_map.hpp"
#include "core/key_hash.hpp"
#include "core/placement.hpp"

#include <optional>
#include <vector>

#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/key.hpp"
#include "pg/key_home.hpp"
#include "pg/lease.hpp"
#include "rehome/key_value.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "replication/message.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
}

namespace homing::rehome {

namespace {

// Longer lists of heirs are cut.
constexpr int kMaxRegions = 256;

const pg::Catalog &RequireRegion()
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr)
		throw remote::Error("55000", "this database is not a region of a cluster");
	return *catalog;
}

struct Found {
	int32 keyspace;
	Oid key_type;
};

// The homed table that a relation is or belongs to.
Found FindHomed(Oid relid)
{
	const pg::HomedTable *table = RequireRegion().Find(relid);
	if (table == nullptr) {
		const char *name = pg::PgCall([&] { return get_rel_name(relid); });
		remote::Error error("22023",
		                    name == nullptr
		                        ? "relation with OID " + std::to_string(relid) + " does not exist"
		                        : "table \"" + std::string(name) + "\" is not homed");
		error.hint = "homing.tables lists the homed tables.";
		throw error;
	}
	return {table->keyspace.value, table->key_type};
}

// The key's home and the region that owns it; region 0: none does.
struct Place {
	int32 home;
	int16 owner;
	bool fenced;
	bool open;  // a first-write keyspace, and nobody has claimed the key
};

Place PlaceOf(int32 keyspace_id, const pg::KeyBytes &key)
{
	const pg::Catalog &catalog = RequireRegion();
	const core::Keyspace *keyspace = catalog.map.FindKeyspace(core::KeyspaceId(keyspace_id));
	if (keyspace == nullptr)
		throw remote::Error("40001", "the keyspace of the key does not exist here");
	const pg::KeyHome home = pg::FindKeyHome(*keyspace, key.data, key.size);
	if (!home.arrived)
		throw pg::ClusterChanged();
	const std::optional<core::RegionId> owner = catalog.map.Owner(keyspace->id, home.home);
	return {home.home.value, owner ? owner->value : static_cast<int16>(0), !catalog.fenced.empty(),
	        keyspace->first_write && !home.assigned};
}

const char *RegionNameOf(int16 region)
{
	const core::Region *known = RequireRegion().map.FindRegion(core::RegionId(region));
	if (known == nullptr)
		return nullptr;
	return pg::PgCall([&] { return pstrdup(known->name.c_str()); });
}

// -1: the region owns no home of the keyspace.
int32 HomeAt(int32 keyspace, int16 region, const pg::KeyBytes &key)
{
	const std::optional<core::HomeId> home =
		core::HomeOwnedBy(RequireRegion().map, core::KeyspaceId(keyspace), core::RegionId(region),
	                      core::HashKey(key.data, key.size));
	return home ? home->value : -1;
}

// --- assigning a key, at its owner -------------------------------------------------------------------

void InsertAssignment(int32 keyspace, Datum key, int32 home, int16 here, bool moves)
{
	Oid types[] = {INT4OID, BYTEAOID, INT4OID, INT2OID};
	Datum values[] = {Int32GetDatum(keyspace), key, Int32GetDatum(home), Int16GetDatum(here)};
	const char nulls[] = {' ', ' ', ' ', moves ? ' ' : 'n'};
	if (SPI_execute_with_args(
			"INSERT INTO homing.assignment (keyspace_id, key, version, home, from_region) SELECT $1, $2, "
			"coalesce(max(version), 0) + 1, $3, $4 FROM homing.assignment WHERE keyspace_id = $1 "
			"AND key = $2",
			4, types, values, nulls, false, 0) != SPI_OK_INSERT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not write the assignment")));
}

// Raises unless this region owns the key: its home may have gone while we waited for its lock.
Place RequireOwner(int32 keyspace, const pg::KeyBytes &key)
{
	const Place place = pg::PgEntry([&] { return PlaceOf(keyspace, key); });
	const int16 here = pg::PgEntry([&] { return RequireRegion().map.here().value; });
	if (place.fenced)
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
		                errmsg("this region is fenced and cannot assign keys")));
	if (place.owner != here)
		ereport(ERROR,
		        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		         errmsg("the key is not homed at this region any more"), errhint("Try again.")));
	return place;
}

pg::KeyBytes BytesOf(bytea *key)
{
	return {reinterpret_cast<const uint8 *>(VARDATA_ANY(key)), VARSIZE_ANY_EXHDR(key)};
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_owner);
PG_FUNCTION_INFO_V1(homing_heirs);
PG_FUNCTION_INFO_V1(homing_home_of);
PG_FUNCTION_INFO_V1(homing_homes);
PG_FUNCTION_INFO_V1(homing_key_bytes);
PG_FUNCTION_INFO_V1(homing_key_owner);
PG_FUNCTION_INFO_V1(homing_key_home);
PG_FUNCTION_INFO_V1(homing_assign);
PG_FUNCTION_INFO_V1(homing_lock_homes);
PG_FUNCTION_INFO_V1(homing_flush_position);
PG_FUNCTION_INFO_V1(homing_is_key_type);
PG_FUNCTION_INFO_V1(homing_shares_key_bytes);
PG_FUNCTION_INFO_V1(homing_key_types);
PG_FUNCTION_INFO_V1(homing_spread);
PG_FUNCTION_INFO_V1(homing_check_owner);
PG_FUNCTION_INFO_V1(homing_remove_stream_table);

PGDLLEXPORT Datum homing_owner(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0), home = PG_GETARG_INT32(1);
	const int16 owner = pg::PgEntry([&]() -> int16 {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr)
			return 0;
		const auto region = catalog->map.Owner(core::KeyspaceId(keyspace), core::HomeId(home));
		return region ? region->value : static_cast<int16>(0);
	});
	if (owner == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT16(owner);
}

PGDLLEXPORT Datum homing_heirs(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0), home = PG_GETARG_INT32(1);
	Datum ids[kMaxRegions];
	const int count = pg::PgEntry([&] {
		int n = 0;
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr)
			return n;
		for (core::RegionId heir :
		     catalog->map.HeirsOf(core::KeyspaceId(keyspace), core::HomeId(home))) {
			if (n < kMaxRegions)
				ids[n++] = Int16GetDatum(heir.value);
		}
		return n;
	});
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, count, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
}

PGDLLEXPORT Datum homing_key_bytes(PG_FUNCTION_ARGS)
{
	const Oid relid = PG_GETARG_OID(0);
	const Found table = pg::PgEntry([&] { return FindHomed(relid); });
	uint8 buffer[8];
	const pg::KeyBytes key =
		KeyFromArgument(PG_GETARG_DATUM(1), get_fn_expr_argtype(fcinfo->flinfo, 1), table.key_type,
	                    buffer);
	auto *bytes = static_cast<bytea *>(palloc(VARHDRSZ + key.size));
	SET_VARSIZE(bytes, VARHDRSZ + key.size);
	memcpy(VARDATA(bytes), key.data, key.size);
	PG_RETURN_BYTEA_P(bytes);
}

PGDLLEXPORT Datum homing_home_of(PG_FUNCTION_ARGS)
{
	const Oid relid = PG_GETARG_OID(0);
	const Found table = pg::PgEntry([&] { return FindHomed(relid); });
	uint8 buffer[8];
	const pg::KeyBytes key =
		KeyFromArgument(PG_GETARG_DATUM(1), get_fn_expr_argtype(fcinfo->flinfo, 1), table.key_type,
	                    buffer);
	const char *region =
		pg::PgEntry([&] { return RegionNameOf(PlaceOf(table.keyspace, key).owner); });
	if (region == nullptr)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(region));
}

// All homes: keyspace, home, owner and heirs. The planner knows their number better than that of a join that
// makes them, which it would have compiled.
PGDLLEXPORT Datum homing_homes(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	auto *out = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr)
			return;
		for (const auto &[id, keyspace] : catalog->map.keyspaces()) {
			for (int32 home = 0; home < static_cast<int32>(keyspace.recorded_owners.size()); ++home) {
				const auto owner = catalog->map.Owner(id, core::HomeId(home));
				Datum heirs[kMaxRegions];
				int heir_count = 0;
				for (core::RegionId heir : catalog->map.HeirsOf(id, core::HomeId(home))) {
					if (heir_count < kMaxRegions)
						heirs[heir_count++] = Int16GetDatum(heir.value);
				}
				const int32 keyspace_id = id.value;
				const int16 owner_id = owner ? owner->value : static_cast<int16>(0);
				pg::PgCall([&] {
					Datum values[] = {Int32GetDatum(keyspace_id), Int32GetDatum(home),
					                  Int16GetDatum(owner_id),
					                  PointerGetDatum(construct_array(heirs, heir_count, INT2OID,
					                                                  sizeof(int16), true,
					                                                  TYPALIGN_SHORT))};
					bool nulls[] = {false, false, owner_id == 0, false};
					tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
				});
			}
		}
	});
	return (Datum) 0;
}

// The region that owns a key of a keyspace.
PGDLLEXPORT Datum homing_key_owner(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0);
	const pg::KeyBytes key = BytesOf(PG_GETARG_BYTEA_PP(1));
	const Place place = pg::PgEntry([&] { return PlaceOf(keyspace, key); });
	if (place.owner == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT16(place.owner);
}

// The home of a key of a keyspace.
PGDLLEXPORT Datum homing_key_home(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0);
	const pg::KeyBytes key = BytesOf(PG_GETARG_BYTEA_PP(1));
	PG_RETURN_INT32(pg::PgEntry([&] { return PlaceOf(keyspace, key).home; }));
}

// Assigns a key to a home of `region`, at the region that owns it now. The lock is held to the end of the
// transaction: nobody writes rows of the key in between, and after the commit we do not serve it.
PGDLLEXPORT Datum homing_assign(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0);
	bytea *bytes = PG_GETARG_BYTEA_PP(1);
	const pg::KeyBytes key = BytesOf(bytes);
	const int16 region = PG_GETARG_INT16(2);

	// The statements below must see what was committed while we waited.
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
		     errmsg(
				 "cannot assign a key in a transaction of isolation level REPEATABLE READ or higher")));
	Place place = RequireOwner(keyspace, key);
	for (;;) {
		const int32 locked = place.home;
		pg::LockHomeForMove(core::KeyspaceId(keyspace), core::HomeId(locked));
		place = RequireOwner(keyspace, key);
		if (place.home == locked)
			break;
	}
	pg::CheckLease();
	const int16 here = pg::PgEntry([&] { return RequireRegion().map.here().value; });
	// A key that is here stays in its home; nobody else can claim it any more.
	const int32 home =
		here == region ? place.home : pg::PgEntry([&] { return HomeAt(keyspace, region, key); });
	if (home < 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("the region owns no home of this keyspace"),
		                errdetail("A key is assigned to a home, and goes where that home is."),
		                errhint("homing.homes shows who owns the homes.")));
	if (here == region && !place.open)
		PG_RETURN_BOOL(false);
	SPI_connect();
	InsertAssignment(keyspace, PointerGetDatum(bytes), home, here, here != region);
	SPI_finish();
	PG_RETURN_BOOL(true);
}

// Waits for the writers of all homes of a keyspace and keeps further ones waiting. Replication goes on.
PGDLLEXPORT Datum homing_lock_homes(PG_FUNCTION_ARGS)
{
	const int32 keyspace = PG_GETARG_INT32(0);
	const int32 homes = PG_GETARG_INT32(1);
	for (int32 home = 0; home < homes; ++home)
		pg::LockHomeForMove(core::KeyspaceId(keyspace), core::HomeId(home));
	PG_RETURN_VOID();
}

// A position of our WAL after everything written so far, flushed. A record of our own marks it: the end of
// the last record of others may lie before the head of a page, where no replication slot ever stops.
PGDLLEXPORT Datum homing_flush_position(PG_FUNCTION_ARGS)
{
	const XLogRecPtr position = LogLogicalMessage("pg_homing", "", 0, false);
	XLogFlush(position);
	PG_RETURN_LSN(position);
}

PGDLLEXPORT Datum homing_is_key_type(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pg::IsKeyType(getBaseType(PG_GETARG_OID(0)), PG_GETARG_OID(1)));
}

PGDLLEXPORT Datum homing_shares_key_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pg::SharesKeyBytes(getBaseType(PG_GETARG_OID(0)), getBaseType(PG_GETARG_OID(1))));
}

PGDLLEXPORT Datum homing_key_types(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(pg::kKeyTypes));
}

// Owners of a new keyspace's homes.
PGDLLEXPORT Datum homing_spread(PG_FUNCTION_ARGS)
{
	const int32 homes = PG_GETARG_INT32(0);
	ArrayType *array = PG_GETARG_ARRAYTYPE_P(1);
	Datum *regions;
	int count;
	deconstruct_array(array, INT2OID, sizeof(int16), true, TYPALIGN_SHORT, &regions, nullptr,
	                  &count);
	if (homes < 1 || count < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be homes and regions")));
	auto *owners = static_cast<Datum *>(palloc(sizeof(Datum) * homes));
	pg::PgEntry([&] {
		std::vector<core::RegionId> ids;
		for (int i = 0; i < count; ++i)
			ids.emplace_back(DatumGetInt16(regions[i]));
		int home = 0;
		for (core::RegionId owner : core::SpreadEvenly(homes, ids))
			owners[home++] = Int16GetDatum(owner.value);
	});
	PG_RETURN_ARRAYTYPE_P(
		construct_array(owners, homes, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
}

// Whether the caller of the security definer function that calls us owns the relation.
PGDLLEXPORT Datum homing_check_owner(PG_FUNCTION_ARGS)
{
	const Oid relid = PG_GETARG_OID(0);
	if (!pg_class_ownercheck(relid, GetOuterUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
		               get_rel_name(relid));
	PG_RETURN_VOID();
}

// The subscription does not apply changes of the table any more.
PGDLLEXPORT Datum homing_remove_stream_table(PG_FUNCTION_ARGS)
{
	const Oid subscription = get_subscription_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
	LockSharedObject(SubscriptionRelationId, subscription, 0, AccessExclusiveLock);
	RemoveSubscriptionRel(subscription, PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::rehome
