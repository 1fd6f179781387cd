#include "write/planner.hpp"

#include "write/key_finder.hpp"
#include "write/modify_node.hpp"

#include "write/execute_here.hpp"
#include "write/read_node.hpp"
#include "write/row_locks.hpp"

extern "C" {
#include "optimizer/planner.h"
}

namespace homing::write {

namespace {

planner_hook_type next_planner = nullptr;

PlannedStmt *Plan(Query *parse, const char *query_string, int options, ParamListInfo bound)
{
	if (next_planner != nullptr)
		return next_planner(parse, query_string, options, bound);
	return standard_planner(parse, query_string, options, bound);
}

PlannedStmt *PlanRead(Query *parse, const char *query_string, int options, ParamListInfo bound)
{
	if (!pg::PgEntry([&] { return ReadsHomedTables(parse); }))
		return Plan(parse, query_string, options, bound);
	auto *query = static_cast<Query *>(copyObjectImpl(parse));
	PlannedStmt *statement = Plan(parse, query_string, options, bound);
	AttachQuery(statement, query);
	return statement;
}

PlannedStmt *PlanHomed(Query *parse, const char *query_string, int options, ParamListInfo bound)
{
	if (PlansPartHere())
		return Plan(parse, query_string, options, bound);
	if (parse->commandType == CMD_SELECT && !parse->hasModifyingCTE && !LocksRows(parse))
		return PlanRead(parse, query_string, options, bound);
	const WriteAnalysis *analysis = pg::PgEntry([&] { return AnalyseWrite(parse, bound); });
	if (analysis == nullptr)
		return Plan(parse, query_string, options, bound);

	// Planning scribbles on the tree.
	auto *query = static_cast<Query *>(copyObjectImpl(parse));
	PlannedStmt *statement = Plan(parse, query_string, options, bound);
	WrapPlan(statement, analysis, query);
	return statement;
}

}  // namespace

void RegisterPlanner()
{
	next_planner = planner_hook;
	planner_hook = PlanHomed;
}

}  // namespace homing::write
