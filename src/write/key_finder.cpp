#include "write/key_finder.hpp"

#include "pg/compat.hpp"
#include "write/issued.hpp"
#include "write/key_conditions.hpp"
#include "write/remote_text.hpp"
#include "write/row_locks.hpp"
#include "write/statement_params.hpp"

extern "C" {
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"
}

namespace homing::write {

namespace {

// --- parameters ------------------------------------------------------------------------------------

// Hands out parameter numbers that the statement does not use.
struct ParamNumbers {
	Query *query;
	ParamListInfo bound;
	int last;  // 0: not looked for yet

	int Next()
	{
		if (last == 0)
			last = HighestParam(query, bound);
		return ++last;
	}
};

// --- INSERT --------------------------------------------------------------------------------------------

// Prepares the expression of one inserted key. What could differ between here and the home is evaluated
// once, here, and becomes a parameter.
Node *RouteInserted(Node *node, WriteTarget *target, ParamNumbers *numbers)
{
	if (contain_var_clause(node) || contain_agg_clause(node) || checkExprHasSubLink(node) ||
	    expression_returns_set(node)) {
		target->unproved = "The key of the inserted row is computed by a subquery.";
		return node;
	}
	KeySource *source = MakeSource(node, SourceKind::kKey);
	target->sources = lappend(target->sources, source);
	if (!contain_mutable_functions(node))
		return node;
	source->param = numbers->Next();
	DropIssued(numbers->query);
	auto *param = makeNode(Param);
	param->paramkind = PARAM_EXTERN;
	param->paramid = source->param;
	param->paramtype = exprType(node);
	param->paramtypmod = exprTypmod(node);
	param->paramcollid = exprCollation(node);
	param->location = -1;
	return reinterpret_cast<Node *>(param);
}

TargetEntry *EntryOf(Query *query, AttrNumber attnum)
{
	ListCell *cell;
	foreach (cell, query->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (entry->resno == attnum && !entry->resjunk)
			return entry;
	}
	return nullptr;
}

RangeTblEntry *SourceRows(Query *query, int *varno)
{
	if (list_length(query->jointree->fromlist) != 1 ||
	    !IsA(linitial(query->jointree->fromlist), RangeTblRef))
		return nullptr;
	*varno = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
	return rt_fetch(*varno, query->rtable);
}

// The rows come from VALUES with several rows, and the key from a column that VALUES does not have (a
// default): gives VALUES that column.
void AddValuesColumn(RangeTblEntry *values, int varno, TargetEntry *entry, WriteTarget *target,
                     ParamNumbers *numbers)
{
	ListCell *cell;
	foreach (cell, values->values_lists) {
		auto *row = lfirst_node(List, cell);
		Node *key = static_cast<Node *>(copyObjectImpl(entry->expr));
		lfirst(cell) = lappend(row, RouteInserted(key, target, numbers));
	}
	auto *expr = reinterpret_cast<Node *>(entry->expr);
	const Oid type = exprType(expr), collation = exprCollation(expr);
	const int32 typmod = exprTypmod(expr);
	values->coltypes = lappend_oid(values->coltypes, type);
	values->coltypmods = lappend_int(values->coltypmods, typmod);
	values->colcollations = lappend_oid(values->colcollations, collation);
	values->eref->colnames = lappend(values->eref->colnames, makeString(pstrdup("key")));
	entry->expr = reinterpret_cast<Expr *>(
		makeVar(varno, list_length(values->coltypes), type, typmod, collation, 0));
}

struct SourceTables {
	int homed;
	bool other;  // tables that another region may not have, or have with other rows
};

bool FindSourceTables(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Query))
		return pg::WalkQuery(reinterpret_cast<Query *>(node), FindSourceTables, context,
		                     QTW_EXAMINE_RTES_BEFORE);
	if (!IsA(node, RangeTblEntry))
		return pg::WalkExpression(node, FindSourceTables, context);
	auto *entry = reinterpret_cast<RangeTblEntry *>(node);
	auto *found = static_cast<SourceTables *>(context);
	if (entry->rtekind == RTE_RELATION) {
		if (pg::CurrentCatalog()->Find(entry->relid) != nullptr)
			++found->homed;
		else if (entry->relkind != RELKIND_VIEW)
			found->other = true;
	} else if (entry->rtekind == RTE_NAMEDTUPLESTORE) {
		found->other = true;
	}
	return false;
}

// Whether the rows to be inserted are computed from homed tables only.
bool SelectsFromHomed(Query *insert)
{
	SourceTables found{};
	(void) FindSourceTables(reinterpret_cast<Node *>(insert), &found);
	return found.homed > 1 && !found.other;
}

// The keys that the conditions of a subquery allow for one of its columns. NIL: any.
List *FindInSubquery(const RangeTblEntry *rows, AttrNumber attnum, Key key)
{
	if (rows->rtekind != RTE_SUBQUERY || attnum <= 0)
		return NIL;
	Query *subquery = rows->subquery;
	if (subquery->commandType != CMD_SELECT || subquery->setOperations != nullptr)
		return NIL;
	Node *value = StripRelabel(reinterpret_cast<Node *>(
		list_nth_node(TargetEntry, subquery->targetList, attnum - 1)->expr));
	if (!IsA(value, Var) || reinterpret_cast<Var *>(value)->varlevelsup != 0 ||
	    reinterpret_cast<Var *>(value)->varattno <= 0)
		return NIL;
	auto *column = reinterpret_cast<Var *>(value);
	key.attnum = column->varattno;
	List *columns;
	List *sources = FindInConditions(subquery, column->varno, &key, &columns);
	if (sources == NIL)
		sources = FindInSubquery(rt_fetch(column->varno, subquery->rtable), column->varattno, key);
	return sources;
}

// INSERT … SELECT: the key may be known beforehand.
void FindSelected(Query *query, RangeTblEntry *rows, TargetEntry *entry, const Key *key,
                  WriteTarget *target)
{
	if (rows != nullptr && rows->rtekind == RTE_SUBQUERY)
		target->sharing = SelectsFromHomed(query) ? Sharing::kSelectThere : Sharing::kSelect;
	Node *expr = StripRelabel(reinterpret_cast<Node *>(entry->expr));
	if (IsKnownAtStart(expr)) {
		target->sources = list_make1(MakeSource(expr, SourceKind::kKey));
		return;
	}
	if (IsA(expr, Var)) {
		auto *column = reinterpret_cast<Var *>(expr);
		if (AddSpelledOut(column, query->rtable, &target->sources))
			return;
		target->sources = NIL;
		if (rows != nullptr)
			target->sources = FindInSubquery(rows, column->varattno, *key);
	}
	if (target->sources == NIL)
		target->unproved = "The keys of the inserted rows are computed by a query.";
}

// INSERT … SELECT _routed(…) …: rows that another region routed here.
bool IsRoutedBatch(Query *query, TargetEntry *entry, WriteTarget *target)
{
	Node *value = StripRelabel(reinterpret_cast<Node *>(entry->expr));
	List *rtable = query->rtable;
	while (IsA(value, Var)) {
		auto *column = reinterpret_cast<Var *>(value);
		RangeTblEntry *rows = rt_fetch(column->varno, rtable);
		if (rows->rtekind != RTE_SUBQUERY || column->varlevelsup != 0 || column->varattno <= 0)
			return false;
		rtable = rows->subquery->rtable;
		value = reinterpret_cast<Node *>(
			list_nth_node(TargetEntry, rows->subquery->targetList, column->varattno - 1)->expr);
	}
	if (!IsHomesCall(value, "_routed"))
		return false;
	void *homes = lsecond(reinterpret_cast<FuncExpr *>(value)->args);
	if (!IsKnownAtStart(static_cast<Node *>(homes)))
		return false;
	target->sources = list_make1(MakeSource(homes, SourceKind::kHomes));
	return true;
}

// INSERT … VALUES with one row whose key a subquery computes: makes it INSERT … SELECT, whose rows are computed here and
// then routed. Defaults stay what they are.
void SelectRow(Query *insert, WriteTarget *target)
{
	auto *around = makeNode(Query);
	around->commandType = CMD_SELECT;
	around->canSetTag = true;
	around->jointree = makeFromExpr(NIL, nullptr);
	around->hasSubLinks = true;
	const int source = list_length(insert->rtable) + 1;
	List *names = NIL;
	ListCell *cell;
	foreach (cell, insert->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (IsDefault(insert, entry))
			continue;
		auto *value = reinterpret_cast<Node *>(entry->expr);
		const int column = list_length(around->targetList) + 1;
		entry->expr = reinterpret_cast<Expr *>(
			makeVar(source, column, exprType(value), exprTypmod(value), exprCollation(value), 0));
		IncrementVarSublevelsUp(value, 1, 0);
		char *name = psprintf("value%d", column);
		around->targetList =
			lappend(around->targetList,
		            makeTargetEntry(reinterpret_cast<Expr *>(value), column, name, false));
		names = lappend(names, makeString(name));
	}
	auto *rows = makeNode(RangeTblEntry);
	rows->rtekind = RTE_SUBQUERY;
	rows->subquery = around;
	rows->eref = makeAlias("source", names);
	rows->alias = makeAlias("source", NIL);
	rows->inFromCl = true;
	insert->rtable = lappend(insert->rtable, rows);
	auto *from = makeNode(RangeTblRef);
	from->rtindex = source;
	insert->jointree->fromlist = list_make1(from);
	target->sharing = SelectsFromHomed(insert) ? Sharing::kSelectThere : Sharing::kSelect;
}

void FindInserted(Query *query, const Key *key, WriteTarget *target, ParamNumbers *numbers)
{
	TargetEntry *entry = EntryOf(query, key->attnum);
	if (entry == nullptr)
		return;  // no value and no default: NULL, which the home's own constraint refuses

	int varno = 0;
	RangeTblEntry *rows = SourceRows(query, &varno);
	if (rows == nullptr && query->jointree->fromlist == NIL) {
		entry->expr = reinterpret_cast<Expr *>(
			RouteInserted(reinterpret_cast<Node *>(entry->expr), target, numbers));
		if (target->unproved != nullptr &&
		    !expression_returns_set(reinterpret_cast<Node *>(entry->expr)))
			SelectRow(query, target);
		return;
	}
	if (rows != nullptr && IsRoutedBatch(query, entry, target))
		return;
	if (rows == nullptr || rows->rtekind != RTE_VALUES) {
		FindSelected(query, rows, entry, key, target);
		return;
	}
	target->sharing = Sharing::kValues;
	Node *expr = StripRelabel(reinterpret_cast<Node *>(entry->expr));
	if (!contain_var_clause(expr)) {
		AddValuesColumn(rows, varno, entry, target, numbers);
		return;
	}
	if (!IsA(expr, Var) || reinterpret_cast<Var *>(expr)->varno != varno) {
		target->unproved = "The keys of the inserted rows are computed from VALUES.";
		target->sharing = Sharing::kNone;
		return;
	}
	const int column = reinterpret_cast<Var *>(expr)->varattno - 1;
	ListCell *cell;
	foreach (cell, rows->values_lists) {
		ListCell *value = list_nth_cell(lfirst_node(List, cell), column);
		lfirst(value) = RouteInserted(static_cast<Node *>(lfirst(value)), target, numbers);
	}
	// A key that a subquery computes is known when its row is: VALUES is a query like others then.
	if (target->unproved != nullptr)
		target->sharing = SelectsFromHomed(query) ? Sharing::kSelectThere : Sharing::kSelect;
}

// --- one written table ---------------------------------------------------------------------------------

bool SetsKey(List *assignments, const Key *key)
{
	ListCell *cell;
	foreach (cell, assignments) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (entry->resno == key->attnum && !entry->resjunk)
			return true;
	}
	return false;
}

void FindNewKey(Query *query, const Key *key, WriteTarget *target)
{
	TargetEntry *entry = EntryOf(query, key->attnum);
	if (entry == nullptr ||
	    IsKeyVar(reinterpret_cast<Node *>(entry->expr), query->resultRelation, key->attnum))
		return;
	auto *expr = reinterpret_cast<Node *>(entry->expr);
	target->sharing = Sharing::kMove;
	if (IsKnownAtStart(expr))
		target->sources = lappend(target->sources, MakeSource(entry->expr, SourceKind::kKey));
	else
		target->unproved = "The new key of the updated rows is computed from the rows.";
}

// The keys that a column of the source of MERGE can have, in rows that its condition leaves out, too.
List *FindInSource(Query *query, Node *value, const Key *key)
{
	value = StripRelabel(value);
	if (!IsA(value, Var) || reinterpret_cast<Var *>(value)->varlevelsup != 0)
		return NIL;
	auto *column = reinterpret_cast<Var *>(value);
	List *sources = NIL;
	if (AddSpelledOut(column, query->rtable, &sources))
		return sources;
	return FindInSubquery(rt_fetch(column->varno, query->rtable), column->varattno, *key);
}

// What an action of MERGE sets the key to. A row that is inserted is one for which the condition does not hold.
void FindMergedValue(Query *query, const Key *key, const MergeAction *action, Node *value,
                     List *columns, WriteTarget *target)
{
	if (IsKnownAtStart(value)) {
		target->sources = lappend(target->sources, MakeSource(value, SourceKind::kKey));
		return;
	}
	if (action->commandType != CMD_INSERT) {
		if (!IsOneOf(value, columns))
			target->unproved = "MERGE sets the key to a value that its condition does not give.";
		return;
	}
	List *sources = FindInSource(query, value, key);
	if (sources == NIL)
		target->unproved = "MERGE inserts keys that its source does not spell out.";
	target->sources = list_concat(target->sources, sources);
}

// MERGE: the condition gives the keys, and the source those that are inserted.
void FindMerged(Query *query, const Key *key, WriteTarget *target)
{
	List *columns;
	ListCell *cell;
	target->sources = FindInConditions(query, query->resultRelation, key, &columns);
	foreach (cell, target->sources == NIL ? columns : NIL) {
		auto *column = lfirst_node(Var, cell);
		if (column->varno != query->resultRelation && target->sources == NIL)
			target->sources = FindInSource(query, reinterpret_cast<Node *>(column), key);
	}
	if (target->sources == NIL)
		target->unproved = "The condition of MERGE does not give the key of the rows.";
	foreach (cell, query->mergeActionList) {
		auto *action = lfirst_node(MergeAction, cell);
		ListCell *entry_cell;
		foreach (entry_cell, action->targetList) {
			auto *entry = lfirst_node(TargetEntry, entry_cell);
			if (entry->resno == key->attnum && !entry->resjunk)
				FindMergedValue(query, key, action, reinterpret_cast<Node *>(entry->expr), columns,
				                target);
		}
	}
}

// A trigger may give the row another key than the statement did: the home of that one is checked too.
void CheckKeyAfterTriggers(Query *query, const Key *key, const WriteTarget *target,
                           core::KeyspaceId keyspace)
{
	Relation relation = table_open(target->relid, NoLock);
	const TriggerDesc *triggers = relation->trigdesc;
	const bool possible = triggers != nullptr &&
	                      (query->commandType == CMD_INSERT ? triggers->trig_insert_before_row
	                                                        : triggers->trig_update_before_row);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), key->attnum - 1);
	Var *column = makeVar(query->resultRelation, key->attnum, attribute->atttypid,
	                      attribute->atttypmod, attribute->attcollation, 0);
	table_close(relation, NoLock);
	if (!possible)
		return;
	const Oid types[] = {INT4OID, ANYELEMENTOID};
	List *name = list_make2(makeString(pstrdup("homing")), makeString(pstrdup("_serves")));
	Const *id = makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(keyspace.value),
	                      false, true);
	auto *check = makeNode(WithCheckOption);
	check->kind = query->commandType == CMD_INSERT ? WCO_RLS_INSERT_CHECK : WCO_RLS_UPDATE_CHECK;
	check->relname = get_rel_name(target->relid);
	check->qual = reinterpret_cast<Node *>(makeFuncExpr(LookupFuncName(name, 2, types, false),
	                                                    BOOLOID, list_make2(id, column), InvalidOid,
	                                                    column->varcollid, COERCE_EXPLICIT_CALL));
	query->withCheckOptions = lappend(query->withCheckOptions, check);
}

bool IsKeys(List *sources)
{
	return static_cast<KeySource *>(linitial(sources))->kind != SourceKind::kHomes;
}

void AnalyseTarget(Query *query, WriteAnalysis *analysis, ParamNumbers *numbers)
{
	RangeTblEntry *entry = rt_fetch(query->resultRelation, query->rtable);
	if (entry->rtekind != RTE_RELATION)
		return;
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const pg::HomedTable *homed = catalog != nullptr ? catalog->Find(entry->relid) : nullptr;
	if (homed == nullptr)
		return;

	auto *target = static_cast<WriteTarget *>(palloc0(sizeof(WriteTarget)));
	target->relid = entry->relid;
	target->homed = homed->relid;
	analysis->targets = lappend(analysis->targets, target);

	const Key key = KeyOfTarget(target, homed);
	if (query->commandType == CMD_INSERT || query->commandType == CMD_UPDATE)
		CheckKeyAfterTriggers(query, &key, target, homed->keyspace);
	switch (query->commandType) {
	case CMD_INSERT:
		target->claiming = Claiming::kAll;
		FindInserted(query, &key, target, numbers);
		if (query->onConflict != nullptr && SetsKey(query->onConflict->onConflictSet, &key))
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot change the key of a homed table in ON CONFLICT DO UPDATE"),
			         errdetail("Column \"%s\" decides the home of a row of \"%s\".",
			                   get_attname(target->relid, key.attnum, false),
			                   get_rel_name(target->relid)),
			         errhint(
						 "Leave the key out of the SET list: the row in conflict has the same key.")));
		break;
	case CMD_UPDATE:
	case CMD_DELETE: {
		List *columns;
		target->sources = FindInConditions(query, query->resultRelation, &key, &columns);
		if (target->sources == NIL)
			target->unproved = "No condition gives the key of the rows.";
		if (target->sources == NIL || IsKeys(target->sources))
			target->sharing = Sharing::kOwned;
		if (query->commandType == CMD_UPDATE) {
			target->claiming = Claiming::kOneKey;
			FindNewKey(query, &key, target);
		}
		break;
	}
	default:
		target->claiming = Claiming::kOneKey;
		FindMerged(query, &key, target);
		break;
	}
}

}  // namespace

WriteAnalysis *AnalyseWrite(Query *query, ParamListInfo bound)
{
	auto *analysis = static_cast<WriteAnalysis *>(palloc0(sizeof(WriteAnalysis)));
	ParamNumbers numbers{query, bound, 0};
	if (query->commandType != CMD_SELECT && query->commandType != CMD_UTILITY)
		AnalyseTarget(query, analysis, &numbers);
	if (query->hasModifyingCTE) {
		ListCell *cell;
		foreach (cell, query->cteList) {
			auto *part = castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery);
			if (part->commandType != CMD_SELECT)
				AnalyseTarget(part, analysis, &numbers);
		}
		// The parts belong together.
		foreach (cell, analysis->targets)
			static_cast<WriteTarget *>(lfirst(cell))->sharing = Sharing::kNone;
	}
	AnalyseRowLocks(query, analysis);
	return analysis->targets != NIL ? analysis : nullptr;
}

}  // namespace homing::write
