#include "core/ids.hpp"
#include "write/forward.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include "pg/exact_text.hpp"
#include "write/portable_type.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
}

namespace homing::write {

namespace {

// --- arguments: plain server code -----------------------------------------------------------------------

char *ParamText(ParamListInfo list, const RemoteParam *param)
{
	if (list == nullptr || param->number > list->numParams)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PARAMETER),
		                errmsg("no value found for parameter %d", param->number)));
	ParamExternData workspace;
	const ParamExternData *value = list->paramFetch != nullptr
	                                   ? list->paramFetch(list, param->number, false, &workspace)
	                                   : &list->params[param->number - 1];
	if (value->isnull)
		return nullptr;
	Oid output;
	bool is_varlena;
	getTypeOutputInfo(param->type, &output, &is_varlena);
	return pg::ExactText(output, value->value);
}

// --- result: plain server code ---------------------------------------------------------------------------

struct Column {
	FmgrInfo input;
	Oid io_param;
	int32 typmod;
	bool binary;  // else its text
};

Column *PrepareColumns(TupleDesc desc)
{
	auto *columns = static_cast<Column *>(palloc0(sizeof(Column) * desc->natts));
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Oid function;
		columns[i].binary = IsPortableInBinary(attribute->atttypid);
		if (columns[i].binary)
			getTypeBinaryInputInfo(attribute->atttypid, &function, &columns[i].io_param);
		else
			getTypeInputInfo(attribute->atttypid, &function, &columns[i].io_param);
		fmgr_info(function, &columns[i].input);
		columns[i].typmod = attribute->atttypmod;
	}
	return columns;
}

Datum Convert(Column *column, const PGresult *result, int row, int field)
{
	char *value = PQgetvalue(result, row, field);
	if (!column->binary)
		return InputFunctionCall(&column->input, value, column->io_param, column->typmod);
	StringInfoData buffer;
	buffer.data = value;
	buffer.len = buffer.maxlen = PQgetlength(result, row, field);
	buffer.cursor = 0;
	return ReceiveFunctionCall(&column->input, &buffer, column->io_param, column->typmod);
}

void AppendConverted(const PGresult *result, TupleDesc desc, Tuplestorestate *rows)
{
	if (PQnfields(result) != desc->natts)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("the home region returned %d columns instead of %d",
		                       PQnfields(result), desc->natts)));
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "homing rows", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Column *columns = PrepareColumns(desc);
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * desc->natts));
	auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * desc->natts));
	MemoryContext row_context = AllocSetContextCreate(scratch, "homing row", ALLOCSET_DEFAULT_SIZES);
	for (int row = 0; row < PQntuples(result); ++row) {
		MemoryContextSwitchTo(row_context);
		for (int i = 0; i < desc->natts; ++i) {
			nulls[i] = PQgetisnull(result, row, i) != 0;
			values[i] = nulls[i] ? (Datum) 0 : Convert(&columns[i], result, row, i);
		}
		tuplestore_putvalues(rows, desc, values, nulls);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

// Regions talk in the encoding of the database, and a binary text is taken to be in that of the client.
void AppendRows(const PGresult *result, TupleDesc desc, Tuplestorestate *rows)
{
	const int client = pg_get_client_encoding();
	if (client == GetDatabaseEncoding()) {
		AppendConverted(result, desc, rows);
		return;
	}
	SetClientEncoding(GetDatabaseEncoding());
	PG_TRY();
	{
		AppendConverted(result, desc, rows);
	}
	PG_FINALLY();
	{
		SetClientEncoding(client);
	}
	PG_END_TRY();
}

// Of a statement that has committed, although its answer was lost.
void TakeCount(std::uint64_t count, EState *estate, TupleDesc returning)
{
	estate->es_processed += count;
	if (returning->natts == 0)
		return;
	remote::Error error(
		"08007",
		"the statement was committed at its home, but its rows were lost with the connection");
	error.hint = "Read them.";
	throw error;
}

}  // namespace

// The statement is all that the transaction will do: the client sent it by itself, outside a block.
// Requires that errors after it may not undo it: see XACT_FLAGS_NEEDIMMEDIATECOMMIT.
bool IsWholeTransaction(const EState *estate)
{
	if (IsTransactionBlock() || IsSubTransaction() || (MyXactFlags & XACT_FLAGS_PIPELINING) != 0 ||
	    !TransactionIsUntouched())
		return false;
	Portal portal = ActivePortal;
	return portal != nullptr && portal->name[0] == '\0' && list_length(portal->stmts) == 1 &&
	       linitial(portal->stmts) == estate->es_plannedstmt &&
	       estate->es_plannedstmt->commandType != CMD_SELECT;
}

remote::Result Answer(core::RegionId region, const char *verb)
{
	try {
		return Await(region);
	} catch (const remote::Error &error) {
		if (error.sqlstate == kNotHomeState)
			throw HomeMoved(verb);
		throw;
	}
}

remote::Error HomeMoved(const char *verb)
{
	remote::Error error("40001",
	                    std::string("could not ") + verb + " because the home of a row has moved");
	error.hint = "Try the transaction again.";
	return error;
}

Outgoing Prepare(const RemoteText &text, ParamListInfo params)
{
	Outgoing outgoing{};
	outgoing.sql = text.sql;
	outgoing.param_count = text.param_count;
	outgoing.reads = text.reads;
	outgoing.values = static_cast<char **>(palloc0(sizeof(char *) * (text.param_count + 1)));
	outgoing.types = static_cast<Oid *>(palloc0(sizeof(Oid) * (text.param_count + 1)));
	for (int i = 0; i < text.param_count; ++i) {
		outgoing.values[i] = ParamText(params, &text.params[i]);
		outgoing.types[i] = text.params[i].typed ? text.params[i].type : InvalidOid;
	}
	return outgoing;
}

RemoteStatement ToRemote(const Outgoing &outgoing)
{
	RemoteStatement statement;
	statement.sql = outgoing.sql;
	statement.binary_result = true;
	statement.reads = outgoing.reads;
	statement.arguments.resize(static_cast<std::size_t>(outgoing.param_count));
	for (int i = 0; i < outgoing.param_count; ++i) {
		remote::Argument &argument = statement.arguments[static_cast<std::size_t>(i)];
		if (outgoing.values[i] != nullptr)
			argument.text = outgoing.values[i];
		argument.type = outgoing.types[i];
	}
	return statement;
}

void TakeAnswer(const remote::Result &result, EState *estate, TupleDesc returning,
                Tuplestorestate *rows)
{
	// A SELECT with writes inside counts the rows that it returns.
	if (estate->es_plannedstmt->commandType != CMD_SELECT)
		estate->es_processed += std::strtoull(PQcmdTuples(result.get()), nullptr, 10);
	if (returning->natts > 0)
		pg::PgCall([&] { AppendRows(result.get(), returning, rows); });
}

bool ForwardWhole(const RemoteText &text, core::RegionId region, bool claimable, EState *estate,
                  TupleDesc returning, Tuplestorestate *rows)
{
	const Outgoing outgoing = Prepare(text, estate->es_param_list_info);
	const bool alone = IsWholeTransaction(estate);
	return pg::PgEntry([&] {
		remote::Result result;
		std::uint64_t lost_rows = 0;
		if (!alone && claimable) {
			PostAside(region, ToRemote(outgoing));
			try {
				result = Await(region);
			} catch (const remote::Error &error) {
				if (error.sqlstate != kNotHomeState)
					throw;
				EndAside(region, false);
				return false;
			}
			EndAside(region, true);
		} else if (!alone) {
			Post(region, ToRemote(outgoing));
			result = Answer(region);
		} else {
			try {
				result = ForwardAlone(region, ToRemote(outgoing), &lost_rows);
			} catch (const remote::Error &error) {
				if (error.sqlstate == kNotHomeState)
					return false;
				throw;
			}
			MyXactFlags |= XACT_FLAGS_NEEDIMMEDIATECOMMIT;
			if (!result) {
				TakeCount(lost_rows, estate, returning);
				return true;
			}
		}
		TakeAnswer(result, estate, returning, rows);
		return true;
	});
}

const char *RemoteSql(Query *query)
{
	const char *sql = DeparseForRegion(query).sql;
	while (*sql == ' ')
		++sql;
	return sql;
}

}  // namespace homing::write
