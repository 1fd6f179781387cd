#include "write/check_option.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/typcache.h"
}

namespace homing::write {

namespace {

// homing._check_option(view, condition, row)
Expr *CheckOf(Query *query, const WithCheckOption *check)
{
	const Oid types[] = {TEXTOID, BOOLOID, RECORDOID};
	List *name = list_make2(makeString(pstrdup("homing")), makeString(pstrdup("_check_option")));
	auto *view = makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
	                       CStringGetTextDatum(check->relname), false, false);
	Var *row = makeWholeRowVar(rt_fetch(query->resultRelation, query->rtable),
	                           query->resultRelation, 0, false);
	return reinterpret_cast<Expr *>(makeFuncExpr(LookupFuncName(name, 3, types, false), BOOLOID,
	                                             list_make3(view, check->qual, row), InvalidOid,
	                                             InvalidOid, COERCE_EXPLICIT_CALL));
}

// Whoever may read the rows through this statement may also see the one that fails.
char *FailingRow(HeapTupleHeader tuple)
{
	constexpr int kLongestValue = 64;  // bytes, as in core's message
	TupleDesc desc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(tuple), HeapTupleHeaderGetTypMod(tuple));
	HeapTupleData row{};
	row.t_len = HeapTupleHeaderGetDatumLength(tuple);
	row.t_data = tuple;
	StringInfoData text;
	initStringInfo(&text);
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		if (attribute->attisdropped)
			continue;
		appendStringInfoString(&text, text.len == 0 ? "(" : ", ");
		bool isnull;
		const Datum value = heap_getattr(&row, i + 1, desc, &isnull);
		Oid output;
		bool is_varlena;
		getTypeOutputInfo(attribute->atttypid, &output, &is_varlena);
		const char *printed = isnull ? "null" : OidOutputFunctionCall(output, value);
		const int size = static_cast<int>(strlen(printed));
		if (size <= kLongestValue)
			appendStringInfoString(&text, printed);
		else {
			appendBinaryStringInfo(&text, printed, pg_mbcliplen(printed, size, kLongestValue));
			appendStringInfoString(&text, "...");
		}
	}
	appendStringInfoChar(&text, ')');
	ReleaseTupleDesc(desc);
	return text.data;
}

}  // namespace

void CheckRowsInReturning(Query *query)
{
	List *checks = NIL;
	ListCell *cell;
	foreach (cell, query->withCheckOptions) {
		auto *check = lfirst_node(WithCheckOption, cell);
		if (check->kind == WCO_VIEW_CHECK && check->qual != nullptr)
			checks = lappend(checks, CheckOf(query, check));
	}
	if (checks == NIL)
		return;
	auto *all =
		list_length(checks) == 1 ? linitial_node(Expr, checks) : makeBoolExpr(AND_EXPR, checks, -1);
	query->hasSubLinks = query->hasSubLinks || checkExprHasSubLink(reinterpret_cast<Node *>(all));
	if (query->returningList == NIL) {
		query->returningList = list_make1(makeTargetEntry(all, 1, pstrdup("checked"), false));
		return;
	}
	// A check that fails raises an error: the value is the column's.
	auto *entry = linitial_node(TargetEntry, query->returningList);
	auto *value = reinterpret_cast<Node *>(entry->expr);
	auto *when = makeNode(CaseWhen);
	when->expr = all;
	when->result = entry->expr;
	when->location = -1;
	auto *checked = makeNode(CaseExpr);
	checked->casetype = exprType(value);
	checked->casecollid = exprCollation(value);
	checked->args = list_make1(when);
	checked->defresult = reinterpret_cast<Expr *>(
		makeNullConst(exprType(value), exprTypmod(value), exprCollation(value)));
	checked->location = -1;
	entry->expr = reinterpret_cast<Expr *>(checked);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_check_option);

// A condition that is NULL is not fulfilled, as the row cannot be seen through the view.
PGDLLEXPORT Datum homing_check_option(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1) && PG_GETARG_BOOL(1))
		PG_RETURN_BOOL(true);
	const char *view = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));
	HeapTupleHeader row = PG_ARGISNULL(2) ? nullptr : PG_GETARG_HEAPTUPLEHEADER(2);
	const Oid table = row != nullptr ? get_typ_typrelid(HeapTupleHeaderGetTypeId(row)) : InvalidOid;
	const bool shown = OidIsValid(table) && check_enable_rls(table, InvalidOid, true) != RLS_ENABLED;
	ereport(ERROR, (errcode(ERRCODE_WITH_CHECK_OPTION_VIOLATION),
	                errmsg("new row violates check option for view \"%s\"", view),
	                shown ? errdetail("Failing row contains %s.", FailingRow(row)) : 0));
}

}  // extern "C"

}  // namespace homing::write
