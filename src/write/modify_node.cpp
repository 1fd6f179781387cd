#include "write/modify_node.hpp"

#include <string>
#include <vector>

#include "pg/boundary.hpp"
#include "pg/settings.hpp"
#include "write/execute_here.hpp"
#include "write/forward.hpp"
#include "write/guard.hpp"
#include "write/issued.hpp"
#include "write/parts.hpp"
#include "write/read_consistency.hpp"
#include "write/read_node.hpp"
#include "write/routed_insert.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"
#include "write/written_keys.hpp"

extern "C" {
#include "commands/explain.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

namespace {

struct HomedModifyState {
	CustomScanState css;
	Query *query;
	WrittenKeys keys;
	Decision decision;
	bool known;             // false: EXPLAIN without the values of the parameters
	bool executed;          // not served: it was sent and answered
	Tuplestorestate *rows;  // not served: its RETURNING rows
	TupleTableSlot *row;
};

HomedModifyState *StateOf(CustomScanState *node)
{
	return reinterpret_cast<HomedModifyState *>(node);
}

constexpr int kPlainWrite = 4;  // in custom_private

extern const CustomScanMethods kScanMethods;
extern const CustomExecMethods kExecMethods;

// --- execution ----------------------------------------------------------------------------------------

Node *CreateState(CustomScan *scan)
{
	auto *state = static_cast<HomedModifyState *>(palloc0(sizeof(HomedModifyState)));
	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &kExecMethods;
	return reinterpret_cast<Node *>(state);
}

// What is written in this region passes the guard.
void ApproveHere(HomedModifyState *state, EState *estate)
{
	if (!state->decision.serve && state->decision.part_count == 0)
		return;
	for (int i = 0; i < state->keys.target_count; ++i)
		ApproveWrites(state->keys.targets[i].relid, estate->es_query_cxt);
	if (state->decision.serve || state->decision.parts[0].region == state->decision.region)
		CheckMayWriteHere();
}

// The plan of this region is executed. Otherwise there are parts of the statement to be planned, or it
// must not run with the snapshot that it was started with.
bool RunsPlan(const HomedModifyState *state)
{
	return state->decision.serve && !state->decision.outdated;
}

void Begin(CustomScanState *node, EState *estate, int eflags)
{
	HomedModifyState *state = StateOf(node);
	auto *scan = castNode(CustomScan, node->ss.ps.plan);
	const bool explain_only = (eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0;

	state->query = linitial_node(Query, scan->custom_private);
	state->keys = EvaluateKeys(scan, lsecond_node(List, scan->custom_private), estate, explain_only);
	state->known = true;
	for (int i = 0; i < state->keys.target_count; ++i)
		state->known = state->known && state->keys.targets[i].known;
	state->decision.serve = true;  // EXPLAIN without parameters shows the plan of this region
	if (state->known) {
		MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
		state->decision = pg::PgEntry([&] { return Decide(state->keys, !explain_only); });
		MemoryContextSwitchTo(old);
	}
	if (!explain_only) {
		CheckSeesOwnWrites(state->query, estate->es_param_list_info, &state->decision);
		ApproveHere(state, estate);
	}
	if (RunsPlan(state))
		node->custom_ps = list_make1(
			ExecInitNode(static_cast<Plan *>(linitial(scan->custom_plans)), estate, eflags));
	else
		estate->es_auxmodifytables = NIL;  // writes in WITH run where the statement does
}

Query *PartOf(Query *query, HomedModifyState *state, const RegionPart *part)
{
	const WrittenTarget *target = &state->keys.targets[0];
	return target->sharing == Sharing::kValues ? WithRows(query, part)
	                                           : WithHomes(query, part, target);
}

Query *PartToSend(HomedModifyState *state, const RegionPart *part)
{
	Query *query = PartOf(QueryToSend(state->query), state, part);
	// A view may not show the key.
	return query != nullptr ? query : PartOf(state->query, state, part);
}

bool ReadsBesides(Query *query)
{
	return pg::PgEntry([&] { return ReadsOtherHomedTables(query); });
}

// VALUES with several rows returns them in its order, unless some were left out: then nobody can tell
// which, and the rows follow each other by region.
void MergeRows(HomedModifyState *state, Tuplestorestate **rows)
{
	const Decision *decision = &state->decision;
	bool complete = state->keys.targets[0].sharing == Sharing::kValues;
	int row_count = 0;
	for (int i = 0; i < decision->part_count; ++i) {
		complete = complete && tuplestore_tuple_count(rows[i]) == decision->parts[i].row_count;
		row_count += decision->parts[i].row_count;
	}
	if (complete) {
		auto *part_of = static_cast<int *>(palloc0(sizeof(int) * (row_count + 1)));
		for (int i = 0; i < decision->part_count; ++i) {
			for (int j = 0; j < decision->parts[i].row_count; ++j)
				part_of[decision->parts[i].rows[j]] = i;
		}
		for (int row = 0; row < row_count; ++row) {
			if (tuplestore_gettupleslot(rows[part_of[row]], true, false, state->row))
				tuplestore_puttupleslot(state->rows, state->row);
		}
	}
	for (int i = 0; i < decision->part_count; ++i) {
		while (!complete && tuplestore_gettupleslot(rows[i], true, false, state->row))
			tuplestore_puttupleslot(state->rows, state->row);
		tuplestore_end(rows[i]);
	}
}

// The answers of other regions, from part `first` on, each within a savepoint of its own. False: the home of a row has
// moved, its key was claimed meanwhile; then none of them has done anything.
bool TakeParts(HomedModifyState *state, EState *estate, TupleDesc returning, int first,
               Tuplestorestate **rows)
{
	const Decision *decision = &state->decision;
	std::vector<remote::Result> results;
	bool moved = false;
	for (int i = first; i < decision->part_count; ++i) {
		try {
			results.push_back(Await(decision->parts[i].region));
		} catch (const remote::Error &error) {
			if (error.sqlstate != kNotHomeState)
				throw;
			moved = true;
		}
	}
	for (int i = first; i < decision->part_count; ++i)
		EndAside(decision->parts[i].region, !moved);
	for (int i = first; !moved && i < decision->part_count; ++i)
		TakeAnswer(results[static_cast<std::size_t>(i - first)], estate, returning, rows[i]);
	return !moved;
}

// All other regions work while this one does its own part; where a key may be claimed meanwhile, before that. False:
// one was, and nothing is done.
bool RunParts(HomedModifyState *state, EState *estate, TupleDesc returning)
{
	const Decision *decision = &state->decision;
	const bool aside = decision->claimable, reads = ReadsBesides(state->query);
	auto *outgoing = static_cast<Outgoing *>(palloc0(sizeof(Outgoing) * decision->part_count));
	int local = 0;
	if (decision->parts[0].region == decision->region)
		local = 1;
	for (int i = local; i < decision->part_count; ++i) {
		RemoteText text = DeparseForRegion(PartToSend(state, &decision->parts[i]));
		text.reads = reads;
		outgoing[i] = Prepare(text, estate->es_param_list_info);
		pg::PgEntry(
			[&] { (aside ? PostAside : Post)(decision->parts[i].region, ToRemote(outgoing[i])); });
	}
	// RETURNING rows of every part by themselves, to be put into order.
	auto **rows =
		static_cast<Tuplestorestate **>(palloc0(sizeof(Tuplestorestate *) * decision->part_count));
	for (int i = 0; returning->natts > 0 && i < decision->part_count; ++i)
		rows[i] = tuplestore_begin_heap(false, false, work_mem);
	if (aside && !pg::PgEntry([&] { return TakeParts(state, estate, returning, local, rows); }))
		return false;
	if (local == 1)
		estate->es_processed += WriteHere(PartOf(state->query, state, &decision->parts[0]), estate,
		                                  estate->es_param_list_info, rows[0]);
	pg::PgEntry([&] {
		for (int i = local; !aside && i < decision->part_count; ++i) {
			const remote::Result result = Answer(decision->parts[i].region);
			TakeAnswer(result, estate, returning, rows[i]);
		}
	});
	if (returning->natts > 0)
		MergeRows(state, rows);
	return true;
}

// Runs the whole statement here, planned anew.
void RunHere(HomedModifyState *state, EState *estate, TupleDesc returning)
{
	Tuplestorestate *rows = returning->natts > 0 ? state->rows : nullptr;
	auto *query = static_cast<Query *>(copyObjectImpl(state->query));
	estate->es_processed += WriteHere(query, estate, estate->es_param_list_info, rows);
}

// With a snapshot that has what came here since the statement started.
void RunWithNewSnapshot(HomedModifyState *state, EState *estate, TupleDesc returning,
                        void (*body)(HomedModifyState *, EState *, TupleDesc))
{
	Snapshot outer = estate->es_snapshot;
	PushActiveSnapshot(GetTransactionSnapshot());
	estate->es_snapshot = GetActiveSnapshot();
	body(state, estate, returning);
	estate->es_snapshot = outer;
	PopActiveSnapshot();
}

void RunAsDecided(HomedModifyState *state, EState *estate, TupleDesc returning);

RemoteText TextOf(HomedModifyState *state)
{
	List *stored = castNode(CustomScan, state->css.ss.ps.plan)->custom_private;
	Query *query = QueryToSend(state->query);
	// Who executes the plan next may have other rights.
	const int place = query == state->query ? 2 : 3;
	RemoteText text = KeptText(query, list_nth_cell(stored, place), GetMemoryChunkContext(stored));
	text.reads = ReadsBesides(state->query);
	return text;
}

// The home may have moved, and the region that is asked knows it before us: wait until we do, look again.
void FollowHome(HomedModifyState *state, EState *estate, TupleDesc returning)
{
	const int patience = pg::settings.handover_timeout_ms;
	const TimestampTz give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), patience);
	const RemoteText text = TextOf(state);
	while (!ForwardWhole(text, state->decision.region, state->decision.claimable, estate, returning,
	                     state->rows)) {
		const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), give_up);
		if (left <= 0 || !pg::AwaitChange(state->decision.seen, left))
			pg::PgEntry([] { throw HomeMoved(); });
		state->decision = pg::PgEntry([&] { return Decide(state->keys, true); });
		if (!state->decision.serve && state->decision.part_count == 0)
			continue;
		ApproveHere(state, estate);
		RunWithNewSnapshot(state, estate, returning, RunAsDecided);
		return;
	}
}

// As FollowHome, for rows of several homes.
void FollowHomes(HomedModifyState *state, EState *estate, TupleDesc returning)
{
	if (RunParts(state, estate, returning))
		return;
	if (!pg::AwaitChange(state->decision.seen, pg::settings.handover_timeout_ms))
		pg::PgEntry([] { throw HomeMoved(); });
	state->decision = pg::PgEntry([&] { return Decide(state->keys, true); });
	ApproveHere(state, estate);
	RunWithNewSnapshot(state, estate, returning, RunAsDecided);
}

void RunAsDecided(HomedModifyState *state, EState *estate, TupleDesc returning)
{
	if (state->decision.serve)
		RunHere(state, estate, returning);
	else if (state->decision.part_count == 0)
		FollowHome(state, estate, returning);
	else if (state->keys.targets[0].sharing == Sharing::kSelect ||
	         state->keys.targets[0].sharing == Sharing::kSelectThere)
		ExecuteRoutedInsert(state->query, state->keys.targets[0].homed, estate, returning,
		                    state->rows);
	else if (state->keys.targets[0].sharing == Sharing::kMove)
		ExecuteMovingUpdate(state->query, state->keys.targets[0].homed, estate, returning,
		                    state->rows);
	else
		FollowHomes(state, estate, returning);
}

void RunElsewhere(HomedModifyState *state)
{
	EState *estate = state->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	// Without the row addresses that FOR UPDATE needs here.
	TupleDesc returning = ExecCleanTypeFromTL(state->css.ss.ps.plan->targetlist);
	state->executed = true;
	state->row = ExecInitExtraTupleSlot(estate, returning, &TTSOpsMinimalTuple);
	state->rows = tuplestore_begin_heap(false, false, work_mem);
	if (state->decision.outdated)
		RunWithNewSnapshot(state, estate, returning, RunAsDecided);
	else
		RunAsDecided(state, estate, returning);
	MemoryContextSwitchTo(old);
}

TupleTableSlot *Execute(CustomScanState *node)
{
	HomedModifyState *state = StateOf(node);
	if (RunsPlan(state))
		return ServeRow(static_cast<PlanState *>(linitial(node->custom_ps)), ExecProcNode);
	if (!state->executed)
		RunElsewhere(state);
	return tuplestore_gettupleslot(state->rows, true, false, state->row) ? state->row : nullptr;
}

void End(CustomScanState *node)
{
	HomedModifyState *state = StateOf(node);
	if (node->custom_ps != NIL)
		ExecEndNode(static_cast<PlanState *>(linitial(node->custom_ps)));
	if (state->rows != nullptr)
		tuplestore_end(state->rows);
}

void ReScan(CustomScanState *)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("cannot execute a write twice")));
}

const char *RegionNames(const Decision *decision)
{
	if (decision->part_count == 0)
		return pg::PgEntry([&] {
			const pg::Catalog *catalog = pg::CurrentCatalog();
			const char *name =
				catalog != nullptr ? catalog->RegionName(decision->region).c_str() : "unknown";
			return pg::PgCall([&] { return static_cast<const char *>(pstrdup(name)); });
		});
	StringInfoData names;
	initStringInfo(&names);
	for (int i = 0; i < decision->part_count; ++i)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", decision->parts[i].name);
	return names.data;
}

void Explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	HomedModifyState *state = StateOf(node);
	ExplainPropertyText("Home",
	                    state->known ? RegionNames(&state->decision)
	                                 : "decided when the key is known",
	                    es);
	if (!state->decision.serve || !state->known)
		ExplainPropertyText("Remote SQL", RemoteSql(QueryToSend(state->query)), es);
}

const CustomScanMethods kScanMethods = {"Homed Modify", CreateState};

const CustomExecMethods kExecMethods = {
	"Homed Modify", Begin,   Execute, End,     ReScan,  nullptr, nullptr,
	nullptr,        nullptr, nullptr, nullptr, nullptr, Explain,
};

}  // namespace

void RegisterModifyNode()
{
	RegisterCustomScanMethods(&kScanMethods);
}

[[gnu::hot]] bool WritesByHome(const PlannedStmt *statement)
{
	return IsA(statement->planTree, CustomScan) &&
	       castNode(CustomScan, statement->planTree)->methods == &kScanMethods;
}

Plan *PlanOfWrite(const PlannedStmt *statement)
{
	return static_cast<Plan *>(linitial(castNode(CustomScan, statement->planTree)->custom_plans));
}

Query *QueryOfWrite(const PlannedStmt *statement)
{
	return linitial_node(Query, castNode(CustomScan, statement->planTree)->custom_private);
}

[[gnu::hot]] const PlainWrite *PlainWriteIn(const PlannedStmt *statement)
{
	if (!WritesByHome(statement))
		return nullptr;
	return PlainWriteOf(static_cast<Node *>(
		list_nth(castNode(CustomScan, statement->planTree)->custom_private, kPlainWrite)));
}

void WrapPlan(PlannedStmt *statement, const WriteAnalysis *analysis, Query *query)
{
	Plan *child = statement->planTree;
	auto *scan = makeNode(CustomScan);
	scan->methods = &kScanMethods;
	scan->custom_plans = list_make1(child);
	List *keys = StoreKeys(scan, analysis);
	Node *plain = IsA(child, ModifyTable) ? StorePlainWrite(scan, keys) : nullptr;
	scan->custom_private = list_make5(query, keys, NIL, NIL, plain);  // texts: see TextOf
	scan->scan.plan.startup_cost = child->startup_cost;
	scan->scan.plan.total_cost = child->total_cost;
	scan->scan.plan.plan_rows = child->plan_rows;
	scan->scan.plan.plan_width = child->plan_width;
	scan->scan.plan.plan_node_id = child->plan_node_id;

	// The child's rows pass through unchanged.
	ListCell *cell;
	foreach (cell, child->targetlist) {
		auto *entry = lfirst_node(TargetEntry, cell);
		auto *row_entry = static_cast<TargetEntry *>(copyObjectImpl(entry));
		Var *column = makeVarFromTargetEntry(INDEX_VAR, row_entry);
		column->varattno = list_length(scan->custom_scan_tlist) + 1;
		scan->custom_scan_tlist = lappend(scan->custom_scan_tlist, row_entry);
		auto *out = makeTargetEntry(reinterpret_cast<Expr *>(column), column->varattno,
		                            entry->resname, entry->resjunk);
		scan->scan.plan.targetlist = lappend(scan->scan.plan.targetlist, out);
	}
	statement->planTree = reinterpret_cast<Plan *>(scan);
}

}  // namespace homing::write
