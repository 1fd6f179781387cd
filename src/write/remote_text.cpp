#include "write/remote_text.hpp"

#include "pg/compat.hpp"
#include "pg/exact_text.hpp"

extern "C" {
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
}

namespace homing::write {

namespace {

struct Rewriting {
	List *params;  // of Param *, by remote number
};

[[noreturn]] void RefuseForward(const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("cannot execute this statement at another region"), errdetail("%s", what),
	                errhint("%s", hint)));
	pg_unreachable();
}

void CheckRangeTable(List *rtable)
{
	ListCell *cell;
	foreach (cell, rtable) {
		auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind == RTE_NAMEDTUPLESTORE)
			RefuseForward(psprintf("It reads the transition table \"%s\".", entry->enrname),
			              "Copy the rows into the statement's parameters, for example as an array.");
		if (entry->rtekind == RTE_RELATION && get_rel_persistence(entry->relid) == RELPERSISTENCE_TEMP)
			RefuseForward(psprintf("It uses the temporary table \"%s\", which only this session has.",
			                       get_rel_name(entry->relid)),
			              "Pass the values as parameters, or use a table that every region has.");
	}
}

void CheckChecks(List *checks)
{
	ListCell *cell;
	foreach (cell, checks) {
		auto *check = lfirst_node(WithCheckOption, cell);
		if (check->kind == WCO_VIEW_CHECK)
			RefuseForward(psprintf("It writes through the view \"%s\", which has a check option.", check->relname),
			              "Write to the table itself, or from the row's home region.");
	}
}

// With several rows of VALUES, or a query, as its source, INSERT can only name columns of the source. The
// rest is defaults that the rewriter filled in, which the home fills in itself.
void DropDefaults(Query *insert)
{
	List *kept = NIL;
	ListCell *cell;
	foreach (cell, insert->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (!IsDefault(insert, entry))
			kept = lappend(kept, entry);
	}
	insert->targetList = kept;
}

// INSERT … SELECT as text has one source column a target, in order. In the tree the target may cast one, or
// have a bare literal instead: a query around the source computes what the target wants.
void WrapSource(Query *insert)
{
	const int source = linitial_node(RangeTblRef, insert->jointree->fromlist)->rtindex;
	RangeTblEntry *rows = rt_fetch(source, insert->rtable);
	if (rows->rtekind != RTE_SUBQUERY)
		return;
	auto *around = makeNode(Query);
	around->commandType = CMD_SELECT;
	auto *inner = static_cast<RangeTblEntry *>(copyObjectImpl(rows));
	IncrementVarSublevelsUp(reinterpret_cast<Node *>(inner->subquery), 1, 1);
	inner->alias = makeAlias("source", NIL);
	inner->eref = makeAlias("source", static_cast<List *>(copyObjectImpl(rows->eref->colnames)));
	inner->inFromCl = true;
	around->rtable = list_make1(inner);
	auto *from = makeNode(RangeTblRef);
	from->rtindex = 1;
	around->jointree = makeFromExpr(list_make1(from), nullptr);
	rows->eref = makeAlias(rows->eref->aliasname, NIL);
	ListCell *cell;
	foreach (cell, insert->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		auto *expr = reinterpret_cast<Node *>(entry->expr);
		const int column = list_length(around->targetList) + 1;
		char *name = psprintf("value%d", column);
		entry->expr = reinterpret_cast<Expr *>(
			makeVar(source, column, exprType(expr), exprTypmod(expr), exprCollation(expr), 0));
		ChangeVarNodes(expr, source, 1, 0);
		around->targetList = lappend(around->targetList, makeTargetEntry(reinterpret_cast<Expr *>(expr), column, name, false));
		rows->eref->colnames = lappend(rows->eref->colnames, makeString(name));
	}
	rows->subquery = around;
}

Node *Numbered(Param *param, Rewriting *rewriting)
{
	auto *copy = static_cast<Param *>(copyObjectImpl(param));
	int number = 0;
	ListCell *cell;
	foreach (cell, rewriting->params) {
		++number;
		if (lfirst_node(Param, cell)->paramid == param->paramid)
			break;
	}
	if (cell == nullptr) {
		rewriting->params = lappend(rewriting->params, param);
		number = list_length(rewriting->params);
	}
	copy->paramid = number;
	if (IsPortableType(param->paramtype))
		return reinterpret_cast<Node *>(copy);
	return reinterpret_cast<Node *>(makeRelabelType(reinterpret_cast<Expr *>(copy), param->paramtype,
	                                                param->paramtypmod, param->paramcollid, COERCE_EXPLICIT_CAST));
}

Node *Rewrite(Node *node, void *context)
{
	if (node == nullptr)
		return nullptr;
	if (IsA(node, Query)) {
		auto *query = reinterpret_cast<Query *>(node);
		CheckRangeTable(query->rtable);
		CheckChecks(query->withCheckOptions);
		query = pg::MutateQuery(query, Rewrite, context);
		if (query->commandType == CMD_INSERT && query->jointree->fromlist != NIL) {
			DropDefaults(query);
			WrapSource(query);
		}
		return reinterpret_cast<Node *>(query);
	}
	if (IsA(node, Param) && reinterpret_cast<Param *>(node)->paramkind == PARAM_EXTERN)
		return Numbered(reinterpret_cast<Param *>(node), static_cast<Rewriting *>(context));
	if (IsA(node, CurrentOfExpr))
		RefuseForward("It uses WHERE CURRENT OF, and the cursor is here.", "Name the row by its key.");
	if (IsA(node, NextValueExpr)) {
		// An identity column: the home draws the value.
		auto *value = makeNode(SetToDefault);
		value->typeId = reinterpret_cast<NextValueExpr *>(node)->typeId;
		value->typeMod = -1;
		value->location = -1;
		return reinterpret_cast<Node *>(value);
	}
	return pg::MutateExpression(node, Rewrite, context);
}

}  // namespace

bool IsPortableType(Oid type)
{
	if (type >= FirstGenbkiObjectId)
		return false;
	switch (type) {
	// Their values are numbers of objects, which differ from database to database.
	case REGPROCOID:
	case REGPROCEDUREOID:
	case REGOPEROID:
	case REGOPERATOROID:
	case REGCLASSOID:
	case REGCOLLATIONOID:
	case REGTYPEOID:
	case REGROLEOID:
	case REGNAMESPACEOID:
	case REGCONFIGOID:
	case REGDICTIONARYOID:
	case REGPROCARRAYOID:
	case REGPROCEDUREARRAYOID:
	case REGOPERARRAYOID:
	case REGOPERATORARRAYOID:
	case REGCLASSARRAYOID:
	case REGCOLLATIONARRAYOID:
	case REGTYPEARRAYOID:
	case REGROLEARRAYOID:
	case REGNAMESPACEARRAYOID:
	case REGCONFIGARRAYOID:
	case REGDICTIONARYARRAYOID:
	case RECORDOID:
	case RECORDARRAYOID:
	case UNKNOWNOID:
		return false;
	default:
		return true;
	}
}

bool IsDefault(Query *insert, TargetEntry *entry)
{
	if (contain_vars_of_level(reinterpret_cast<Node *>(entry->expr), 0))
		return false;
	if (IsA(entry->expr, SetToDefault) || IsA(entry->expr, NextValueExpr))
		return true;
	Relation relation = table_open(rt_fetch(insert->resultRelation, insert->rtable)->relid, NoLock);
	Node *value = build_column_default(relation, entry->resno);
	table_close(relation, NoLock);
	return value != nullptr && equal(value, entry->expr);
}

bool AllPortable(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; ++i) {
		if (!IsPortableType(TupleDescAttr(desc, i)->atttypid))
			return false;
	}
	return true;
}

RemoteText DeparseForRegion(Query *query)
{
	Rewriting rewriting{NIL};
	auto *rewritten =
		reinterpret_cast<Query *>(Rewrite(static_cast<Node *>(copyObjectImpl(query)), &rewriting));

	// Names are printed as the search path needs them.
	const int nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	RemoteText text{};
	text.sql = pg::WithExactText(
		[](void *argument) { return pg_get_querydef(static_cast<Query *>(argument), false); }, rewritten);
	AtEOXact_GUC(true, nest_level);

	text.param_count = list_length(rewriting.params);
	text.params = static_cast<RemoteParam *>(palloc0(sizeof(RemoteParam) * (text.param_count + 1)));
	ListCell *cell;
	int i = 0;
	foreach (cell, rewriting.params) {
		auto *param = lfirst_node(Param, cell);
		text.params[i++] = {param->paramid, param->paramtype, IsPortableType(param->paramtype)};
	}
	return text;
}

}  // namespace homing::write
