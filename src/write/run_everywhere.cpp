// homing.run_everywhere: utility statements that the hook does not take to every region by itself.
#include "core/ids.hpp"
#include "write/everywhere.hpp"

#include "pg/settings.hpp"
#include "write/ddl.hpp"
#include "write/ddl_targets.hpp"

extern "C" {
#include "access/xact.h"
#include "executor/spi.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
}

namespace homing::write {

namespace {

// Statements that mean nothing in another session, or that find their way by themselves.
void CheckKind(Node *statement)
{
	switch (nodeTag(statement)) {
	case T_InsertStmt:
	case T_UpdateStmt:
	case T_DeleteStmt:
	case T_MergeStmt:
	case T_SelectStmt:
	case T_CopyStmt:
	case T_TransactionStmt:
	case T_DeclareCursorStmt:
	case T_FetchStmt:
	case T_ClosePortalStmt:
	case T_PrepareStmt:
	case T_ExecuteStmt:
	case T_DeallocateStmt:
	case T_ExplainStmt:
	case T_LockStmt:
	case T_VariableSetStmt:
	case T_ListenStmt:
	case T_NotifyStmt:
	case T_DoStmt:
	case T_CallStmt:
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot run %s everywhere", CreateCommandName(statement)),
		         errhint(
					 "homing.run_everywhere is for the definitions of objects and for privileges.")));
		break;
	default:
		break;
	}
}

bool IsDrop(Node *statement)
{
	return IsA(statement, DropStmt) || IsA(statement, DropOwnedStmt);
}

void RunHere(void *argument)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	const int result = SPI_execute(static_cast<const char *>(argument), false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	(void) SPI_finish();
}

void RunOne(Node *statement, char *text)
{
	CheckKind(statement);
	// It goes everywhere by itself.
	if (IsA(statement, TruncateStmt) || (IsDdl(statement) && DdlTargets(statement) != NIL)) {
		RunHere(text);
	} else if (IsDrop(statement) && superuser()) {
		// A cascade may reach any homed table.
		ExecuteElsewhere(text, NIL, false);
		RunPermitted(RunHere, text);
	} else {
		FollowElsewhere(text);
		RunHere(text);
	}
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_run_everywhere);

PGDLLEXPORT Datum homing_run_everywhere(PG_FUNCTION_ARGS)
{
	const char *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ListCell *cell;
	foreach (cell, pg_parse_query(source)) {
		auto *raw = lfirst_node(RawStmt, cell);
		RunOne(raw->stmt, StatementText(source, raw->stmt_location, raw->stmt_len));
		CommandCounterIncrement();
	}
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::write
