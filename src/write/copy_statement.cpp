#include "write/copy_statement.hpp"

#include <cstring>

extern "C" {
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/copy.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
}

namespace homing::write {

namespace {

// --- as core's DoCopy ---------------------------------------------------------------------------------------

void CheckSource(const CopyStmt *copy)
{
	if (copy->filename == nullptr)
		return;
	if (copy->is_program && !has_privs_of_role(GetUserId(), ROLE_PG_EXECUTE_SERVER_PROGRAM))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		     errmsg("must be superuser or have privileges of the pg_execute_server_program role to COPY "
		            "to or from an external program"),
		     errhint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for "
		             "anyone.")));
	if (!copy->is_program && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		     errmsg("must be superuser or have privileges of the pg_read_server_files role to COPY from a "
		            "file"),
		     errhint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for "
		             "anyone.")));
}

void CheckNoGenerated(Relation relation, Node *condition)
{
	Bitmapset *used = nullptr;
	TupleDesc desc = RelationGetDescr(relation);
	pull_varattnos(condition, 1, &used);
	const bool whole_row = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used);
	for (int attnum = 1; attnum <= desc->natts; ++attnum) {
		Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
		if (attribute->attgenerated != '\0' &&
		    (whole_row || bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, used)))
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
			         errmsg("generated columns are not supported in COPY FROM WHERE conditions"),
			         errdetail("Column \"%s\" is a generated column.", NameStr(attribute->attname))));
	}
}

void AddCondition(ParseState *pstate, const CopyStmt *copy, ParseNamespaceItem *item,
                  CopyTarget *target)
{
	addNSItemToQuery(pstate, item, false, true, true);
	Node *condition = transformExpr(pstate, copy->whereClause, EXPR_KIND_COPY_WHERE);
	condition = coerce_to_boolean(pstate, condition, "WHERE");
	assign_expr_collations(pstate, condition);
	CheckNoGenerated(target->relation, condition);
	target->condition = static_cast<Node *>(copyObjectImpl(condition));
	condition = eval_const_expressions(nullptr, condition);
	target->where =
		make_ands_implicit(canonicalize_qual(reinterpret_cast<Expr *>(condition), false));
}

void CheckPermissions(ParseState *pstate, ParseNamespaceItem *item, const CopyTarget *target)
{
#if PG_VERSION_NUM < 160000
	RangeTblEntry *checked = item->p_rte;
#else
	RTEPermissionInfo *checked = item->p_perminfo;
#endif
	checked->requiredPerms = ACL_INSERT;
	ListCell *cell;
	foreach (cell, target->attnums)
		checked->insertedCols =
			bms_add_member(checked->insertedCols,
		                   lfirst_int(cell) - FirstLowInvalidHeapAttributeNumber);
#if PG_VERSION_NUM < 160000
	(void) ExecCheckRTPerms(pstate->p_rtable, true);
#else
	(void) ExecCheckPermissions(pstate->p_rtable, list_make1(checked), true);
#endif
	if (check_enable_rls(RelationGetRelid(target->relation), InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("COPY FROM not supported with row-level security"),
		                errhint("Use INSERT statements instead.")));
}

// --- options --------------------------------------------------------------------------------------------------

List *OptionsWithout(const CopyStmt *copy, bool with_header)
{
	List *options = NIL;
	ListCell *cell;
	foreach (cell, copy->options) {
		auto *option = lfirst_node(DefElem, cell);
		const bool about_source = std::strcmp(option->defname, "header") == 0 ||
		                          std::strcmp(option->defname, "encoding") == 0;
		if (std::strcmp(option->defname, kNumberedRows) != 0 && (with_header || !about_source))
			options = lappend(options, option);
	}
	return options;
}

void AppendValue(StringInfo sql, Node *value)
{
	if (IsA(value, List)) {
		const char *separator = "(";
		ListCell *cell;
		foreach (cell, reinterpret_cast<List *>(value)) {
			appendStringInfo(sql, "%s%s", separator, quote_identifier(strVal(lfirst(cell))));
			separator = ", ";
		}
		appendStringInfoChar(sql, ')');
	} else if (IsA(value, A_Star)) {
		appendStringInfoChar(sql, '*');
	} else if (IsA(value, String)) {
		appendStringInfoString(sql, quote_literal_cstr(strVal(value)));
	} else {
		DefElem option{};
		option.arg = value;
		appendStringInfoString(sql, defGetString(&option));
	}
}

char *ConditionText(const CopyTarget *target)
{
	const int nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
	                         0, false);
	(void) set_config_option("extra_float_digits", "3", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
	                         true, 0, false);
	char *text = deparse_expression(target->condition,
	                                deparse_context_for(RelationGetRelationName(target->relation),
	                                                    RelationGetRelid(target->relation)),
	                                false, false);
	AtEOXact_GUC(true, nest_level);
	return text;
}

}  // namespace

CopyTarget OpenCopyTarget(ParseState *pstate, const CopyStmt *copy)
{
	CopyTarget target{};
	CheckSource(copy);
	target.relation = table_openrv(copy->relation, RowExclusiveLock);
	ParseNamespaceItem *item =
		addRangeTableEntryForRelation(pstate, target.relation, RowExclusiveLock, nullptr, false,
	                                  false);
	if (copy->whereClause != nullptr)
		AddCondition(pstate, copy, item, &target);
	target.attnums =
		CopyGetAttnums(RelationGetDescr(target.relation), target.relation, copy->attlist);
	CheckPermissions(pstate, item, &target);
	if (XactReadOnly && !target.relation->rd_islocaltemp)
		PreventCommandIfReadOnly("COPY FROM");
	return target;
}

bool HasNumberedRows(const CopyStmt *copy)
{
	ListCell *cell;
	foreach (cell, copy->options) {
		if (std::strcmp(lfirst_node(DefElem, cell)->defname, kNumberedRows) == 0)
			return true;
	}
	return false;
}

List *SourceOptions(const CopyStmt *copy)
{
	return OptionsWithout(copy, true);
}

List *RowOptions(const CopyStmt *copy)
{
	Node *encoding = reinterpret_cast<Node *>(makeString(pstrdup(GetDatabaseEncodingName())));
	return lappend(OptionsWithout(copy, false), makeDefElem(pstrdup("encoding"), encoding, -1));
}

char *RemoteCopy(const CopyTarget *target, const CopyStmt *copy, List *columns)
{
	StringInfoData sql;
	initStringInfo(&sql);
	appendStringInfo(&sql, "COPY %s (",
	                 quote_qualified_identifier(get_namespace_name(
													RelationGetNamespace(target->relation)),
	                                            RelationGetRelationName(target->relation)));
	const char *separator = "";
	ListCell *cell;
	foreach (cell, columns) {
		appendStringInfo(&sql, "%s%s", separator, quote_identifier(strVal(lfirst(cell))));
		separator = ", ";
	}
	appendStringInfo(&sql, ") FROM STDIN WITH (%s", kNumberedRows);
	foreach (cell, RowOptions(copy)) {
		auto *option = lfirst_node(DefElem, cell);
		appendStringInfo(&sql, ", %s ", quote_identifier(option->defname));
		if (option->arg != nullptr)
			AppendValue(&sql, option->arg);
	}
	appendStringInfoChar(&sql, ')');
	if (target->condition != nullptr)
		appendStringInfo(&sql, " WHERE %s", ConditionText(target));
	return sql.data;
}

}  // namespace homing::write
