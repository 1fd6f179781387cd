#include "write/beside_key.hpp"

#include "pg/compat.hpp"
#include "write/key_conditions.hpp"
#include "write/read_node.hpp"

extern "C" {
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
}

namespace homing::write {

namespace {

// One query, and what is equal to the anchor's key in every row that counts: columns, of this level and of those around
// it, and values. A column that an outer join adds may be NULL instead.
struct Scope {
	Query *query;
	List *equal;
	int anchor;  // 0: the anchor is a table of a level around it
	const Key *key;
	core::KeyspaceId keyspace;
};

// What a condition may say about: the tables of the nullable side, where it belongs to an outer join.
struct Condition {
	Node *node;
	Relids about;  // nullptr: any
};

// Columns are the same whatever type their domains have.
bool IsSame(Node *one, Node *other)
{
	if (!IsA(one, Var) || !IsA(other, Var))
		return equal(one, other);
	auto *a = reinterpret_cast<Var *>(one), *b = reinterpret_cast<Var *>(other);
	return a->varno == b->varno && a->varattno == b->varattno && a->varlevelsup == b->varlevelsup;
}

bool IsEqualToKey(const Scope *scope, Node *node)
{
	node = StripRelabel(node);
	ListCell *cell;
	foreach (cell, scope->equal) {
		if (node != nullptr && IsSame(node, static_cast<Node *>(lfirst(cell))))
			return true;
	}
	return false;
}

// --- conditions -----------------------------------------------------------------------------------------

Relids TablesIn(Node *node)
{
	if (IsA(node, RangeTblRef))
		return bms_make_singleton(reinterpret_cast<RangeTblRef *>(node)->rtindex);
	if (IsA(node, JoinExpr)) {
		auto *join = reinterpret_cast<JoinExpr *>(node);
		return bms_union(TablesIn(join->larg), TablesIn(join->rarg));
	}
	Relids tables = nullptr;
	ListCell *cell;
	foreach (cell, castNode(FromExpr, node)->fromlist)
		tables = bms_union(tables, TablesIn(static_cast<Node *>(lfirst(cell))));
	return tables;
}

void AddConjuncts(Node *node, Relids about, List **conditions)
{
	if (node == nullptr)
		return;
	if (IsA(node, BoolExpr) && reinterpret_cast<BoolExpr *>(node)->boolop == AND_EXPR) {
		ListCell *cell;
		foreach (cell, reinterpret_cast<BoolExpr *>(node)->args)
			AddConjuncts(static_cast<Node *>(lfirst(cell)), about, conditions);
		return;
	}
	auto *condition = static_cast<Condition *>(palloc(sizeof(Condition)));
	*condition = {node, about};
	*conditions = lappend(*conditions, condition);
}

Relids Within(Relids about, Relids tables)
{
	return about == nullptr ? tables : bms_intersect(about, tables);
}

// Rows that an outer join finds no partner for are there all the same, so its condition says nothing about the
// side that it keeps. About the other it does: other rows of that do not count.
void AddConditions(Node *node, Relids about, List **conditions)
{
	if (IsA(node, FromExpr)) {
		auto *from = reinterpret_cast<FromExpr *>(node);
		ListCell *cell;
		foreach (cell, from->fromlist)
			AddConditions(static_cast<Node *>(lfirst(cell)), about, conditions);
		AddConjuncts(from->quals, about, conditions);
	} else if (IsA(node, JoinExpr)) {
		auto *join = reinterpret_cast<JoinExpr *>(node);
		Relids left = about, right = about, both = about;
		if (join->jointype == JOIN_LEFT)
			both = right = Within(about, TablesIn(join->rarg));
		else if (join->jointype == JOIN_RIGHT)
			both = left = Within(about, TablesIn(join->larg));
		else if (join->jointype != JOIN_INNER)
			return;
		if (!bms_is_empty(left) || left == about)
			AddConditions(join->larg, left, conditions);
		if (!bms_is_empty(right) || right == about)
			AddConditions(join->rarg, right, conditions);
		if (!bms_is_empty(both) || both == about)
			AddConjuncts(join->quals, both, conditions);
	}
}

bool MayGrow(Node *other, const Condition *condition)
{
	if (!IsA(other, Var))
		return condition->about == nullptr && IsKnownAtStart(other);
	auto *column = reinterpret_cast<Var *>(other);
	return condition->about == nullptr ||
	       (column->varlevelsup == 0 && bms_is_member(column->varno, condition->about));
}

// An equality of two things of which one is equal to the key makes the other one so.
bool Grow(Scope *scope, const Condition *condition)
{
	auto *op = reinterpret_cast<OpExpr *>(condition->node);
	if (!IsA(condition->node, OpExpr) || list_length(op->args) != 2 ||
	    !EqualsKey(scope->key, op->opno, op->inputcollid))
		return false;
	Node *sides[] = {StripRelabel(static_cast<Node *>(linitial(op->args))),
	                 StripRelabel(static_cast<Node *>(lsecond(op->args)))};
	for (int i = 0; i < 2; ++i) {
		Node *other = sides[1 - i];
		if (!IsEqualToKey(scope, sides[i]) || IsEqualToKey(scope, other) ||
		    !YieldsKey(scope->key, exprType(other)) || !MayGrow(other, condition))
			continue;
		scope->equal = lappend(scope->equal, other);
		return true;
	}
	return false;
}

void GrowAll(Scope *scope)
{
	List *conditions = NIL;
	AddConditions(reinterpret_cast<Node *>(scope->query->jointree), nullptr, &conditions);
	for (bool grown = true; grown;) {
		grown = false;
		ListCell *cell;
		foreach (cell, conditions)
			grown = Grow(scope, static_cast<Condition *>(lfirst(cell))) || grown;
	}
}

// --- subqueries -----------------------------------------------------------------------------------------

// What is equal to the key, seen from one level further in.
List *SeenFromInside(const Scope *scope)
{
	auto *equal = static_cast<List *>(copyObjectImpl(scope->equal));
	IncrementVarSublevelsUp(reinterpret_cast<Node *>(equal), 1, 0);
	return equal;
}

// Whether rows with other values of a column have no part in those with this one.
bool KeepsApart(Query *subquery, TargetEntry *entry)
{
	if (subquery->commandType != CMD_SELECT || subquery->setOperations != nullptr ||
	    subquery->limitCount != nullptr || subquery->limitOffset != nullptr ||
	    subquery->hasWindowFuncs || subquery->groupingSets != NIL || subquery->hasDistinctOn)
		return false;
	if (subquery->groupClause == NIL)
		return !subquery->hasAggs && subquery->havingQual == nullptr;
	return entry->ressortgroupref != 0 &&
	       get_sortgroupref_clause_noerr(entry->ressortgroupref, subquery->groupClause) != nullptr;
}

// A column of the subquery is equal to the key: so is what it shows.
void AddShown(Query *subquery, AttrNumber column, List **equal)
{
	if (column <= 0 || column > list_length(subquery->targetList))
		return;
	auto *entry = list_nth_node(TargetEntry, subquery->targetList, column - 1);
	Node *shown = StripRelabel(reinterpret_cast<Node *>(entry->expr));
	if (IsA(shown, Var) && reinterpret_cast<Var *>(shown)->varlevelsup == 0 &&
	    KeepsApart(subquery, entry))
		*equal = lappend(*equal, shown);
}

bool IsBeside(const Scope *scope);

bool SubqueryIsBeside(const Scope *scope, Query *subquery, List *equal)
{
	const Scope inner{subquery, equal, 0, scope->key, scope->keyspace};
	return IsBeside(&inner);
}

bool SourceIsBeside(const Scope *scope, Query *subquery, int source)
{
	List *equal = SeenFromInside(scope);
	ListCell *cell;
	foreach (cell, scope->equal) {
		auto *column = static_cast<Var *>(lfirst(cell));
		if (IsA(column, Var) && column->varno == source && column->varlevelsup == 0)
			AddShown(subquery, column->varattno, &equal);
	}
	return SubqueryIsBeside(scope, subquery, equal);
}

// WITH: the subquery of a reference to it; nullptr: it is further out, or refers to itself.
Query *NamedSubquery(const Query *query, const RangeTblEntry *entry)
{
	ListCell *cell;
	foreach (cell, query->cteList) {
		auto *named = lfirst_node(CommonTableExpr, cell);
		if (entry->ctelevelsup == 0 && !entry->self_reference && !named->cterecursive &&
		    strcmp(named->ctename, entry->ctename) == 0)
			return castNode(Query, named->ctequery);
	}
	return nullptr;
}

bool TableIsBeside(const Scope *scope, const RangeTblEntry *entry, int index)
{
	const pg::HomedTable *homed = pg::CurrentCatalog()->Find(entry->relid);
	if (homed == nullptr || index == scope->anchor)
		return true;
	if (!(homed->keyspace == scope->keyspace))
		return false;
	const WriteTarget table{entry->relid, homed->relid,   NIL,
	                        nullptr,      Sharing::kNone, Claiming::kNever};
	const AttrNumber attnum = KeyOfTarget(&table, homed).attnum;
	Var *key = makeVar(index, attnum, scope->key->type, -1, InvalidOid, 0);
	return IsEqualToKey(scope, reinterpret_cast<Node *>(key));
}

bool RowsAreBeside(const Scope *scope, int index)
{
	RangeTblEntry *entry = rt_fetch(index, scope->query->rtable);
	switch (entry->rtekind) {
	case RTE_RELATION:
		return TableIsBeside(scope, entry, index);
	case RTE_SUBQUERY:
		return SourceIsBeside(scope, entry->subquery, index);
	case RTE_CTE: {
		Query *named = NamedSubquery(scope->query, entry);
		return named != nullptr && SourceIsBeside(scope, named, index);
	}
	default:
		return true;  // expressions, which are looked at with the others
	}
}

// key IN (SELECT column …): of the subquery's rows, only those with the key can be the one that is looked for.
void AddSought(const Scope *scope, const SubLink *link, Node *test, List **equal)
{
	if (test == nullptr)
		return;
	if (IsA(test, BoolExpr) && reinterpret_cast<BoolExpr *>(test)->boolop == AND_EXPR) {
		ListCell *cell;
		foreach (cell, reinterpret_cast<BoolExpr *>(test)->args)
			AddSought(scope, link, static_cast<Node *>(lfirst(cell)), equal);
		return;
	}
	auto *op = reinterpret_cast<OpExpr *>(test);
	if (!IsA(test, OpExpr) || list_length(op->args) != 2 ||
	    !EqualsKey(scope->key, op->opno, op->inputcollid) ||
	    !IsEqualToKey(scope, static_cast<Node *>(linitial(op->args))))
		return;
	Node *found = StripRelabel(static_cast<Node *>(lsecond(op->args)));
	if (IsA(found, Param) && reinterpret_cast<Param *>(found)->paramkind == PARAM_SUBLINK)
		AddShown(castNode(Query, link->subselect),
		         static_cast<AttrNumber>(reinterpret_cast<Param *>(found)->paramid), equal);
}

bool FindNotBeside(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	const auto *scope = static_cast<const Scope *>(context);
	if (IsA(node, SubLink)) {
		auto *link = reinterpret_cast<SubLink *>(node);
		List *equal = SeenFromInside(scope);
		if (link->subLinkType == ANY_SUBLINK)
			AddSought(scope, link, link->testexpr, &equal);
		if (!SubqueryIsBeside(scope, castNode(Query, link->subselect), equal))
			return true;
		return FindNotBeside(link->testexpr, context);
	}
	return pg::WalkExpression(node, FindNotBeside, context);
}

// Requires: what is equal to the key before conditions say so.
bool IsBeside(const Scope *given)
{
	if (!ReadsHomedTables(given->query))
		return true;
	if (given->query->setOperations != nullptr || given->query->hasModifyingCTE)
		return false;
	Scope scope = *given;
	GrowAll(&scope);
	const Relids sources = TablesIn(reinterpret_cast<Node *>(scope.query->jointree));
	for (int index = -1; (index = bms_next_member(sources, index)) >= 0;) {
		if (!RowsAreBeside(&scope, index))
			return false;
	}
	return !pg::WalkQuery(scope.query, FindNotBeside, &scope,
	                      QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
}

}  // namespace

bool ReadsBesideKey(Query *query, int anchor)
{
	const RangeTblEntry *entry = rt_fetch(anchor, query->rtable);
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const pg::HomedTable *homed =
		entry->rtekind == RTE_RELATION && catalog != nullptr ? catalog->Find(entry->relid) : nullptr;
	// The source of MERGE has rows that its condition leaves out, and that it inserts.
	if (homed == nullptr || query->commandType == CMD_MERGE)
		return false;
	const WriteTarget target{entry->relid, homed->relid,   NIL,
	                         nullptr,      Sharing::kNone, Claiming::kNever};
	const Key key = KeyOfTarget(&target, homed);
	List *equal = list_make1(makeVar(anchor, key.attnum, key.type, -1, InvalidOid, 0));
	ListCell *cell;
	foreach (cell, query->commandType == CMD_INSERT ? query->targetList : NIL) {
		auto *column = lfirst_node(TargetEntry, cell);
		Node *value = StripRelabel(reinterpret_cast<Node *>(column->expr));
		if (column->resno == key.attnum && !column->resjunk &&
		    (IsA(value, Var) || IsKnownAtStart(value)))
			equal = lappend(equal, value);
	}
	const Scope scope{query, equal, anchor, &key, homed->keyspace};
	return IsBeside(&scope);
}

}  // namespace homing::write
