#include "write/forward.hpp"
#include "write/execute_here.hpp"

#include "pg/compat.hpp"
#include "pg/settings.hpp"
#include "write/guard.hpp"
#include "write/routing.hpp"

extern "C" {
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "optimizer/optimizer.h"
#include "tcop/tcopprot.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
}

namespace homing::write {

namespace {

bool planning = false;
int serving = 0;

PlannedStmt *PlanPart(Query *query, const char *text, ParamListInfo params)
{
	PlannedStmt *statement = nullptr;
	planning = true;
	PG_TRY();
	{
		statement = planner(query, text, 0, params);
	}
	PG_FINALLY();
	{
		planning = false;
	}
	PG_END_TRY();
	return statement;
}

// A row was routed here, and then another region claimed its key, or its home moved. To the region that sent us the
// statement that has a name of its own, by which it tries again; a client may try again as well.
void RethrowAsMoved()
{
	if (geterrcode() != pg::SqlStateCode(kNotHomeState) || pg::settings.forwarded_from[0] != '\0')
		PG_RE_THROW();
	FlushErrorState();
	pg::PgEntry([] { throw HomeMoved(); });
}

}  // namespace

bool PlansPartHere()
{
	return planning;
}

ErrorData *CallUnrouted(void (*body)(void *), void *argument)
{
	const bool before = planning;
	planning = true;
	ErrorData *error = pg::CallGuarded(body, argument);
	planning = before;
	return error;
}

namespace {

uint64 Execute(PlannedStmt *statement, EState *outer, ParamListInfo params, DestReceiver *receiver)
{
	QueryDesc *desc = CreateQueryDesc(statement, outer->es_sourceText, outer->es_snapshot,
	                                  InvalidSnapshot, receiver, params, nullptr, 0);
	ExecutorStart(desc, 0);
	pg::RunToCompletion(desc);
	const uint64 processed = desc->estate->es_processed;
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	return processed;
}

}  // namespace

uint64 ExecuteHere(Query *query, EState *outer, ParamListInfo params, DestReceiver *receiver)
{
	return Execute(PlanPart(query, outer->es_sourceText, params), outer, params, receiver);
}

uint64 ExecuteByHome(Query *query, EState *outer, ParamListInfo params, DestReceiver *receiver)
{
	return Execute(planner(query, outer->es_sourceText, 0, params), outer, params, receiver);
}

bool InsideServedWrite()
{
	// AFTER triggers run when the plan has ended.
	return serving > 0 || AnyWriteServing() ||
	       (AnyWriteApproved() && DatumGetInt32(pg_trigger_depth(nullptr)) > 0);
}

uint64 WriteHere(Query *query, EState *outer, ParamListInfo params, Tuplestorestate *rows)
{
	DestReceiver *receiver =
		rows != nullptr ? CreateTuplestoreDestReceiver() : CreateDestReceiver(DestNone);
	if (rows != nullptr)
		SetTuplestoreDestReceiverParams(receiver, rows, CurrentMemoryContext, false, nullptr,
		                                nullptr);
	uint64 processed = 0;
	++serving;
	PG_TRY();
	{
		processed = ExecuteHere(query, outer, params, receiver);
	}
	PG_CATCH();
	{
		--serving;
		RethrowAsMoved();
	}
	PG_END_TRY();
	--serving;
	receiver->rDestroy(receiver);
	return processed;
}

}  // namespace homing::write
