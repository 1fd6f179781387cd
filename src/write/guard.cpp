#include "pg/catalog.hpp"
#include "write/guard.hpp"

extern "C" {
#include "commands/trigger.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
}

namespace homing::write {

namespace {

Approval *approvals = nullptr;

[[gnu::hot]] void Withdraw(void *argument)
{
	auto *approval = static_cast<Approval *>(argument);
	if (approval->previous != nullptr)
		approval->previous->next = approval->next;
	else
		approvals = approval->next;
	if (approval->next != nullptr)
		approval->next->previous = approval->previous;
}

bool IsApproved(Oid relid)
{
	for (const Approval *approval = approvals; approval != nullptr; approval = approval->next) {
		if (approval->relid == relid)
			return true;
	}
	return false;
}

}  // namespace

bool AnyWriteApproved()
{
	return approvals != nullptr;
}

bool AnyWriteServing()
{
	for (const Approval *approval = approvals; approval != nullptr; approval = approval->next) {
		if (approval->serving)
			return true;
	}
	return false;
}

// After an error the approval goes with its context.
TupleTableSlot *ServeRow(PlanState *plan, ExecProcNodeMtd next)
{
	Approval *approval = approvals;
	while (approval->context != plan->state->es_query_cxt)
		approval = approval->next;
	const bool before = approval->serving;
	approval->serving = true;
	TupleTableSlot *row = next(plan);
	approval->serving = before;
	return row;
}

[[gnu::hot]] Approval *ApproveWrites(Oid relid, MemoryContext context)
{
	auto *approval = static_cast<Approval *>(MemoryContextAlloc(context, sizeof(Approval)));
	approval->relid = relid;
	approval->serving = false;
	approval->context = context;
	approval->previous = nullptr;
	approval->next = approvals;
	if (approvals != nullptr)
		approvals->previous = approval;
	approvals = approval;
	approval->callback.func = Withdraw;
	approval->callback.arg = approval;
	MemoryContextRegisterResetCallback(context, &approval->callback);
	return approval;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_guard);

// Statement trigger, ENABLE ALWAYS, on homed tables and their partitions. Whoever comes here without
// approval did not pass the planner hook: the library was not loaded when the server started, or a way
// to write is not covered.
PGDLLEXPORT Datum homing_guard(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("homing._guard() must be called as a trigger")));
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	const char *name = RelationGetRelationName(trigger->tg_relation);

	if (IsLogicalWorker() || IsApproved(RelationGetRelid(trigger->tg_relation)))
		return PointerGetDatum(nullptr);
	if (!pg::CatalogIsShared())
		ereport(ERROR,
		        (errcode(ERRCODE_CONFIG_FILE_ERROR),
		         errmsg("cannot write to homed table \"%s\": pg_homing is not loaded by the server",
		                name),
		         errhint("Add pg_homing to shared_preload_libraries and restart the server.")));
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("cannot write to homed table \"%s\" in this way", name),
	         errdetail("The write did not pass through its home."),
	         errhint("If the table came with a dump of a region, remove the guard: DROP TRIGGER homing_guard "
	                 "ON %s.",
	                 quote_qualified_identifier(
						 get_namespace_name(RelationGetNamespace(trigger->tg_relation)), name))));
}

}  // extern "C"

}  // namespace homing::write
