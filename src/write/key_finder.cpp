#include "write/key_finder.hpp"

#include "pg/compat.hpp"
#include "pg/key.hpp"
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

// The key column of one written table, while its statement is analysed.
struct Key {
	AttrNumber attnum;  // in the table written
	Oid type;           // base type
	Oid opfamily;       // btree, whose equality decides what is one key
};

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

// --- expressions -----------------------------------------------------------------------------------

// Takes off casts that do not change which key a value is.
Node *StripRelabel(Node *node)
{
	while (node != nullptr) {
		if (IsA(node, RelabelType)) {
			node = reinterpret_cast<Node *>(reinterpret_cast<RelabelType *>(node)->arg);
			continue;
		}
		auto *call = reinterpret_cast<FuncExpr *>(node);
		if (!IsA(node, FuncExpr) || list_length(call->args) != 1 ||
		    call->funcformat == COERCE_EXPLICIT_CALL ||
		    !pg::SharesKeyBytes(call->funcresulttype,
		                        exprType(static_cast<Node *>(linitial(call->args)))))
			return node;
		node = static_cast<Node *>(linitial(call->args));
	}
	return nullptr;
}

bool IsKeyVar(Node *node, int varno, AttrNumber attnum)
{
	node = StripRelabel(node);
	if (node == nullptr || !IsA(node, Var))
		return false;
	auto *var = reinterpret_cast<Var *>(node);
	return var->varno == varno && var->varattno == attnum && var->varlevelsup == 0;
}

// Whether it takes a column of "(a, b) = (SELECT …)".
bool TakesSubqueryColumn(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Param))
		return reinterpret_cast<Param *>(node)->paramkind != PARAM_EXTERN;
	return pg::WalkExpression(node, TakesSubqueryColumn, nullptr);
}

// The expression has one value for the whole statement, known when it starts.
bool IsKnownAtStart(Node *node)
{
	return !contain_var_clause(node) && !TakesSubqueryColumn(node, nullptr) &&
	       !contain_subplans(node) && !contain_agg_clause(node) && !contain_window_function(node) &&
	       !checkExprHasSubLink(node) && !expression_returns_set(node) &&
	       !contain_volatile_functions(node);
}

bool EqualsKey(const Key *key, Oid op, Oid collation)
{
	return get_op_opfamily_strategy(op, key->opfamily) == BTEqualStrategyNumber &&
	       (!OidIsValid(collation) || get_collation_isdeterministic(collation));
}

bool YieldsKey(const Key *key, Oid type)
{
	return pg::SharesKeyBytes(key->type, getBaseType(type));
}

// --- conjuncts ---------------------------------------------------------------------------------------

// Collects what must hold for every row of the join tree: AND-ed conditions of WHERE and inner joins.
void CollectConjuncts(Node *node, List **conjuncts)
{
	if (node == nullptr)
		return;
	if (IsA(node, FromExpr)) {
		auto *from = reinterpret_cast<FromExpr *>(node);
		ListCell *cell;
		foreach (cell, from->fromlist)
			CollectConjuncts(static_cast<Node *>(lfirst(cell)), conjuncts);
		CollectConjuncts(from->quals, conjuncts);
	} else if (IsA(node, JoinExpr)) {
		auto *join = reinterpret_cast<JoinExpr *>(node);
		if (join->jointype == JOIN_INNER) {
			CollectConjuncts(join->larg, conjuncts);
			CollectConjuncts(join->rarg, conjuncts);
			CollectConjuncts(join->quals, conjuncts);
		}
	} else if (IsA(node, BoolExpr) && reinterpret_cast<BoolExpr *>(node)->boolop == AND_EXPR) {
		ListCell *cell;
		foreach (cell, reinterpret_cast<BoolExpr *>(node)->args)
			CollectConjuncts(static_cast<Node *>(lfirst(cell)), conjuncts);
	} else if (IsA(node, List)) {
		ListCell *cell;
		foreach (cell, reinterpret_cast<List *>(node))
			CollectConjuncts(static_cast<Node *>(lfirst(cell)), conjuncts);
	} else if (!IsA(node, RangeTblRef)) {
		*conjuncts = lappend(*conjuncts, node);
	}
}

bool IsOneOf(Node *node, List *columns)
{
	node = StripRelabel(node);
	if (node == nullptr || !IsA(node, Var))
		return false;
	ListCell *cell;
	foreach (cell, columns) {
		auto *column = lfirst_node(Var, cell);
		auto *var = reinterpret_cast<Var *>(node);
		if (var->varno == column->varno && var->varattno == column->varattno && var->varlevelsup == 0)
			return true;
	}
	return false;
}

// Grows the set of columns that are equal to the key in every row.
List *EqualColumns(List *conjuncts, const Key *key, List *columns)
{
	for (bool grown = true; grown;) {
		grown = false;
		ListCell *cell;
		foreach (cell, conjuncts) {
			auto *node = static_cast<Node *>(lfirst(cell));
			if (!IsA(node, OpExpr))
				continue;
			auto *op = reinterpret_cast<OpExpr *>(node);
			if (list_length(op->args) != 2 || !EqualsKey(key, op->opno, op->inputcollid))
				continue;
			Node *sides[] = {StripRelabel(static_cast<Node *>(linitial(op->args))),
			                 StripRelabel(static_cast<Node *>(lsecond(op->args)))};
			for (int i = 0; i < 2; ++i) {
				Node *other = sides[1 - i];
				if (IsOneOf(sides[i], columns) && IsA(other, Var) && !IsOneOf(other, columns) &&
				    reinterpret_cast<Var *>(other)->varlevelsup == 0 &&
				    YieldsKey(key, exprType(other))) {
					columns = lappend(columns, other);
					grown = true;
				}
			}
		}
	}
	return columns;
}

KeySource *MakeSource(void *expr, SourceKind kind)
{
	auto *source = static_cast<KeySource *>(palloc0(sizeof(KeySource)));
	source->expr = static_cast<Expr *>(expr);
	source->kind = kind;
	return source;
}

// The call homing.`name`(keyspace, homes, key), by which another region tells which homes it means.
bool IsHomesCall(Node *node, const char *name)
{
	if (!IsA(node, FuncExpr) || list_length(reinterpret_cast<FuncExpr *>(node)->args) != 3)
		return false;
	const Oid function = reinterpret_cast<FuncExpr *>(node)->funcid;
	const char *schema = get_namespace_name(get_func_namespace(function));
	return schema != nullptr && strcmp(schema, "homing") == 0 &&
	       strcmp(get_func_name(function), name) == 0;
}

// A condition `column = known` or `column = ANY (known)` on one of the columns.
KeySource *SourceOf(Node *conjunct, const Key *key, List *columns)
{
	if (IsA(conjunct, OpExpr)) {
		auto *op = reinterpret_cast<OpExpr *>(conjunct);
		if (list_length(op->args) != 2 || !EqualsKey(key, op->opno, op->inputcollid))
			return nullptr;
		auto *left = static_cast<Node *>(linitial(op->args)),
			 *right = static_cast<Node *>(lsecond(op->args));
		if (IsOneOf(left, columns) && YieldsKey(key, exprType(right)) && IsKnownAtStart(right))
			return MakeSource(right, SourceKind::kKey);
		if (IsOneOf(right, columns) && YieldsKey(key, exprType(left)) && IsKnownAtStart(left))
			return MakeSource(left, SourceKind::kKey);
	} else if (IsA(conjunct, ScalarArrayOpExpr)) {
		auto *op = reinterpret_cast<ScalarArrayOpExpr *>(conjunct);
		auto *array = static_cast<Node *>(lsecond(op->args));
		if (op->useOr && EqualsKey(key, op->opno, op->inputcollid) &&
		    IsOneOf(static_cast<Node *>(linitial(op->args)), columns) &&
		    YieldsKey(key, get_element_type(getBaseType(exprType(array)))) && IsKnownAtStart(array))
			return MakeSource(array, SourceKind::kKeys);
	} else if (IsHomesCall(conjunct, "_owns")) {
		List *arguments = reinterpret_cast<FuncExpr *>(conjunct)->args;
		if (IsOneOf(static_cast<Node *>(lthird(arguments)), columns) &&
		    IsKnownAtStart(static_cast<Node *>(lsecond(arguments))))
			return MakeSource(lsecond(arguments), SourceKind::kHomes);
	}
	return nullptr;
}

// The values of a column of a row source that is spelled out: VALUES, or a SELECT of known values.
// False: it is not.
bool AddSpelledOut(Var *column, List *rtable, List **sources)
{
	RangeTblEntry *entry = rt_fetch(column->varno, rtable);
	if (entry->rtekind == RTE_SUBQUERY) {
		Query *subquery = entry->subquery;
		if (subquery->commandType != CMD_SELECT || subquery->setOperations != nullptr ||
		    column->varattno <= 0)
			return false;
		Node *inner = StripRelabel(reinterpret_cast<Node *>(
			list_nth_node(TargetEntry, subquery->targetList, column->varattno - 1)->expr));
		if (IsKnownAtStart(inner)) {
			*sources = lappend(*sources, MakeSource(inner, SourceKind::kKey));
			return true;
		}
		return IsA(inner, Var) && reinterpret_cast<Var *>(inner)->varlevelsup == 0 &&
		       AddSpelledOut(reinterpret_cast<Var *>(inner), subquery->rtable, sources);
	}
	if (entry->rtekind != RTE_VALUES)
		return false;
	ListCell *cell;
	foreach (cell, entry->values_lists) {
		auto *value = static_cast<Node *>(list_nth(lfirst_node(List, cell), column->varattno - 1));
		if (!IsKnownAtStart(value))
			return false;
		*sources = lappend(*sources, MakeSource(value, SourceKind::kKey));
	}
	return true;
}

// The keys that the query's conditions allow for the rows of `varno`; NIL: any. `columns` becomes the
// columns that are equal to the key.
List *FindInConditions(Query *query, int varno, const Key *key, List **columns)
{
	List *conjuncts = NIL;
	CollectConjuncts(reinterpret_cast<Node *>(query->jointree), &conjuncts);
	Var *column = makeVar(varno, key->attnum, key->type, -1, InvalidOid, 0);
	*columns = EqualColumns(conjuncts, key, list_make1(column));

	KeySource *found = nullptr;
	ListCell *cell;
	foreach (cell, conjuncts) {
		KeySource *source = SourceOf(static_cast<Node *>(lfirst(cell)), key, *columns);
		// What another region asks us to do is exact; one value beats a list of them; either proves.
		if (source == nullptr)
			continue;
		if (source->kind == SourceKind::kHomes)
			return list_make1(source);
		if (found == nullptr || source->kind == SourceKind::kKey)
			found = source;
	}
	if (found != nullptr)
		return list_make1(found);
	foreach (cell, *columns) {
		List *sources = NIL;
		auto *var = lfirst_node(Var, cell);
		if (var->varno != varno && AddSpelledOut(var, query->rtable, &sources))
			return sources;
	}
	return NIL;
}

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

// INSERT … SELECT: the rows are computed here in any case; the key may be known beforehand.
void FindSelected(Query *query, RangeTblEntry *rows, TargetEntry *entry, WriteTarget *target)
{
	if (rows != nullptr && rows->rtekind == RTE_SUBQUERY)
		target->sharing = Sharing::kSelect;
	Node *expr = StripRelabel(reinterpret_cast<Node *>(entry->expr));
	if (IsKnownAtStart(expr))
		target->sources = list_make1(MakeSource(expr, SourceKind::kKey));
	else if (!IsA(expr, Var) ||
	         !AddSpelledOut(reinterpret_cast<Var *>(expr), query->rtable, &target->sources))
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
		return;
	}
	if (rows != nullptr && IsRoutedBatch(query, entry, target))
		return;
	if (rows == nullptr || rows->rtekind != RTE_VALUES) {
		FindSelected(query, rows, entry, target);
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
}

Key KeyOfTarget(const WriteTarget *target, const pg::HomedTable *homed)
{
	Key key{homed->key_attnum, homed->key_type, InvalidOid};
	key.opfamily = lookup_type_cache(key.type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	if (target->relid != target->homed)
		key.attnum = get_attnum(target->relid, get_attname(target->homed, homed->key_attnum, false));
	return key;
}

// The query of a foreign key's trigger. It locks the row that it sees here: a key of another keyspace may
// have its home elsewhere, and a session that serves a forwarded statement asks nobody.
bool IsForeignKeyCheck(const Query *query, const RowMarkClause *mark, const RangeTblEntry *entry)
{
	if (mark->strength != LCS_FORKEYSHARE || entry->inh || list_length(query->targetList) != 1)
		return false;
	auto *value = linitial_node(TargetEntry, query->targetList);
	return IsA(value->expr, Const) && reinterpret_cast<Const *>(value->expr)->consttype == INT4OID;
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

// MERGE: the condition gives the keys, and what it inserts has one of them.
void FindMerged(Query *query, const Key *key, WriteTarget *target)
{
	List *columns;
	target->sources = FindInConditions(query, query->resultRelation, key, &columns);
	if (target->sources == NIL)
		target->unproved = "The condition of MERGE does not give the key of the rows.";
	ListCell *cell;
	foreach (cell, query->mergeActionList) {
		auto *action = lfirst_node(MergeAction, cell);
		ListCell *entry_cell;
		foreach (entry_cell, action->targetList) {
			auto *entry = lfirst_node(TargetEntry, entry_cell);
			if (entry->resno != key->attnum || entry->resjunk)
				continue;
			auto *value = reinterpret_cast<Node *>(entry->expr);
			if (IsKnownAtStart(value))
				target->sources = lappend(target->sources, MakeSource(value, SourceKind::kKey));
			else if (!IsOneOf(value, columns))
				target->unproved = "MERGE sets the key to a value that its condition does not give.";
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

// FOR UPDATE and the like: the rows are locked at their home.
void AnalyseRowMarks(Query *query, WriteAnalysis *analysis)
{
	ListCell *cell;
	foreach (cell, query->rowMarks) {
		auto *mark = lfirst_node(RowMarkClause, cell);
		RangeTblEntry *entry = rt_fetch(mark->rti, query->rtable);
		const pg::Catalog *catalog = pg::CurrentCatalog();
		const pg::HomedTable *homed = entry->rtekind == RTE_RELATION && catalog != nullptr
		                                  ? catalog->Find(entry->relid)
		                                  : nullptr;
		if (homed == nullptr || IsForeignKeyCheck(query, mark, entry))
			continue;
		auto *target = static_cast<WriteTarget *>(palloc0(sizeof(WriteTarget)));
		target->relid = entry->relid;
		target->homed = homed->relid;
		analysis->targets = lappend(analysis->targets, target);
		const Key key = KeyOfTarget(target, homed);
		List *columns;
		target->sources = FindInConditions(query, static_cast<int>(mark->rti), &key, &columns);
		if (target->sources == NIL)
			target->unproved = "No condition gives the key of the rows to be locked.";
	}
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
		if (query->commandType == CMD_UPDATE)
			FindNewKey(query, &key, target);
		break;
	}
	default:
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
	else
		AnalyseRowMarks(query, analysis);
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
	return analysis->targets != NIL ? analysis : nullptr;
}

}  // namespace homing::write
