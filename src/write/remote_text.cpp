#include "write/remote_text.hpp"

#include "pg/compat.hpp"
#include "pg/exact_text.hpp"
#include "write/check_option.hpp"
#include "write/issued.hpp"
#include "write/portable_type.hpp"

extern "C" {
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "rewrite/rowsecurity.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
}

namespace homing::write {

namespace {

struct Rewriting {
	List *params;  // of Param *, by remote number
};

[[noreturn]] void RefuseForward(const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("cannot execute this statement at another region"),
	                errdetail("%s", what), errhint("%s", hint)));
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
		if (entry->rtekind == RTE_RELATION &&
		    get_rel_persistence(entry->relid) == RELPERSISTENCE_TEMP)
			RefuseForward(psprintf("It uses the temporary table \"%s\", which only this session has.",
			                       get_rel_name(entry->relid)),
			              "Pass the values as parameters, or use a table that every region has.");
	}
}

// Defaults that the rewriter filled in, which the home fills in itself: the user may have no right to set those columns,
// and with several rows of VALUES, or a query, as its source, INSERT can only name columns of the source.
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

// --- targets ----------------------------------------------------------------------------------------------

// An entry that assigns to fields or elements of its column holds a tree of them.
bool IsPartialAssignment(Expr *expr)
{
	while (IsA(expr, CoerceToDomain))
		expr = reinterpret_cast<CoerceToDomain *>(expr)->arg;
	return IsA(expr, FieldStore) ||
	       (IsA(expr, SubscriptingRef) &&
	        reinterpret_cast<SubscriptingRef *>(expr)->refassgnexpr != nullptr);
}

// Where the assigned value stands in an entry made by SplitTargets.
Expr **AssignedValue(TargetEntry *entry)
{
	Expr **slot = &entry->expr;
	while (IsPartialAssignment(*slot)) {
		if (IsA(*slot, FieldStore))
			slot =
				reinterpret_cast<Expr **>(&linitial(reinterpret_cast<FieldStore *>(*slot)->newvals));
		else if (IsA(*slot, SubscriptingRef))
			slot = &reinterpret_cast<SubscriptingRef *>(*slot)->refassgnexpr;
		else
			slot = &reinterpret_cast<CoerceToDomain *>(*slot)->arg;
	}
	return slot;
}

TargetEntry *WithExpr(TargetEntry *entry, void *expr)
{
	auto *copy = flatCopyTargetEntry(entry);
	copy->expr = static_cast<Expr *>(expr);
	return copy;
}

// The rewriter merges "c.x = 1, c.y = 2" into one entry, of which the text would show the first part only.
List *SplitTargets(List *targets)
{
	List *split = NIL;
	ListCell *cell;
	foreach (cell, targets) {
		auto *entry = lfirst_node(TargetEntry, cell);
		List *parts = NIL;
		Expr *expr = entry->expr;
		while (IsPartialAssignment(expr)) {
			while (IsA(expr, CoerceToDomain))
				expr = reinterpret_cast<CoerceToDomain *>(expr)->arg;
			if (IsA(expr, SubscriptingRef)) {
				parts = lcons(WithExpr(entry, expr), parts);
				expr = reinterpret_cast<SubscriptingRef *>(expr)->refexpr;
				continue;
			}
			auto *store = reinterpret_cast<FieldStore *>(expr);
			List *fields = NIL;
			ListCell *value, *number;
			forboth(value, store->newvals, number, store->fieldnums)
			{
				auto *one = makeNode(FieldStore);
				*one = *store;
				one->newvals = list_make1(lfirst(value));
				one->fieldnums = list_make1_int(lfirst_int(number));
				fields = lappend(fields, WithExpr(entry, one));
			}
			parts = list_concat(fields, parts);
			expr = store->arg;
		}
		split = list_concat(split, parts != NIL ? parts : list_make1(entry));
	}
	return split;
}

// The number of a column of "(a, b) = (SELECT …)", or 0.
bool FindMultiAssign(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Param) && reinterpret_cast<Param *>(node)->paramkind == PARAM_MULTIEXPR) {
		*static_cast<int *>(context) = reinterpret_cast<Param *>(node)->paramid;
		return true;
	}
	return pg::WalkExpression(node, FindMultiAssign, context);
}

int CompareMultiAssign(const ListCell *a, const ListCell *b)
{
	int left = 0, right = 0;
	(void) FindMultiAssign(static_cast<Node *>(lfirst(a)), &left);
	(void) FindMultiAssign(static_cast<Node *>(lfirst(b)), &right);
	return left - right;
}

// The targets of an UPDATE in the order in which they can be written as text: the rewriter has sorted the
// columns of one subquery.
List *WritableTargets(List *targets)
{
	targets = SplitTargets(targets);
	list_sort(targets, CompareMultiAssign);
	return targets;
}

// --- sources ----------------------------------------------------------------------------------------------

// Names for the columns of a source that nothing else can mean.
List *ColumnNames(const char *prefix, int count)
{
	List *names = NIL;
	for (int i = 1; i <= count; ++i)
		names = lappend(names, makeString(psprintf("%s%d", prefix, i)));
	return names;
}

Expr *SourceColumn(Node *value, int source, int column)
{
	return reinterpret_cast<Expr *>(
		makeVar(source, column, exprType(value), exprTypmod(value), exprCollation(value), 0));
}

// INSERT … SELECT: the target may cast a column of the source, or have a bare literal instead of one. A
// query around the source computes what the target wants.
void WrapSource(Query *insert, int source, RangeTblEntry *rows)
{
	auto *around = makeNode(Query);
	around->commandType = CMD_SELECT;
	auto *inner = static_cast<RangeTblEntry *>(copyObjectImpl(rows));
	IncrementVarSublevelsUp(reinterpret_cast<Node *>(inner->subquery), 1, 1);
	// The names are given, not taken from the source, whose columns may be called anything.
	List *names = ColumnNames("c", ExecCleanTargetListLength(rows->subquery->targetList));
	inner->alias = makeAlias("source", names);
	inner->eref = makeAlias("source", static_cast<List *>(copyObjectImpl(names)));
	inner->inFromCl = true;
	around->rtable = list_make1(inner);
	auto *from = makeNode(RangeTblRef);
	from->rtindex = 1;
	around->jointree = makeFromExpr(list_make1(from), nullptr);
	rows->eref =
		makeAlias(rows->eref->aliasname, ColumnNames("value", list_length(insert->targetList)));
	ListCell *cell;
	foreach (cell, insert->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		Expr **value = AssignedValue(entry);
		auto *expr = reinterpret_cast<Node *>(*value);
		const int column = list_length(around->targetList) + 1;
		*value = SourceColumn(expr, source, column);
		ChangeVarNodes(expr, source, 1, 0);
		around->targetList =
			lappend(around->targetList, makeTargetEntry(reinterpret_cast<Expr *>(expr), column,
		                                                psprintf("value%d", column), false));
	}
	rows->subquery = around;
}

struct ValuesRow {
	int source;
	List *values;
};

Node *TakeFromRow(Node *node, void *context)
{
	if (node == nullptr)
		return nullptr;
	const auto *row = static_cast<ValuesRow *>(context);
	if (IsA(node, Var) && reinterpret_cast<Var *>(node)->varno == row->source &&
	    reinterpret_cast<Var *>(node)->varlevelsup == 0)
		return static_cast<Node *>(
			copyObjectImpl(list_nth(row->values, reinterpret_cast<Var *>(node)->varattno - 1)));
	return pg::MutateExpression(node, TakeFromRow, context);
}

// INSERT … VALUES with several rows: the rewriter has sorted the targets and left VALUES as they were.
// Gives VALUES one column a target.
void SortValues(Query *insert, int source, RangeTblEntry *rows)
{
	List *types = NIL, *typmods = NIL, *collations = NIL;
	ListCell *cell;
	foreach (cell, rows->values_lists) {
		ValuesRow row{source, lfirst_node(List, cell)};
		List *sorted = NIL;
		ListCell *target;
		foreach (target, insert->targetList)
			sorted = lappend(sorted, TakeFromRow(reinterpret_cast<Node *>(*AssignedValue(
													 lfirst_node(TargetEntry, target))),
			                                     &row));
		lfirst(cell) = sorted;
	}
	foreach (cell, insert->targetList) {
		Expr **value = AssignedValue(lfirst_node(TargetEntry, cell));
		auto *expr = reinterpret_cast<Node *>(*value);
		types = lappend_oid(types, exprType(expr));
		typmods = lappend_int(typmods, exprTypmod(expr));
		collations = lappend_oid(collations, exprCollation(expr));
		*value = SourceColumn(expr, source, foreach_current_index(cell) + 1);
	}
	rows->coltypes = types;
	rows->coltypmods = typmods;
	rows->colcollations = collations;
	rows->eref =
		makeAlias(rows->eref->aliasname, ColumnNames("column", list_length(insert->targetList)));
}

// INSERT as text has one source column a target, in order. In the tree it need not be so.
void MatchSource(Query *insert)
{
	if (!IsA(linitial(insert->jointree->fromlist), RangeTblRef))
		return;
	const int source = linitial_node(RangeTblRef, insert->jointree->fromlist)->rtindex;
	RangeTblEntry *rows = rt_fetch(source, insert->rtable);
	if (rows->rtekind == RTE_SUBQUERY)
		WrapSource(insert, source, rows);
	else if (rows->rtekind == RTE_VALUES)
		SortValues(insert, source, rows);
}

// The conditions of a view with security_barrier stand beside the table, behind those of row security, of which
// the home has its own. As text they are conditions like others: whoever sends it may read the table.
void ShowBarriers(Query *query)
{
	RangeTblEntry *entry = rt_fetch(query->resultRelation, query->rtable);
	if (entry->rtekind != RTE_RELATION || entry->securityQuals == NIL)
		return;
	List *policies = NIL, *checks = NIL;
	bool has_policies = false, has_sublinks = false;
	if (query->hasRowSecurity)
		get_row_security_policies(query, entry, query->resultRelation, &policies, &checks,
		                          &has_policies, &has_sublinks);
	List *barriers = list_copy_tail(static_cast<List *>(copyObjectImpl(entry->securityQuals)),
	                                list_length(policies));
	if (barriers == NIL)
		return;
	if (query->jointree->quals != nullptr)
		barriers = lappend(barriers, query->jointree->quals);
	query->jointree->quals = reinterpret_cast<Node *>(make_ands_explicit(barriers));
}

// Undoes what the rewriter does to a tree that its text cannot show.
void MakeWritable(Query *query)
{
	ListCell *cell;
	if (query->commandType == CMD_UPDATE || query->commandType == CMD_DELETE)
		ShowBarriers(query);
	// The table behind a view stands in the FROM of the view.
	if (query->resultRelation > 0)
		rt_fetch(query->resultRelation, query->rtable)->inFromCl = false;
	switch (query->commandType) {
	case CMD_UPDATE:
		query->targetList = WritableTargets(query->targetList);
		break;
	case CMD_MERGE:
		foreach (cell, query->mergeActionList) {
			auto *action = lfirst_node(MergeAction, cell);
			action->targetList = WritableTargets(action->targetList);
		}
		break;
	case CMD_INSERT:
		if (query->onConflict != nullptr)
			query->onConflict->onConflictSet = WritableTargets(query->onConflict->onConflictSet);
		DropDefaults(query);
		query->targetList = SplitTargets(query->targetList);
		if (query->jointree->fromlist != NIL)
			MatchSource(query);
		break;
	default:
		break;
	}
}

// --- results ----------------------------------------------------------------------------------------------

Expr *ExactText(Expr *value)
{
	const Oid types[] = {ANYELEMENTOID};
	List *name = list_make2(makeString(pstrdup("homing")), makeString(pstrdup("_exact_text")));
	return reinterpret_cast<Expr *>(makeFuncExpr(LookupFuncName(name, 1, types, false), TEXTOID,
	                                             list_make1(value), DEFAULT_COLLATION_OID,
	                                             InvalidOid, COERCE_EXPLICIT_CALL));
}

bool IsToBeText(const TargetEntry *entry)
{
	return !entry->resjunk && !IsPortableInBinary(exprType(reinterpret_cast<Node *>(entry->expr)));
}

// SELECT … FROM (query): for a query whose columns decide which rows it has.
Query *Around(Query *query)
{
	auto *around = makeNode(Query);
	around->commandType = CMD_SELECT;
	auto *source = makeNode(RangeTblEntry);
	source->rtekind = RTE_SUBQUERY;
	source->subquery = query;
	source->inFromCl = true;
	List *names = ColumnNames("c", ExecCleanTargetListLength(query->targetList));
	source->alias = makeAlias("source", names);
	source->eref = makeAlias("source", names);
	around->rtable = list_make1(source);
	auto *from = makeNode(RangeTblRef);
	from->rtindex = 1;
	around->jointree = makeFromExpr(list_make1(from), nullptr);
	IncrementVarSublevelsUp(reinterpret_cast<Node *>(query), 1, 1);
	ListCell *cell;
	foreach (cell, query->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (entry->resjunk)
			continue;
		const int column = list_length(around->targetList) + 1;
		Expr *value = SourceColumn(reinterpret_cast<Node *>(entry->expr), 1, column);
		around->targetList = lappend(around->targetList,
		                             makeTargetEntry(value, column, psprintf("c%d", column), false));
	}
	return around;
}

// The result travels in binary form, which no setting changes. Columns that have none that every database
// understands are converted to text.
Query *WithPortableColumns(Query *query)
{
	const bool select = query->commandType == CMD_SELECT;
	ListCell *cell;
	bool any = false;
	foreach (cell, select ? query->targetList : query->returningList)
		any = any || IsToBeText(lfirst_node(TargetEntry, cell));
	if (!any)
		return query;
	if (select && (query->distinctClause != NIL || query->setOperations != nullptr))
		query = Around(query);
	List *columns = select ? query->targetList : query->returningList, *sorted_by = NIL;
	foreach (cell, columns) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (!IsToBeText(entry))
			continue;
		if (entry->ressortgroupref != 0) {
			TargetEntry *key = flatCopyTargetEntry(entry);
			key->resjunk = true;
			sorted_by = lappend(sorted_by, key);
			entry->ressortgroupref = 0;
		}
		entry->expr = ExactText(entry->expr);
	}
	columns = list_concat(columns, sorted_by);
	for (int i = 0; i < list_length(columns); ++i)
		list_nth_node(TargetEntry, columns, i)->resno = i + 1;
	(select ? query->targetList : query->returningList) = columns;
	return query;
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
	return reinterpret_cast<Node *>(makeRelabelType(reinterpret_cast<Expr *>(copy),
	                                                param->paramtype, param->paramtypmod,
	                                                param->paramcollid, COERCE_EXPLICIT_CAST));
}

Node *Rewrite(Node *node, void *context)
{
	if (node == nullptr)
		return nullptr;
	if (IsA(node, Query)) {
		auto *query = reinterpret_cast<Query *>(node);
		CheckRangeTable(query->rtable);
		CheckRowsInReturning(query);
		query = pg::MutateQuery(query, Rewrite, context);
		HideIssued(query);
		MakeWritable(query);
		return reinterpret_cast<Node *>(query);
	}
	if (IsA(node, Param) && reinterpret_cast<Param *>(node)->paramkind == PARAM_EXTERN)
		return Numbered(reinterpret_cast<Param *>(node), static_cast<Rewriting *>(context));
	if (IsA(node, CurrentOfExpr))
		RefuseForward("It uses WHERE CURRENT OF, and the cursor is here.",
		              "Name the row by its key.");
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

RemoteText DeparseForRegion(Query *query)
{
	Rewriting rewriting{NIL};
	auto *rewritten =
		reinterpret_cast<Query *>(Rewrite(static_cast<Node *>(copyObjectImpl(query)), &rewriting));
	rewritten = WithPortableColumns(rewritten);

	// Names are printed as the search path needs them.
	const int nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
	                         0, false);
	RemoteText text{};
	text.sql = pg::WithExactText(
		[](void *argument) { return pg_get_querydef(static_cast<Query *>(argument), false); },
		rewritten);
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

namespace {

int names_generation = 0;

// The text names what has no entry in a plan's dependencies: types, enum labels, collations and the like. A
// schema or operator that is changed ends every plan.
void OnNameChanged(Datum, int, uint32)
{
	++names_generation;
}

List *Keep(const RemoteText *text)
{
	List *params = NIL;
	for (int i = 0; i < text->param_count; ++i) {
		const RemoteParam *param = &text->params[i];
		params = lappend(params, list_make3_int(param->number, static_cast<int>(param->type),
		                                        param->typed ? 1 : 0));
	}
	return list_make3(makeInteger(names_generation), makeString(pstrdup(text->sql)), params);
}

}  // namespace

RemoteText KeptText(Query *query, ListCell *kept, MemoryContext context)
{
	auto *known = static_cast<List *>(lfirst(kept));
	if (known == NIL || intVal(linitial(known)) != names_generation) {
		const RemoteText made = DeparseForRegion(query);
		MemoryContext old = MemoryContextSwitchTo(context);
		known = Keep(&made);
		lfirst(kept) = known;
		MemoryContextSwitchTo(old);
		return made;
	}
	auto *params = lthird_node(List, known);
	RemoteText text{};
	text.sql = strVal(lsecond(known));
	text.param_count = list_length(params);
	text.params = static_cast<RemoteParam *>(palloc(sizeof(RemoteParam) * (text.param_count + 1)));
	for (int i = 0; i < text.param_count; ++i) {
		const auto *param = static_cast<List *>(list_nth(params, i));
		text.params[i] = {linitial_int(param), static_cast<Oid>(lsecond_int(param)),
		                  lthird_int(param) != 0};
	}
	return text;
}

void RegisterRemoteText()
{
	for (const int cache : {TYPEOID, ENUMOID, COLLOID, PROCOID, TSCONFIGOID, TSDICTOID, AUTHOID})
		CacheRegisterSyscacheCallback(cache, OnNameChanged, 0);
}

}  // namespace homing::write
