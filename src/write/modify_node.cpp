#include "write/modify_node.hpp"

#include <string>

#include "pg/boundary.hpp"
#include "pg/settings.hpp"
#include "write/forward.hpp"
#include "write/guard.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"
#include "write/written_keys.hpp"

extern "C" {
#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/tuplestore.h"
}

namespace homing::write {

namespace {

struct HomedModifyState {
	CustomScanState css;
	Query *query;
	WrittenKeys keys;
	char *region_name;       // where it runs; nullptr: EXPLAIN cannot know
	core::RegionId region;
	bool serve;
	bool executed;           // a forwarded statement was sent
	Tuplestorestate *rows;   // its RETURNING rows; nullptr: none
	TupleTableSlot *row;
};

HomedModifyState *StateOf(CustomScanState *node)
{
	return reinterpret_cast<HomedModifyState *>(node);
}

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

void Begin(CustomScanState *node, EState *estate, int eflags)
{
	HomedModifyState *state = StateOf(node);
	auto *scan = castNode(CustomScan, node->ss.ps.plan);
	const bool explain_only = (eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0;

	state->query = linitial_node(Query, scan->custom_private);
	state->keys = EvaluateKeys(scan, lsecond_node(List, scan->custom_private), estate, explain_only);
	bool known = true;
	for (int i = 0; i < state->keys.target_count; ++i)
		known = known && state->keys.targets[i].known;
	if (known) {
		const Decision decision = pg::PgEntry([&] { return Decide(state->keys, !explain_only); });
		state->serve = decision.serve;
		state->region = decision.region;
		state->region_name = decision.region_name;
	} else {
		state->serve = true;  // EXPLAIN shows the plan of this region
	}
	if (!state->serve)
		return;
	if (!explain_only) {
		CheckMayWriteHere();
		for (int i = 0; i < state->keys.target_count; ++i)
			ApproveWrites(state->keys.targets[i].relid, estate->es_query_cxt);
	}
	node->custom_ps = list_make1(ExecInitNode(static_cast<Plan *>(linitial(scan->custom_plans)), estate, eflags));
}

TupleTableSlot *NextForwarded(HomedModifyState *state)
{
	if (!state->executed) {
		EState *estate = state->css.ss.ps.state;
		MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
		ForwardedWrite write{state->query, state->region, estate, state->css.ss.ss_ScanTupleSlot->tts_tupleDescriptor};
		state->executed = true;
		state->row = ExecInitExtraTupleSlot(estate, write.returning, &TTSOpsMinimalTuple);
		state->rows = ExecuteForwarded(write);
		MemoryContextSwitchTo(old);
	}
	if (state->rows == nullptr || !tuplestore_gettupleslot(state->rows, true, false, state->row))
		return nullptr;
	return state->row;
}

TupleTableSlot *Execute(CustomScanState *node)
{
	HomedModifyState *state = StateOf(node);
	if (state->serve)
		return ExecProcNode(static_cast<PlanState *>(linitial(node->custom_ps)));
	return NextForwarded(state);
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

void Explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	HomedModifyState *state = StateOf(node);
	ExplainPropertyText("Home", state->region_name != nullptr ? state->region_name : "decided when the key is known",
	                    es);
	if (!state->serve || state->region_name == nullptr)
		ExplainPropertyText("Remote SQL", RemoteSql(state->query), es);
}

const CustomScanMethods kScanMethods = {"Homed Modify", CreateState};

const CustomExecMethods kExecMethods = {
	"Homed Modify", Begin, Execute, End, ReScan, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, Explain,
};

}  // namespace

void RegisterModifyNode()
{
	RegisterCustomScanMethods(&kScanMethods);
}

void WrapPlan(PlannedStmt *statement, const WriteAnalysis *analysis, Query *query)
{
	Plan *child = statement->planTree;
	auto *scan = makeNode(CustomScan);
	scan->methods = &kScanMethods;
	scan->custom_plans = list_make1(child);
	scan->custom_private = list_make2(query, StoreKeys(scan, analysis));
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
		auto *out = makeTargetEntry(reinterpret_cast<Expr *>(column), column->varattno, entry->resname, entry->resjunk);
		scan->scan.plan.targetlist = lappend(scan->scan.plan.targetlist, out);
	}
	statement->planTree = reinterpret_cast<Plan *>(scan);
}

}  // namespace homing::write
