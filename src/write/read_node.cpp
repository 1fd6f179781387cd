#include "write/read_node.hpp"

#include <string>

#include "pg/catalog.hpp"
#include "pg/compat.hpp"
#include "write/beside_key.hpp"
#include "write/forward.hpp"
#include "write/issued.hpp"
#include "write/key_finder.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"
#include "write/written_keys.hpp"

extern "C" {
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

namespace {

// custom_private: the query, and, in place of a plan, the number and the name of the region.
struct HomedReadState {
	CustomScanState css;
	Query *query;
	core::RegionId region;
	const char *region_name;
	bool any_order;         // the rows may be wanted again or backwards
	Tuplestorestate *rows;  // nullptr: not read yet
	TupleTableSlot *row;
};

HomedReadState *StateOf(CustomScanState *node)
{
	return reinterpret_cast<HomedReadState *>(node);
}

extern const CustomScanMethods kScanMethods;
extern const CustomExecMethods kExecMethods;

Node *CreateState(CustomScan *)
{
	auto *state = static_cast<HomedReadState *>(palloc0(sizeof(HomedReadState)));
	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &kExecMethods;
	return reinterpret_cast<Node *>(state);
}

void Begin(CustomScanState *node, EState *estate, int flags)
{
	HomedReadState *state = StateOf(node);
	auto *scan = castNode(CustomScan, node->ss.ps.plan);
	state->query = linitial_node(Query, scan->custom_private);
	if (list_length(scan->custom_private) == 1)
		return;  // only carries the query along
	state->region = core::RegionId(static_cast<std::int16_t>(intVal(lsecond(scan->custom_private))));
	state->region_name = strVal(lthird(scan->custom_private));
	state->any_order = (flags & (EXEC_FLAG_REWIND | EXEC_FLAG_BACKWARD)) != 0;
	state->row = ExecInitExtraTupleSlot(estate, node->ss.ss_ScanTupleSlot->tts_tupleDescriptor,
	                                    &TTSOpsMinimalTuple);
}

void Read(HomedReadState *state)
{
	EState *estate = state->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	TupleDesc desc = state->row->tts_tupleDescriptor;
	RemoteText text = DeparseForRegion(QueryToSend(state->query));
	text.reads = true;
	const Outgoing outgoing = Prepare(text, estate->es_param_list_info);
	state->rows = tuplestore_begin_heap(state->any_order, false, work_mem);
	pg::PgEntry([&] {
		PostRead(state->region, ToRemote(outgoing));
		TakeAnswer(Answer(state->region, "read"), estate, desc, state->rows);
	});
	MemoryContextSwitchTo(old);
}

TupleTableSlot *Next(CustomScanState *node)
{
	HomedReadState *state = StateOf(node);
	if (state->rows == nullptr)
		Read(state);
	const bool forward = ScanDirectionIsForward(node->ss.ps.state->es_direction);
	if (!tuplestore_gettupleslot(state->rows, forward, false, state->row))
		return nullptr;
	return state->row;
}

void End(CustomScanState *node)
{
	HomedReadState *state = StateOf(node);
	if (state->rows != nullptr)
		tuplestore_end(state->rows);
}

void ReScan(CustomScanState *node)
{
	HomedReadState *state = StateOf(node);
	if (state->rows != nullptr)
		tuplestore_rescan(state->rows);
}

void Explain(CustomScanState *node, List *, ExplainState *es)
{
	HomedReadState *state = StateOf(node);
	ExplainPropertyText("Home", state->region_name, es);
	ExplainPropertyText("Remote SQL", RemoteSql(QueryToSend(state->query)), es);
}

const CustomScanMethods kScanMethods = {"Homed Read", CreateState};

const CustomExecMethods kExecMethods = {
	"Homed Read", Begin,   Next,    End,     ReScan,  nullptr, nullptr,
	nullptr,      nullptr, nullptr, nullptr, nullptr, Explain,
};

// --- what a query reads -----------------------------------------------------------------------------------

// Looks at every table of a query and its subqueries; ends the walk when `seen` returns true.
struct Tables {
	bool (*seen)(const RangeTblEntry *entry, void *argument);
	void *argument;
	bool (*skipped)(const Query *query, int index);  // may be nullptr
};

bool WalkTables(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	if (!IsA(node, Query))
		return pg::WalkExpression(node, WalkTables, context);
	auto *query = reinterpret_cast<Query *>(node);
	const auto *tables = static_cast<const Tables *>(context);
	ListCell *cell;
	int index = 0;
	foreach (cell, query->rtable) {
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		++index;
		if (tables->skipped != nullptr && tables->skipped(query, index))
			continue;
		if (entry->rtekind == RTE_RELATION && tables->seen(entry, tables->argument))
			return true;
	}
	return pg::WalkQuery(query, WalkTables, context);
}

bool IsHomed(const RangeTblEntry *entry, void *catalog)
{
	return static_cast<const pg::Catalog *>(catalog)->Find(entry->relid) != nullptr;
}

// What a query writes or locks is read where it is at home; ON CONFLICT's "excluded" is not read.
bool IsWritten(const Query *query, int index)
{
	if (query->resultRelation == index ||
	    (query->onConflict != nullptr && query->onConflict->exclRelIndex == index))
		return true;
	ListCell *cell;
	foreach (cell, query->rowMarks) {
		if (lfirst_node(RowMarkClause, cell)->rti == static_cast<Index>(index))
			return true;
	}
	return false;
}

struct Counting {
	const pg::Catalog *catalog;
	int homed;
};

bool CountHomed(const RangeTblEntry *entry, void *argument)
{
	auto *counting = static_cast<Counting *>(argument);
	if (counting->catalog->Find(entry->relid) != nullptr)
		++counting->homed;
	return false;
}

// Views are looked through, and the system's own tables are the same everywhere.
bool IsOnlyHere(const RangeTblEntry *entry, void *catalog)
{
	return entry->relkind != RELKIND_VIEW && entry->relid >= FirstNormalObjectId &&
	       !IsHomed(entry, catalog);
}

// A homed table of a query's top level whose keys are those of all others that it reads. 0: none.
int TableOfAllKeys(Query *query, const pg::Catalog *catalog)
{
	if (query->commandType != CMD_SELECT)
		return 0;
	int index = 0;
	ListCell *cell;
	foreach (cell, query->rtable) {
		++index;
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		if (entry->rtekind == RTE_RELATION && catalog->Find(entry->relid) != nullptr &&
		    ReadsBesideKey(query, index))
			return index;
	}
	return 0;
}

// Marks homed tables of the query's levels as if their rows were to be locked, which is a way to ask for their keys.
// With `only`, that one of the top level. Returns their number.
int Mark(Query *query, const pg::Catalog *catalog, int only)
{
	int index = 0, count = 0;
	ListCell *cell;
	foreach (cell, query->rtable) {
		++index;
		const auto *entry = lfirst_node(RangeTblEntry, cell);
		if (only > 0 && index != only)
			continue;
		if (entry->rtekind == RTE_SUBQUERY)
			count += Mark(entry->subquery, catalog, 0);
		if (entry->rtekind != RTE_RELATION || catalog->Find(entry->relid) == nullptr)
			continue;
		++count;
		if (index == query->resultRelation)
			continue;  // its keys are looked for anyway
		auto *mark = makeNode(RowMarkClause);
		mark->rti = static_cast<Index>(index);
		mark->strength = LCS_FORUPDATE;
		query->rowMarks = lappend(query->rowMarks, mark);
	}
	return count;
}

// A copy of the query that asks for the keys of every homed table. nullptr: there are some in expressions.
Query *AskForKeys(Query *query, const pg::Catalog *catalog)
{
	auto *asking = static_cast<Query *>(copyObjectImpl(query));
	Counting counting{catalog, 0};
	Tables tables{CountHomed, &counting, nullptr};
	(void) WalkTables(reinterpret_cast<Node *>(query), &tables);
	const int only = counting.homed > 1 ? TableOfAllKeys(query, catalog) : 0;
	const int marked = Mark(asking, catalog, only);
	return only > 0 || marked == counting.homed ? asking : nullptr;
}

}  // namespace

void RegisterReadNode()
{
	RegisterCustomScanMethods(&kScanMethods);
}

bool ReadsHomedTables(Query *query)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr || catalog->tables.empty())
		return false;
	Tables tables{IsHomed, const_cast<pg::Catalog *>(catalog), nullptr};
	return WalkTables(reinterpret_cast<Node *>(query), &tables);
}

bool ReadsOtherHomedTables(Query *query)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr)
		return false;
	Tables tables{IsHomed, const_cast<pg::Catalog *>(catalog), IsWritten};
	return WalkTables(reinterpret_cast<Node *>(query), &tables);
}

void AttachQuery(PlannedStmt *statement, Query *query)
{
	auto *carrier = makeNode(CustomScan);
	carrier->methods = &kScanMethods;
	carrier->custom_private = list_make1(query);
	statement->subplans = lappend(statement->subplans, carrier);
}

Query *AttachedQuery(const PlannedStmt *statement)
{
	if (statement->subplans == NIL || llast(statement->subplans) == nullptr ||
	    !IsA(llast(statement->subplans), CustomScan))
		return nullptr;
	const auto *carrier = static_cast<CustomScan *>(llast(statement->subplans));
	return carrier->methods == &kScanMethods ? linitial_node(Query, carrier->custom_private)
	                                         : nullptr;
}

void RefusePlace(const char *purpose, const char *why)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("cannot tell where to read homed tables"), errdetail("%s %s", purpose, why),
	         errhint("Give the keys of the rows in conditions of the form key = value, commit before, or set "
	                 "homing.read_consistency to 'eventual' to read what is in this region.")));
	pg_unreachable();
}

ReadPlace PlaceOfRead(Query *query, ParamListInfo params, const char *purpose, bool hold)
{
	const pg::Catalog *catalog = pg::PgEntry([] { return pg::CurrentCatalog(); });
	Query *asking = pg::PgEntry([&] { return AskForKeys(query, catalog); });
	if (asking == nullptr)
		RefusePlace(
			purpose,
			"A homed table is read in an expression or in WITH, where its keys are not looked for.");
	const WriteAnalysis *analysis = pg::PgEntry([&] { return AnalyseWrite(asking, params); });
	if (analysis == nullptr)
		return {true, {}, false};

	auto *scan = makeNode(CustomScan);
	List *stored = StoreKeys(scan, analysis);
	EState *estate = CreateExecutorState();
	estate->es_param_list_info = params;
	const WrittenKeys keys = EvaluateKeys(scan, stored, estate, false);
	for (int i = 0; i < keys.target_count; ++i) {
		if (keys.targets[i].unproved != nullptr)
			RefusePlace(purpose, psprintf("No condition gives the keys of \"%s\".",
			                              get_rel_name(keys.targets[i].relid)));
	}
	bool differ = false;
	const ReadPlace place = pg::PgEntry([&]() -> ReadPlace {
		try {
			const Decision decision = Decide(keys, hold);
			return {decision.serve, decision.region, decision.outdated};
		} catch (const remote::Error &error) {
			if (error.sqlstate != "0A000")
				throw;
			differ = true;
			return {true, {}, false};
		}
	});
	if (differ)
		RefusePlace(purpose, "The rows have their homes at different regions.");
	FreeExecutorState(estate);
	return place;
}

void ReadAt(core::RegionId region, QueryDesc *desc)
{
	PlannedStmt *planned = desc->plannedstmt;
	Query *query = AttachedQuery(planned);
	char *name = pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		const std::string &known = catalog->RegionName(region);
		return pg::PgCall([&] { return pstrdup(known.c_str()); });
	});
	Tables tables{IsOnlyHere,
	              const_cast<pg::Catalog *>(pg::PgEntry([] { return pg::CurrentCatalog(); })),
	              nullptr};
	if (WalkTables(reinterpret_cast<Node *>(query), &tables))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot read homed tables and other tables in one statement now"),
		         errdetail("Homed tables are read at region \"%s\" now.", name),
		         errhint("Read them in statements of their own, commit before, or set homing.read_consistency "
		                 "to 'eventual' to read what is in this region.")));

	auto *scan = makeNode(CustomScan);
	scan->methods = &kScanMethods;
	scan->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	scan->custom_private = list_make3(query, makeInteger(region.value), makeString(name));
	scan->scan.plan.plan_rows = planned->planTree->plan_rows;
	scan->scan.plan.plan_width = planned->planTree->plan_width;
	ListCell *cell;
	foreach (cell, planned->planTree->targetlist) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (entry->resjunk)
			continue;
		auto *row_entry = static_cast<TargetEntry *>(copyObjectImpl(entry));
		row_entry->resno = static_cast<AttrNumber>(list_length(scan->custom_scan_tlist) + 1);
		Var *column = makeVarFromTargetEntry(INDEX_VAR, row_entry);
		column->varattno = row_entry->resno;
		scan->custom_scan_tlist = lappend(scan->custom_scan_tlist, row_entry);
		auto *out = makeTargetEntry(reinterpret_cast<Expr *>(column), row_entry->resno,
		                            entry->resname, false);
		out->resorigtbl = entry->resorigtbl;
		out->resorigcol = entry->resorigcol;
		scan->scan.plan.targetlist = lappend(scan->scan.plan.targetlist, out);
	}

	auto *exchanged = makeNode(PlannedStmt);
	*exchanged = *planned;
	exchanged->planTree = reinterpret_cast<Plan *>(scan);
	exchanged->subplans = NIL;
	exchanged->parallelModeNeeded = false;
	desc->plannedstmt = exchanged;
}

}  // namespace homing::write
