#include "write/own_plan.hpp"

#include "pg/catalog.hpp"
#include "write/everywhere.hpp"
#include "write/execute_here.hpp"
#include "write/guard.hpp"
#include "write/modify_node.hpp"
#include "write/read_consistency.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"
#include "write/written_keys.hpp"

extern "C" {
#include "commands/trigger.h"
#include "executor/executor.h"
}

namespace homing::write {

namespace {

ExecutorStart_hook_type next_start = nullptr;
ExecProcNodeMtd modify = nullptr;  // the server's function for ModifyTable

[[gnu::hot]] TupleTableSlot *ServeModify(PlanState *node)
{
	return ServeRow(node, modify);
}

// The execution has a copy of the table's triggers. Where the guard is all there is, it does not run.
[[gnu::hot]] void LeaveOutGuard(ResultRelInfo *relation)
{
	const TriggerDesc *triggers = relation->ri_TrigDesc;
	if (triggers != nullptr && triggers->numtriggers == 1 &&
	    strcmp(triggers->triggers[0].tgname, kGuardTrigger) == 0)
		relation->ri_TrigDesc = nullptr;
}

void Start(QueryDesc *query, int flags)
{
	if (next_start != nullptr)
		next_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

// With the locks that keep the home here. False: "Homed Modify" has to decide.
[[gnu::hot]] bool IsServed(const HomedWrite &write, const QueryDesc *query, PlainKey *key)
{
	if (!FindPlainKey(write.scan, write.keys, query->params, key))
		return false;
	const WrittenKeys keys{&key->target, 1};
	HomeHere here{};
	Decision decision{};
	if (!pg::PgEntry([&] { return FindHomeHere(keys, &here); }))
		return false;
	if (HasChangedTables())
		CheckMayWriteRows();
	if (!LockHomeHere(here, &decision))
		return false;
	CheckSeesOwnWrites(write.query, query->params, &decision);
	CheckMayWriteHere();
	return true;
}

[[gnu::hot]] void StartServed(QueryDesc *query, Plan *plan, Oid relid, int flags)
{
	auto *exchanged = makeNode(PlannedStmt);
	*exchanged = *query->plannedstmt;
	exchanged->planTree = plan;
	query->plannedstmt = exchanged;
	Start(query, flags);

	ApproveWrites(relid, query->estate->es_query_cxt);
	auto *state = castNode(ModifyTableState, query->planstate);
	for (int i = 0; i < state->mt_nrels; ++i)
		LeaveOutGuard(&state->resultRelInfo[i]);
	modify = state->ps.ExecProcNodeReal;
	ExecSetExecProcNode(&state->ps, ServeModify);
}

// What EXPLAIN shows is the plan with the node.
[[gnu::hot]] void StartByOwnPlan(QueryDesc *query, int flags)
{
	if ((flags & EXEC_FLAG_EXPLAIN_ONLY) != 0 || query->instrument_options != 0 ||
	    !WritesByHome(query->plannedstmt)) {
		Start(query, flags);
		return;
	}
	const HomedWrite write = HomedWriteOf(query->plannedstmt);
	PlainKey key;
	if (IsA(write.plan, ModifyTable) && IsServed(write, query, &key))
		StartServed(query, write.plan, key.target.relid, flags);
	else
		Start(query, flags);
}

}  // namespace

void RegisterOwnPlan()
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = StartByOwnPlan;
}

}  // namespace homing::write
