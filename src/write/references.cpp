#include "core/ids.hpp"
#include "write/references.hpp"

#include "pg/catalog.hpp"
#include "pg/key.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
}

namespace homing::write {

namespace {

bool IsUpdateOfReferenced(const Trigger *trigger)
{
	return RI_FKey_trigger_type(trigger->tgfoid) == RI_TRIGGER_PK &&
	       TRIGGER_FOR_UPDATE(trigger->tgtype);
}

struct Reference {
	Oid referring;
	char *name;
	char on_update;
	int count;
	AttrNumber theirs[INDEX_MAX_KEYS], ours[INDEX_MAX_KEYS];
	Oid equals[INDEX_MAX_KEYS];
};

Reference ReadReference(Oid constraint)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for constraint %u", constraint);
	auto *form = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple));
	Reference reference{};
	reference.referring = form->conrelid;
	reference.name = pstrdup(NameStr(form->conname));
	reference.on_update = form->confupdtype;
	DeconstructFkConstraintRow(tuple, &reference.count, reference.theirs, reference.ours,
	                           reference.equals, nullptr, nullptr, nullptr, nullptr);
	ReleaseSysCache(tuple);
	return reference;
}

// Looks as the owner of the referring table and at the newest rows, as the foreign key's own triggers do.
bool HasReferring(const Reference *reference, Relation referring, Relation relation,
                  HeapTupleHeader row)
{
	Oid types[INDEX_MAX_KEYS];
	Datum values[INDEX_MAX_KEYS];
	StringInfoData sql;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT 1 FROM %s%s x",
	                 RelationGetForm(referring)->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
	                 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(referring)),
	                                            RelationGetRelationName(referring)));
	for (int i = 0; i < reference->count; ++i) {
		bool isnull;
		values[i] = GetAttributeByNum(row, reference->ours[i], &isnull);
		if (isnull)
			return false;
		types[i] = TupleDescAttr(RelationGetDescr(relation), reference->ours[i] - 1)->atttypid;
		Form_pg_attribute column =
			TupleDescAttr(RelationGetDescr(referring), reference->theirs[i] - 1);
		appendStringInfoString(&sql, i == 0 ? " WHERE " : " AND ");
		generate_operator_clause(&sql, psprintf("$%d", i + 1), types[i], reference->equals[i],
		                         psprintf("x.%s", quote_identifier(NameStr(column->attname))),
		                         column->atttypid);
	}
	Oid user;
	int context;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(RelationGetForm(referring)->relowner,
	                       context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	SPIPlanPtr plan = SPI_prepare(sql.data, reference->count, types);
	if (plan == nullptr || SPI_execute_snapshot(plan, values, nullptr, GetLatestSnapshot(),
	                                            InvalidSnapshot, false, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for rows that refer to another one");
	const bool found = SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	return found;
}

[[noreturn]] void RefuseMove(const Reference *reference, Relation referring, Relation relation,
                             bool changes)
{
	const char *table = RelationGetRelationName(relation),
			   *others = RelationGetRelationName(referring);
	const bool violates = changes && (reference->on_update == FKCONSTR_ACTION_NOACTION ||
	                                  reference->on_update == FKCONSTR_ACTION_RESTRICT);
	if (violates)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
		     errmsg("update or delete on table \"%s\" violates foreign key constraint \"%s\" on table \"%s\"",
		            table, reference->name, others),
		     errdetail("The row is still referenced from table \"%s\".", others),
		     errtableconstraint(referring, reference->name)));
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	     errmsg("cannot change the key of a row to one whose home is at another region"),
	     errdetail("Rows of \"%s\" refer to the row of \"%s\".", others, table),
	     errhint(
			 "In one transaction, insert the new row, let the others refer to it, and delete the old one.")));
	pg_unreachable();
}

bool ChangesKey(Relation relation, HeapTupleHeader row, Oid type, Datum new_key)
{
	const AttrNumber attnum = pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		const pg::HomedTable *table =
			catalog != nullptr ? catalog->Find(RelationGetRelid(relation)) : nullptr;
		return table != nullptr ? table->key_attnum : InvalidAttrNumber;
	});
	if (attnum == InvalidAttrNumber)
		return true;
	bool isnull;
	const Datum old_key = GetAttributeByNum(row, attnum, &isnull);
	uint8 buffers[2][8];
	const pg::KeyBytes old_bytes = pg::CanonicalKey(old_key, getBaseType(type), buffers[0]);
	const pg::KeyBytes new_bytes = pg::CanonicalKey(new_key, getBaseType(type), buffers[1]);
	return isnull || old_bytes.size != new_bytes.size ||
	       memcmp(old_bytes.data, new_bytes.data, old_bytes.size) != 0;
}

}  // namespace

bool IsReferenced(Relation relation)
{
	const TriggerDesc *triggers = relation->trigdesc;
	for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i) {
		if (IsUpdateOfReferenced(&triggers->triggers[i]))
			return true;
	}
	return false;
}

Expr *CheckUnreferenced(Relation relation, int varno, Expr *new_key)
{
	const Oid types[] = {ANYELEMENTOID, ANYOID};
	List *name = list_make2(makeString(pstrdup("homing")), makeString(pstrdup("_unreferenced")));
	Var *row =
		makeVar(varno, InvalidAttrNumber, RelationGetForm(relation)->reltype, -1, InvalidOid, 0);
	return reinterpret_cast<Expr *>(makeFuncExpr(LookupFuncName(name, 2, types, false), BOOLOID,
	                                             list_make2(row, copyObjectImpl(new_key)),
	                                             InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL));
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_unreferenced);

PGDLLEXPORT Datum homing_unreferenced(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	const Oid relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(row));
	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("row of a table expected")));
	Relation relation = table_open(relid, AccessShareLock);
	const bool changes =
		PG_ARGISNULL(1) ||
		ChangesKey(relation, row, get_fn_expr_argtype(fcinfo->flinfo, 1), PG_GETARG_DATUM(1));
	const TriggerDesc *triggers = relation->trigdesc;
	for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i) {
		const Trigger *trigger = &triggers->triggers[i];
		if (!IsUpdateOfReferenced(trigger))
			continue;
		const Reference reference = ReadReference(trigger->tgconstraint);
		Relation referring = table_open(reference.referring, AccessShareLock);
		if (HasReferring(&reference, referring, relation, row))
			RefuseMove(&reference, referring, relation, changes);
		table_close(referring, NoLock);
	}
	table_close(relation, NoLock);
	PG_RETURN_BOOL(true);
}

}  // extern "C"

}  // namespace homing::write
