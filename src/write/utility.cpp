#include "core/ids.hpp"
#include "write/utility.hpp"

#include "pg/settings.hpp"
#include "write/copy.hpp"
#include "write/ddl.hpp"
#include "write/everywhere.hpp"
#include "write/homed_relation.hpp"
#include "write/issued.hpp"
#include "write/sequences.hpp"
#include "write/set_constraints.hpp"
#include "write/truncate.hpp"

extern "C" {
#include "access/xact.h"
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
	const ProcessUtility_hook_type next =
		next_utility != nullptr ? next_utility : standard_ProcessUtility;
	next(utility->statement, utility->query_string, utility->read_only_tree, utility->context,
	     utility->params, utility->environment, utility->dest, utility->completion);
}

struct ApprovedRun {
	Utility *utility;
	MemoryContext approvals;
};

// COPY and TRUNCATE: core's part runs while its writes are approved.
void RunWrite(void *argument)
{
	const auto *run = static_cast<const ApprovedRun *>(argument);
	const Utility *utility = run->utility;
	Node *node = utility->statement->utilityStmt;
	if (IsA(node, TruncateStmt)) {
		const TruncateStatement truncate{castNode(TruncateStmt, node),
		                                 StatementText(utility->query_string,
		                                               utility->statement->stmt_location,
		                                               utility->statement->stmt_len),
		                                 utility->context != PROCESS_UTILITY_SUBCOMMAND, Run,
		                                 run->utility};
		ExecuteTruncate(&truncate, run->approvals);
	} else {
		ParseState *pstate = make_parsestate(nullptr);
		pstate->p_sourcetext = utility->query_string;
		pstate->p_queryEnv = utility->environment;
		uint64 rows = 0;
		if (ExecuteCopy(pstate, castNode(CopyStmt, node), run->approvals, &rows)) {
			if (utility->completion != nullptr)
				SetQueryCompletion(utility->completion, CMDTAG_COPY, rows);
			return;
		}
		Run(run->utility);
	}
}

void ExecuteWrite(Utility *utility)
{
	ApprovedRun run{utility, AllocSetContextCreate(CurrentMemoryContext, "homing approvals",
	                                               ALLOCSET_SMALL_SIZES)};
	ErrorData *error = pg::CallGuarded(RunWrite, &run);
	MemoryContextDelete(run.approvals);
	if (error != nullptr)
		ReThrowError(error);
}

void ExecuteUtility(PlannedStmt *statement, const char *query_string, bool read_only_tree,
                    ProcessUtilityContext context, ParamListInfo params,
                    QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Utility utility{statement, query_string, read_only_tree, context,
	                params,    environment,  dest,           completion};
	Node *node = statement->utilityStmt;
	const bool writes = IsA(node, CopyStmt) || IsA(node, TruncateStmt);

	if (IsA(node, ViewStmt)) {
		ErrorData *error = CallWithoutKeeping(Run, &utility);
		if (error != nullptr)
			ReThrowError(error);
	} else if (IsA(node, AlterSeqStmt)) {
		Run(&utility);
		if (AnyHomedTable() && !pg::settings.own_ddl)
			FollowAlteredSequence();
	} else if (IsA(node, ConstraintsSetStmt)) {
		Run(&utility);
		if (AnyHomedTable() && IsInTransactionBlock(context == PROCESS_UTILITY_TOPLEVEL))
			FollowSetConstraints(
				StatementText(query_string, statement->stmt_location, statement->stmt_len));
	} else if ((!writes && !IsDdl(node)) || !AnyHomedTable()) {
		Run(&utility);
	} else if (writes) {
		ExecuteWrite(&utility);
	} else {
		const DdlStatement ddl{node,
		                       StatementText(query_string, statement->stmt_location,
		                                     statement->stmt_len),
		                       context != PROCESS_UTILITY_SUBCOMMAND,
		                       context == PROCESS_UTILITY_TOPLEVEL,
		                       Run,
		                       &utility};
		ExecuteDdl(&ddl);
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
