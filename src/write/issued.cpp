#include "core/ids.hpp"
#include "write/issued.hpp"

#include "pg/compat.hpp"
#include "write/homed_relation.hpp"

extern "C" {
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/readfuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
}

namespace homing::write {

namespace {

// No statement can name an entry so without an alias.
constexpr char kEntryName[] = "homing: as issued";

post_parse_analyze_hook_type next_analyze = nullptr;
bool storing = false;

// --- which statements -----------------------------------------------------------------------------------------

bool IsUserView(const RangeTblEntry *entry)
{
	return entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_VIEW &&
	       entry->relid >= FirstNormalObjectId;
}

bool ReadsHomed(Node *node, void *view);

bool IsOfHomedTables(Oid view)
{
	Relation relation = table_open(view, AccessShareLock);
	const bool found = ReadsHomed(reinterpret_cast<Node *>(get_view_query(relation)), &view);
	table_close(relation, NoLock);
	return found;
}

// In the query of a view, whose OLD and NEW look like the view itself.
bool ReadsHomed(Node *node, void *view)
{
	if (node == nullptr)
		return false;
	if (!IsA(node, Query))
		return pg::WalkExpression(node, ReadsHomed, view);
	auto *query = reinterpret_cast<Query *>(node);
	ListCell *cell;
	foreach (cell, query->rtable) {
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind != RTE_RELATION || entry->relid == *static_cast<const Oid *>(view))
			continue;
		HomedRelation homed;
		if (IsUserView(entry) ? IsOfHomedTables(entry->relid) : FindHomed(entry->relid, &homed))
			return true;
	}
	return pg::WalkQuery(query, ReadsHomed, view);
}

bool NamesView(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (!IsA(node, Query))
		return pg::WalkExpression(node, NamesView, context);
	auto *query = reinterpret_cast<Query *>(node);
	bool deeper = query->hasSubLinks || query->cteList != NIL;
	ListCell *cell;
	foreach (cell, query->rtable) {
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		if (IsUserView(entry) && IsOfHomedTables(entry->relid))
			return true;
		deeper = deeper || entry->rtekind != RTE_RELATION;
	}
	return deeper && pg::WalkQuery(query, NamesView, context);
}

// The relation below an updatable view, and the query between. A view with rules is rewritten in another way.
bool LookThrough(Oid view, Oid *below, Query **definition)
{
	Relation relation = table_open(view, AccessShareLock);
	const bool plain = relation->rd_rel->relkind == RELKIND_VIEW && relation->rd_rules != nullptr &&
	                   relation->rd_rules->numLocks == 1;
	bool found = false;
	if (plain) {
		*definition = static_cast<Query *>(copyObjectImpl(get_view_query(relation)));
		List *from = (*definition)->jointree->fromlist;
		if (list_length(from) == 1 && IsA(linitial(from), RangeTblRef)) {
			const auto *entry =
				rt_fetch(linitial_node(RangeTblRef, from)->rtindex, (*definition)->rtable);
			found = entry->rtekind == RTE_RELATION;
			*below = entry->relid;
		}
	}
	table_close(relation, NoLock);
	return found;
}

// What the statement writes is a table, or a view that becomes one by nothing but substitution.
bool HasPlainTarget(const Query *query)
{
	if (query->resultRelation == 0)
		return true;
	Oid target = rt_fetch(query->resultRelation, query->rtable)->relid;
	while (get_rel_relkind(target) == RELKIND_VIEW) {
		Query *definition;
		if (!LookThrough(target, &target, &definition))
			return false;
	}
	return true;
}

bool CanBeSentAsIssued(const Query *query)
{
	if (!HasPlainTarget(query))
		return false;
	ListCell *cell;
	foreach (cell, query->cteList) {
		if (!HasPlainTarget(castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery)))
			return false;
	}
	return true;
}

// --- the entry -------------------------------------------------------------------------------------------------

RangeTblEntry *FindEntry(const Query *query)
{
	ListCell *cell;
	foreach (cell, query->rtable) {
		auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind == RTE_VALUES && entry->alias == nullptr && entry->eref != nullptr &&
		    strcmp(entry->eref->aliasname, kEntryName) == 0)
			return entry;
	}
	return nullptr;
}

void Keep(Query *query)
{
	const char *statement = nodeToString(query);
	auto *entry = makeNode(RangeTblEntry);
	entry->rtekind = RTE_VALUES;
	entry->eref = makeAlias(kEntryName, list_make1(makeString(pstrdup("statement"))));
	entry->values_lists = list_make1(list_make1(
		makeConst(TEXTOID, -1, InvalidOid, -1, CStringGetTextDatum(statement), false, false)));
	entry->coltypes = list_make1_oid(TEXTOID);
	entry->coltypmods = list_make1_int(-1);
	entry->colcollations = list_make1_oid(InvalidOid);
	query->rtable = lappend(query->rtable, entry);
}

// EXPLAIN and DECLARE CURSOR hold the query that they are about.
Query *QueryIn(Query *query)
{
	if (query->commandType != CMD_UTILITY)
		return query;
	Node *statement = query->utilityStmt;
	Node *inner = nullptr;
	if (IsA(statement, ExplainStmt))
		inner = reinterpret_cast<ExplainStmt *>(statement)->query;
	else if (IsA(statement, DeclareCursorStmt))
		inner = reinterpret_cast<DeclareCursorStmt *>(statement)->query;
	if (inner == nullptr || !IsA(inner, Query) ||
	    reinterpret_cast<Query *>(inner)->commandType == CMD_UTILITY)
		return nullptr;
	return reinterpret_cast<Query *>(inner);
}

void KeepIssued(ParseState *pstate, Query *query, JumbleState *jumble)
{
	if (next_analyze != nullptr)
		next_analyze(pstate, query, jumble);
	query = QueryIn(query);
	if (storing || query == nullptr || query->rtable == NIL || !AnyHomedTable())
		return;
	if (NamesView(reinterpret_cast<Node *>(query), nullptr) && CanBeSentAsIssued(query))
		Keep(query);
}

// --- rights ----------------------------------------------------------------------------------------------------

bool HasRowSecurity(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	const bool has = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relrowsecurity;
	ReleaseSysCache(tuple);
	return has;
}

// Whether a table is used with the rights of a view's owner that the caller has not, or might not have.
bool LendsRights(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (!IsA(node, Query))
		return pg::WalkExpression(node, LendsRights, context);
	auto *query = reinterpret_cast<Query *>(node);
	ListCell *cell;
	foreach (cell, query->rtable) {
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		const Oid lender = entry->rtekind == RTE_RELATION ? pg::CheckedAs(query, entry) : InvalidOid;
		if (!OidIsValid(lender) || lender == GetUserId())
			continue;
		if (!pg::CallerMayUse(query, entry) || HasRowSecurity(entry->relid))
			return true;
	}
	return pg::WalkQuery(query, LendsRights, context);
}

}  // namespace

void RegisterIssued()
{
	next_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = KeepIssued;
}

ErrorData *CallWithoutKeeping(void (*body)(void *), void *argument)
{
	const bool before = storing;
	storing = true;
	ErrorData *error = pg::CallGuarded(body, argument);
	storing = before;
	return error;
}

void DropIssued(Query *rewritten)
{
	RangeTblEntry *entry = FindEntry(rewritten);
	if (entry != nullptr)
		entry->values_lists = NIL;
}

void HideIssued(Query *rewritten)
{
	RangeTblEntry *entry = FindEntry(rewritten);
	if (entry == nullptr)
		return;
	entry->rtekind = RTE_RESULT;
	entry->eref->colnames = NIL;
	entry->values_lists = entry->coltypes = entry->coltypmods = entry->colcollations = NIL;
}

Query *QueryToSend(Query *rewritten)
{
	const RangeTblEntry *entry = FindEntry(rewritten);
	if (entry == nullptr || entry->values_lists == NIL ||
	    !LendsRights(reinterpret_cast<Node *>(rewritten), nullptr))
		return rewritten;
	const auto *kept = linitial_node(Const, linitial_node(List, entry->values_lists));
	return static_cast<Query *>(stringToNode(TextDatumGetCString(kept->constvalue)));
}

AttrNumber ColumnOfView(Oid view, Oid table, AttrNumber attnum)
{
	Oid below;
	Query *definition;
	if (!LookThrough(view, &below, &definition))
		return 0;
	if (below != table)
		attnum = ColumnOfView(below, table, attnum);
	ListCell *cell;
	foreach (cell, definition->targetList) {
		const auto *column = lfirst_node(TargetEntry, cell);
		if (attnum != 0 && !column->resjunk && IsA(column->expr, Var) &&
		    reinterpret_cast<Var *>(column->expr)->varattno == attnum)
			return column->resno;
	}
	return 0;
}

}  // namespace homing::write
