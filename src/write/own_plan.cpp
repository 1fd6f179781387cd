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

TupleTableSlot *ServeModify(PlanState *node)
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

// What this transaction wrote elsewhere, the statement may have to read. The exception.
[[gnu::noinline]] void CheckReads(const QueryDesc *query, const HomeHere &here)
{
	const Decision decision = DecisionToServe(here);
	CheckSeesOwnWrites(QueryOfWrite(query->plannedstmt), query->params, &decision);
}

// With the locks that keep the home here. False: "Homed Modify" has to decide.
[[gnu::hot]] bool IsServed(const PlainWrite &write, const QueryDesc *query)
{
	uint64 hash;
	HomeHere here;
	if (!HashOfPlainKey(write, query->params, &hash) || !FindHomeHere(write.homed, hash, &here))
		return false;
	if (HasChangedTables())
		CheckMayWriteRows();
	if (!LockHomeHere(here))
		return false;
	if (WroteElsewhere())
		CheckReads(query, here);
	CheckMayWriteHere();
	return true;
}

[[gnu::noinline]] void MakeServed(const PlainWrite &write, PlannedStmt *statement)
{
	auto *served = static_cast<PlannedStmt *>(
		MemoryContextAlloc(GetMemoryChunkContext(statement), sizeof(PlannedStmt)));
	*served = *statement;
	served->planTree = PlanOfWrite(statement);
	write.served = served;
	write.served_from = statement;
}

[[gnu::hot]] void StartServed(QueryDesc *query, const PlainWrite &write, int flags)
{
	if (write.served_from != query->plannedstmt)
		MakeServed(write, query->plannedstmt);
	query->plannedstmt = write.served;
	Start(query, flags);

	Approval *approval = ApproveWrites(write.relid, query->estate->es_query_cxt);
	auto *state = castNode(ModifyTableState, query->planstate);
	for (int i = 0; i < state->mt_nrels; ++i)
		LeaveOutGuard(&state->resultRelInfo[i]);
	// With RETURNING, others do something between two rows.
	approval->serving = !query->plannedstmt->hasReturning;
	if (query->plannedstmt->hasReturning) {
		modify = state->ps.ExecProcNodeReal;
		ExecSetExecProcNode(&state->ps, ServeModify);
	}
}

// What EXPLAIN shows is the plan with the node.
[[gnu::hot]] void StartByOwnPlan(QueryDesc *query, int flags)
{
	const PlainWrite *write = PlainWriteIn(query->plannedstmt);
	if (write != nullptr && (flags & EXEC_FLAG_EXPLAIN_ONLY) == 0 &&
	    query->instrument_options == 0 && IsServed(*write, query))
		StartServed(query, *write, flags);
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
