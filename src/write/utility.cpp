#include "core/ids.hpp"
#include "write/utility.hpp"

#include "write/copy.hpp"
#include "write/ddl.hpp"
#include "write/homed_relation.hpp"
#include "write/truncate.hpp"

extern "C" {
#include "tcop/utility.h"
#include "utils/memutils.h"
}

namespace homing::write {

namespace {

ProcessUtility_hook_type next_utility = nullptr;

// The arguments of the hook.
struct Utility {
	PlannedStmt *statement;
	const char *query_string;
	bool read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *environment;
	DestReceiver *dest;
	QueryCompletion *completion;
};

pg_noinline void Run(void *argument)
{
	const auto *utility = static_cast<const Utility *>(argument);
	const ProcessUtility_hook_type next = next_utility != nullptr ? next_utility : standard_ProcessUtility;
	next(utility->statement, utility->query_string, utility->read_only_tree, utility->context, utility->params,
	     utility->environment, utility->dest, utility->completion);
}

// Runs core's part between the approval of its writes and their withdrawal.
void RunApproved(Utility *utility, MemoryContext approvals)
{
	PG_TRY();
	{
		Run(utility);
	}
	PG_FINALLY();
	{
		MemoryContextDelete(approvals);
	}
	PG_END_TRY();
}

void ExecuteUtility(PlannedStmt *statement, const char *query_string, bool read_only_tree,
                    ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
                    DestReceiver *dest, QueryCompletion *completion)
{
	Utility utility{statement, query_string, read_only_tree, context, params, environment, dest, completion};
	Node *node = statement->utilityStmt;
	const bool writes = IsA(node, CopyStmt) || IsA(node, TruncateStmt);

	if ((!writes && !IsDdl(node)) || !AnyHomedTable()) {
		Run(&utility);
	} else if (writes) {
		MemoryContext approvals =
			AllocSetContextCreate(CurrentMemoryContext, "homing approvals", ALLOCSET_SMALL_SIZES);
		if (IsA(node, CopyStmt))
			PrepareCopy(castNode(CopyStmt, node), approvals);
		else
			PrepareTruncate(castNode(TruncateStmt, node), approvals);
		RunApproved(&utility, approvals);
	} else {
		ExecuteDdl(node, Run, &utility);
	}
}

}  // namespace

void RegisterUtility()
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = ExecuteUtility;
	RegisterDdl();
}

}  // namespace homing::write
