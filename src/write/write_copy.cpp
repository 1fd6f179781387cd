// Statements that bring the copy of a homed table in this region to what it is elsewhere. They are no writes of the
// rows: they are not routed to a home, and not sent to other regions.
#include "pg/boundary.hpp"
#include "write/execute_here.hpp"
#include "write/guard.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "replication/origin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
}

namespace homing::write {

namespace {

struct CopyStatement {
	const char *sql;
	Datum rows;
	int64 number;
};

void Run(void *argument)
{
	auto *statement = static_cast<CopyStatement *>(argument);
	Oid types[] = {JSONBOID};
	Datum values[] = {statement->rows};
	SPI_connect();
	const int result = SPI_execute_with_args(statement->sql, 1, types, values, nullptr, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", statement->sql);
	statement->number = static_cast<int64>(SPI_processed);
	if (result == SPI_OK_SELECT) {
		bool null = false;
		statement->number =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	}
	SPI_finish();
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_write_copy);

// (relation, statement, rows): runs the statement, with the rows as $1, on the relation. Returns its row count, or the
// bigint that a query selects.
PGDLLEXPORT Datum homing_write_copy(PG_FUNCTION_ARGS)
{
	CopyStatement statement{text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_DATUM(2), 0};
	ApproveWrites(PG_GETARG_OID(0), CurrentMemoryContext);
	const RepOriginId before = replorigin_session_origin;
	replorigin_session_origin = DoNotReplicateId;
	ErrorData *error = CallUnrouted(Run, &statement);
	replorigin_session_origin = before;
	if (error != nullptr)
		ReThrowError(error);
	PG_RETURN_INT64(statement.number);
}

}  // extern "C"

}  // namespace homing::write
