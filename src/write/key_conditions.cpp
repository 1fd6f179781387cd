#include "write/key_conditions.hpp"

#include "pg/compat.hpp"
#include "pg/key.hpp"

extern "C" {
#include "access/stratnum.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"
}

namespace homing::write {

Key KeyOfTarget(const WriteTarget *target, const pg::HomedTable *homed)
{
	Key key{homed->key_attnum, homed->key_type, InvalidOid};
	key.opfamily = lookup_type_cache(key.type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	if (target->relid != target->homed)
		key.attnum = get_attnum(target->relid, get_attname(target->homed, homed->key_attnum, false));
	return key;
}

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

namespace {

// Whether it takes a column of "(a, b) = (SELECT …)".
bool TakesSubqueryColumn(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Param))
		return reinterpret_cast<Param *>(node)->paramkind != PARAM_EXTERN;
	return pg::WalkExpression(node, TakesSubqueryColumn, nullptr);
}

}  // namespace

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

namespace {

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

}  // namespace

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

namespace {

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

}  // namespace

KeySource *MakeSource(void *expr, SourceKind kind)
{
	auto *source = static_cast<KeySource *>(palloc0(sizeof(KeySource)));
	source->expr = static_cast<Expr *>(expr);
	source->kind = kind;
	return source;
}

bool IsHomesCall(Node *node, const char *name)
{
	if (!IsA(node, FuncExpr) || list_length(reinterpret_cast<FuncExpr *>(node)->args) < 3)
		return false;
	const Oid function = reinterpret_cast<FuncExpr *>(node)->funcid;
	const char *schema = get_namespace_name(get_func_namespace(function));
	return schema != nullptr && strcmp(schema, "homing") == 0 &&
	       strcmp(get_func_name(function), name) == 0;
}

namespace {

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

}  // namespace

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

}  // namespace homing::write
