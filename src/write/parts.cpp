#include "write/parts.hpp"

#include "write/issued.hpp"
#include "write/routing.hpp"

#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/key.hpp"
#include "pg/key_home.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
}

namespace homing::write {

namespace {

Const *HomesConstant(const RegionPart *part)
{
	auto *elements = static_cast<Datum *>(palloc(sizeof(Datum) * (part->home_count + 1)));
	for (int i = 0; i < part->home_count; ++i)
		elements[i] = Int32GetDatum(part->homes[i]);
	ArrayType *array =
		construct_array(elements, part->home_count, INT4OID, sizeof(int32), true, TYPALIGN_INT);
	return makeConst(INT4ARRAYOID, -1, InvalidOid, -1, PointerGetDatum(array), false, false);
}

Oid OwnsFunction()
{
	const Oid types[] = {INT4OID, INT4ARRAYOID, ANYELEMENTOID};
	return LookupFuncName(list_make2(makeString(pstrdup("homing")), makeString(pstrdup("_owns"))),
	                      3, types, false);
}

}  // namespace

Query *WithRows(Query *query, const RegionPart *part)
{
	auto *copy = static_cast<Query *>(copyObjectImpl(query));
	RangeTblEntry *values =
		rt_fetch(linitial_node(RangeTblRef, copy->jointree->fromlist)->rtindex, copy->rtable);
	List *rows = NIL;
	for (int i = 0; i < part->row_count; ++i)
		rows = lappend(rows, list_nth(values->values_lists, part->rows[i]));
	values->values_lists = rows;
	return copy;
}

Query *WithHomes(Query *query, const RegionPart *part, const WrittenTarget *target)
{
	auto *copy = static_cast<Query *>(copyObjectImpl(query));
	const pg::HomedTable *table = pg::CurrentCatalog()->Find(target->relid);
	const Oid written = rt_fetch(copy->resultRelation, copy->rtable)->relid;
	AttrNumber attnum =
		target->relid == table->relid
			? table->key_attnum
			: get_attnum(target->relid, get_attname(table->relid, table->key_attnum, false));
	if (written != target->relid)
		attnum = ColumnOfView(written, target->relid, attnum);
	if (attnum == 0)
		return nullptr;
	Oid type, collation;
	int32 typmod;
	get_atttypetypmodcoll(written, attnum, &type, &typmod, &collation);
	Var *key = makeVar(copy->resultRelation, attnum, type, typmod, collation, 0);
	// The condition reads the key, whether or not the statement does.
	RangeTblEntry *entry = rt_fetch(copy->resultRelation, copy->rtable);
	entry->selectedCols =
		bms_add_member(entry->selectedCols, attnum - FirstLowInvalidHeapAttributeNumber);

	Const *keyspace = makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
	                            Int32GetDatum(table->keyspace.value), false, true);
	FuncExpr *owns =
		makeFuncExpr(OwnsFunction(), BOOLOID, list_make3(keyspace, HomesConstant(part), key),
	                 InvalidOid, collation, COERCE_EXPLICIT_CALL);
	Node *quals = copy->jointree->quals;
	List *both = quals != nullptr ? list_make2(owns, quals) : list_make1(owns);
	copy->jointree->quals = reinterpret_cast<Node *>(
		quals != nullptr ? static_cast<void *>(makeBoolExpr(AND_EXPR, both, -1))
						 : static_cast<void *>(owns));
	return copy;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_owns);
PG_FUNCTION_INFO_V1(homing_routed);
PG_FUNCTION_INFO_V1(homing_routed_first);
PG_FUNCTION_INFO_V1(homing_serves);

namespace {

// Which homes are meant, by number; kept between the calls of one statement.
struct MeantHomes {
	Datum source;
	int32 count;
	bool *meant;
	bool claimed;  // the keys of the batch have been
};

MeantHomes *Meant(FunctionCallInfo fcinfo, int32 homes)
{
	auto *meant = static_cast<MeantHomes *>(fcinfo->flinfo->fn_extra);
	if (meant != nullptr && meant->source == PG_GETARG_DATUM(1) && meant->count == homes)
		return meant;
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	meant = static_cast<MeantHomes *>(palloc0(sizeof(MeantHomes)));
	meant->source = PG_GETARG_DATUM(1);
	meant->count = homes;
	meant->meant = static_cast<bool *>(palloc0(homes));
	Datum *elements;
	int count;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, sizeof(int32), true, TYPALIGN_INT,
	                  &elements, nullptr, &count);
	for (int i = 0; i < count; ++i) {
		if (DatumGetInt32(elements[i]) >= 0 && DatumGetInt32(elements[i]) < homes)
			meant->meant[DatumGetInt32(elements[i])] = true;
	}
	fcinfo->flinfo->fn_extra = meant;
	MemoryContextSwitchTo(old);
	return meant;
}

}  // namespace

// (keyspace, homes, key): whether the key's home is one of `homes`.
namespace {

bool IsMeant(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		return false;
	const core::KeyspaceId id(PG_GETARG_INT32(0));
	const pg::Catalog *catalog = pg::PgEntry([] { return pg::CurrentCatalog(); });
	const core::Keyspace *keyspace = catalog != nullptr ? catalog->map.FindKeyspace(id) : nullptr;
	if (keyspace == nullptr)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("keyspace %d does not exist", id.value)));
	MeantHomes *meant = Meant(fcinfo, static_cast<int32>(keyspace->recorded_owners.size()));

	uint8 buffer[8];
	const Oid type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, 2));
	if (!pg::IsKeyType(type, InvalidOid))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("%s is no key type", format_type_be(type)),
		                errhint("Key types are %s.", pg::kKeyTypes)));
	const pg::KeyBytes key = pg::CanonicalKey(PG_GETARG_DATUM(2), type, buffer);
	const core::HomeId home =
		pg::PgEntry([&] { return pg::HomeOfKey(*keyspace, key.data, key.size); });
	return meant->meant[home.value];
}

}  // namespace

PGDLLEXPORT Datum homing_owns(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(IsMeant(fcinfo));
}

// (keyspace, key): raises when the key's home is not in this region; else its lock is held. For rows whose
// key a trigger may have changed.
PGDLLEXPORT Datum homing_serves(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	const core::KeyspaceId id(PG_GETARG_INT32(0));
	uint8 buffer[8];
	const Oid type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, 1));
	const pg::KeyBytes key = pg::CanonicalKey(PG_GETARG_DATUM(1), type, buffer);
	const bool here = pg::PgEntry([&] {
		for (;;) {
			const pg::CatalogVersion seen = pg::CurrentVersion();
			const pg::Catalog *catalog = pg::CurrentCatalog();
			const core::Keyspace *keyspace =
				catalog != nullptr ? catalog->map.FindKeyspace(id) : nullptr;
			if (keyspace == nullptr)
				return true;
			const pg::KeyHome home = pg::FindKeyHome(*keyspace, key.data, key.size);
			if (!home.arrived)
				continue;
			if (catalog->map.Owner(id, home.home) != catalog->map.here())
				return false;
			pg::PgCall([&] { pg::LockHomeForWrite(id, home.home); });
			AwaitArrivals(id);
			if (!(pg::CurrentVersion() == seen))
				continue;
			if (home.assigned || !keyspace->first_write ||
			    SettleClaims(catalog->map, id, {{key.data, key.size}}, true, false))
				return true;
		}
	});
	if (!here)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("a trigger changed the key of a row to one whose home is at another region"),
		         errhint("Set the key in the statement.")));
	PG_RETURN_BOOL(true);
}

namespace {

// Claims those keys of a batch, given as text, that nobody has yet and whose homes are meant.
void ClaimBatch(core::KeyspaceId id, const MeantHomes *meant, ArrayType *texts, Oid type)
{
	Datum *values;
	bool *nulls;
	int count;
	deconstruct_array(texts, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	Oid input, io_param;
	getTypeInputInfo(type, &input, &io_param);
	auto *keys = static_cast<KeyBytes *>(palloc(sizeof(KeyBytes) * (count + 1)));
	int key_count = 0;
	for (int i = 0; i < count; ++i) {
		if (nulls[i])
			continue;
		auto *buffer = static_cast<uint8 *>(palloc(8));
		const Datum value =
			OidInputFunctionCall(input, TextDatumGetCString(values[i]), io_param, -1);
		const pg::KeyBytes key = pg::CanonicalKey(value, type, buffer);
		keys[key_count++] = {key.data, key.size};
	}
	pg::PgEntry([&] {
		for (;;) {
			const pg::Catalog *catalog = pg::CurrentCatalog();
			const core::Keyspace *keyspace = catalog->map.FindKeyspace(id);
			if (keyspace == nullptr)
				throw remote::Error("40001", "homed table changed while the statement was running");
			std::vector<KeyBytes> unassigned;
			for (int i = 0; i < key_count; ++i) {
				const pg::KeyHome home = pg::FindKeyHome(*keyspace, keys[i].data, keys[i].size);
				if (!home.assigned && meant->meant[home.home.value])
					unassigned.push_back(keys[i]);
			}
			if (unassigned.empty() || SettleClaims(catalog->map, id, unassigned, true, true))
				return;
		}
	});
}

}  // namespace

// The same in a first-write keyspace, with all keys of the batch: they are claimed at once.
PGDLLEXPORT Datum homing_routed_first(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(2))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("arguments of _routed must not be null")));
	(void) IsMeant(fcinfo);  // checks the arguments
	auto *meant = static_cast<MeantHomes *>(fcinfo->flinfo->fn_extra);
	if (!meant->claimed) {
		ClaimBatch(core::KeyspaceId(PG_GETARG_INT32(0)), meant, PG_GETARG_ARRAYTYPE_P(3),
		           getBaseType(get_fn_expr_argtype(fcinfo->flinfo, 2)));
		meant->claimed = true;
	}
	return homing_routed(fcinfo);
}

// The key itself, provided that its home is one of `homes`; NULL passes, to meet the column's constraint.
PGDLLEXPORT Datum homing_routed(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(2))
		PG_RETURN_NULL();
	if (!IsMeant(fcinfo))
		ereport(ERROR, (errcode(pg::SqlStateCode(kNotHomeState)),
		                errmsg("the home of a row is not in this region")));
	PG_RETURN_DATUM(PG_GETARG_DATUM(2));
}

}  // extern "C"

}  // namespace homing::write
