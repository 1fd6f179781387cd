#include "core/ids.hpp"
#include "write/forward.hpp"

#include <cstdlib>
#include <vector>

#include "write/remote_text.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"

extern "C" {
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

// --- arguments: plain server code -----------------------------------------------------------------------

char *ParamText(EState *estate, const RemoteParam *param)
{
	ParamListInfo list = estate->es_param_list_info;
	if (list == nullptr || param->number > list->numParams)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PARAMETER), errmsg("no value found for parameter %d", param->number)));
	ParamExternData workspace;
	const ParamExternData *value = list->paramFetch != nullptr
	                                   ? list->paramFetch(list, param->number, false, &workspace)
	                                   : &list->params[param->number - 1];
	if (value->isnull)
		return nullptr;
	Oid output;
	bool is_varlena;
	getTypeOutputInfo(param->type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value->value);
}

char **ParamTexts(EState *estate, const RemoteText *text)
{
	auto **values = static_cast<char **>(palloc0(sizeof(char *) * (text->param_count + 1)));
	const int nest_level = NewGUCNestLevel();
	(void) set_config_option("extra_float_digits", "3", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
	                         false);
	for (int i = 0; i < text->param_count; ++i)
		values[i] = ParamText(estate, &text->params[i]);
	AtEOXact_GUC(true, nest_level);
	return values;
}

// --- result: plain server code ---------------------------------------------------------------------------

bool AllPortable(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; ++i) {
		if (!IsPortableType(TupleDescAttr(desc, i)->atttypid))
			return false;
	}
	return true;
}

struct Column {
	FmgrInfo input;
	Oid io_param;
	int32 typmod;
};

Column *PrepareColumns(TupleDesc desc, bool binary)
{
	auto *columns = static_cast<Column *>(palloc0(sizeof(Column) * desc->natts));
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Oid function;
		if (binary)
			getTypeBinaryInputInfo(attribute->atttypid, &function, &columns[i].io_param);
		else
			getTypeInputInfo(attribute->atttypid, &function, &columns[i].io_param);
		fmgr_info(function, &columns[i].input);
		columns[i].typmod = attribute->atttypmod;
	}
	return columns;
}

Datum Convert(Column *column, const PGresult *result, int row, int field, bool binary)
{
	char *value = PQgetvalue(result, row, field);
	if (!binary)
		return InputFunctionCall(&column->input, value, column->io_param, column->typmod);
	StringInfoData buffer;
	buffer.data = value;
	buffer.len = buffer.maxlen = PQgetlength(result, row, field);
	buffer.cursor = 0;
	return ReceiveFunctionCall(&column->input, &buffer, column->io_param, column->typmod);
}

Tuplestorestate *StoreRows(const PGresult *result, TupleDesc desc, bool binary)
{
	if (PQnfields(result) != desc->natts)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("the home region returned %d columns instead of %d",
		                                                           PQnfields(result), desc->natts)));
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	Column *columns = PrepareColumns(desc, binary);
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * desc->natts));
	auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * desc->natts));
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "homing row", ALLOCSET_DEFAULT_SIZES);
	for (int row = 0; row < PQntuples(result); ++row) {
		MemoryContext old = MemoryContextSwitchTo(scratch);
		for (int i = 0; i < desc->natts; ++i) {
			nulls[i] = PQgetisnull(result, row, i) != 0;
			values[i] = nulls[i] ? (Datum) 0 : Convert(&columns[i], result, row, i, binary);
		}
		MemoryContextSwitchTo(old);
		tuplestore_putvalues(rows, desc, values, nulls);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	return rows;
}

}  // namespace

const char *RemoteSql(Query *query)
{
	return DeparseForRegion(query).sql;
}

Tuplestorestate *ExecuteForwarded(const ForwardedWrite &write)
{
	EState *estate = write.estate;
	const RemoteText text = DeparseForRegion(write.query);
	char **values = ParamTexts(estate, &text);
	const bool binary = AllPortable(write.returning);
	const bool alone = IsWholeTransaction(estate);

	return pg::PgEntry([&] {
		RemoteStatement statement;
		statement.sql = text.sql;
		statement.binary_result = binary;
		for (int i = 0; i < text.param_count; ++i) {
			remote::Argument argument;
			if (values[i] != nullptr)
				argument.text = values[i];
			argument.type = text.params[i].typed ? text.params[i].type : 0;
			statement.arguments.push_back(std::move(argument));
		}
		remote::Result result;
		if (alone) {
			result = ForwardAlone(write.region, statement);
			MyXactFlags |= XACT_FLAGS_NEEDIMMEDIATECOMMIT;
		} else {
			Post(write.region, statement);
			result = Await(write.region);
		}
		if (estate->es_plannedstmt->commandType != CMD_SELECT)
			estate->es_processed += std::strtoull(PQcmdTuples(result.get()), nullptr, 10);
		return write.returning->natts == 0 ? nullptr : pg::PgCall([&] {
			return StoreRows(result.get(), write.returning, binary);
		});
	});
}

}  // namespace homing::write
