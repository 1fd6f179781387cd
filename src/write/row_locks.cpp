#include "write/row_locks.hpp"

#include "pg/compat.hpp"
#include "write/key_conditions.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "parser/parsetree.h"
}

namespace homing::write {

namespace {

// The query of a foreign key's trigger. It locks the row that it sees here: a key of another keyspace may
// have its home elsewhere, and a session that serves a forwarded statement asks nobody.
bool IsForeignKeyCheck(const Query *query, const RowMarkClause *mark, const RangeTblEntry *entry)
{
	if (mark->strength != LCS_FORKEYSHARE || entry->inh || list_length(query->targetList) != 1)
		return false;
	auto *value = linitial_node(TargetEntry, query->targetList);
	return IsA(value->expr, Const) && reinterpret_cast<Const *>(value->expr)->consttype == INT4OID;
}

// A query, and where it stands in the query around it.
struct Level {
	Query *query;
	const Level *around;  // nullptr: its rows go elsewhere than into FROM
	int rtindex;          // in `around`
};

// The keys that conditions of this level, or of one around it, allow for a column.
List *FindOnLevel(const Level *level, int varno, Key key)
{
	List *columns;
	List *sources = FindInConditions(level->query, varno, &key, &columns);
	if (sources != NIL || level->around == nullptr || level->query->setOperations != nullptr)
		return sources;
	ListCell *cell;
	foreach (cell, level->query->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (entry->resjunk || !IsOneOf(reinterpret_cast<Node *>(entry->expr), columns))
			continue;
		key.attnum = entry->resno;
		sources = FindOnLevel(level->around, level->rtindex, key);
		if (sources != NIL)
			return sources;
	}
	return NIL;
}

void AnalyseMark(const Level *level, RowMarkClause *mark, WriteAnalysis *analysis)
{
	RangeTblEntry *entry = rt_fetch(mark->rti, level->query->rtable);
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const pg::HomedTable *homed =
		entry->rtekind == RTE_RELATION && catalog != nullptr ? catalog->Find(entry->relid) : nullptr;
	if (homed == nullptr || IsForeignKeyCheck(level->query, mark, entry))
		return;
	auto *target = static_cast<WriteTarget *>(palloc0(sizeof(WriteTarget)));
	target->relid = entry->relid;
	target->homed = homed->relid;
	analysis->targets = lappend(analysis->targets, target);
	target->sources = FindOnLevel(level, static_cast<int>(mark->rti), KeyOfTarget(target, homed));
	if (target->sources == NIL)
		target->unproved = "No condition gives the key of the rows to be locked.";
}

void AnalyseLevel(const Level *level, WriteAnalysis *analysis);

bool AnalyseSubLinks(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Query)) {
		const Level level{reinterpret_cast<Query *>(node), nullptr, 0};
		AnalyseLevel(&level, static_cast<WriteAnalysis *>(context));
		return false;
	}
	return pg::WalkExpression(node, AnalyseSubLinks, context);
}

void AnalyseLevel(const Level *level, WriteAnalysis *analysis)
{
	Query *query = level->query;
	ListCell *cell;
	foreach (cell, query->rowMarks)
		AnalyseMark(level, lfirst_node(RowMarkClause, cell), analysis);
	foreach (cell, query->rtable) {
		auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind != RTE_SUBQUERY)
			continue;
		const Level inner{entry->subquery, level, foreach_current_index(cell) + 1};
		AnalyseLevel(&inner, analysis);
	}
	foreach (cell, query->cteList) {
		const Level inner{castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery), nullptr, 0};
		AnalyseLevel(&inner, analysis);
	}
	if (query->hasSubLinks)
		(void) pg::WalkQuery(query, AnalyseSubLinks, analysis,
		                     QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
}

bool LockWalker(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Query))
		return LocksRows(reinterpret_cast<Query *>(node));
	return pg::WalkExpression(node, LockWalker, nullptr);
}

}  // namespace

bool LocksRows(Query *query)
{
	if (query->rowMarks != NIL)
		return true;
	ListCell *cell;
	foreach (cell, query->rtable) {
		auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind == RTE_SUBQUERY && LocksRows(entry->subquery))
			return true;
	}
	foreach (cell, query->cteList) {
		if (LocksRows(castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery)))
			return true;
	}
	return query->hasSubLinks && pg::WalkQuery(query, LockWalker, nullptr,
	                                           QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
}

void AnalyseRowLocks(Query *query, WriteAnalysis *analysis)
{
	if (!LocksRows(query))
		return;
	const Level level{query, nullptr, 0};
	AnalyseLevel(&level, analysis);
}

}  // namespace homing::write
