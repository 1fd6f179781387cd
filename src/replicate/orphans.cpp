// What a lost region has committed and no other region has: decoded from its own WAL, as text for orphans.sql.
//
// One line of JSON for each change of a transaction that was written here and ended beyond a position:
//   {"lsn": end of the commit, "xid": ..., "at": ..., "table": ..., "op": ..., "old": {...}, "new": {...}}
// Rows are objects of texts by column. A large value that an UPDATE left as it was is not in WAL, and so not
// in `new`. `old` is what replica identity gives.
#include "replicate/orphans.hpp"

#include "pg/server.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/htup_details.h"
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/reorderbuffer.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace homing::replicate {

namespace {

XLogRecPtr beyond;

void Startup(LogicalDecodingContext *context, OutputPluginOptions *options, bool)
{
	options->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
	beyond =
		DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(pg::settings.orphans_beyond)));
	context->output_plugin_private =
		AllocSetContextCreate(context->context, "orphaned change", ALLOCSET_DEFAULT_SIZES);
}

bool FromElsewhere(LogicalDecodingContext *, RepOriginId origin)
{
	return origin != InvalidRepOriginId;
}

void Begin(LogicalDecodingContext *, ReorderBufferTXN *) {}
void Commit(LogicalDecodingContext *, ReorderBufferTXN *, XLogRecPtr) {}

// Those columns only that replica identity gives, if asked for.
void AppendRow(StringInfo out, Relation relation, HeapTuple tuple, bool identity_only)
{
	TupleDesc columns = RelationGetDescr(relation);
	const char *separator = "";
	appendStringInfoChar(out, '{');
	for (int i = 0; i < columns->natts; ++i) {
		Form_pg_attribute column = TupleDescAttr(columns, i);
		if (column->attisdropped || column->attgenerated != '\0')
			continue;
		bool isnull;
		const Datum value = heap_getattr(tuple, i + 1, columns, &isnull);
		if (isnull && identity_only)
			continue;
		bool varlena;
		Oid output;
		getTypeOutputInfo(column->atttypid, &output, &varlena);
		if (!isnull && varlena && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value)))
			continue;
		appendStringInfoString(out, separator);
		separator = ", ";
		escape_json(out, NameStr(column->attname));
		appendStringInfoString(out, ": ");
		if (isnull)
			appendStringInfoString(out, "null");
		else
			escape_json(out, OidOutputFunctionCall(output,
			                                       varlena ? PointerGetDatum(PG_DETOAST_DATUM(value))
			                                               : value));
	}
	appendStringInfoChar(out, '}');
}

void AppendHead(StringInfo out, ReorderBufferTXN *transaction, Relation relation, const char *op)
{
	appendStringInfo(out, "{\"lsn\": \"%X/%X\", \"xid\": %u, \"at\": ",
	                 static_cast<uint32>(transaction->end_lsn >> 32),
	                 static_cast<uint32>(transaction->end_lsn), transaction->xid);
	escape_json(out, DatumGetCString(DirectFunctionCall1(
						 timestamptz_out, TimestampTzGetDatum(transaction->xact_time.commit_time))));
	appendStringInfoString(out, ", \"table\": ");
	escape_json(out, quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
	                                            RelationGetRelationName(relation)));
	appendStringInfo(out, ", \"op\": \"%s\"", op);
}

void WriteChange(LogicalDecodingContext *context, ReorderBufferTXN *transaction, Relation relation,
                 ReorderBufferChange *change)
{
	const bool full = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
	const char *op = nullptr;
	switch (change->action) {
	case REORDER_BUFFER_CHANGE_INSERT:
		op = "insert";
		break;
	case REORDER_BUFFER_CHANGE_UPDATE:
		op = "update";
		break;
	case REORDER_BUFFER_CHANGE_DELETE:
		op = "delete";
		break;
	default:
		return;
	}
	OutputPluginPrepareWrite(context, true);
	AppendHead(context->out, transaction, relation, op);
	if (change->data.tp.oldtuple != nullptr) {
		appendStringInfo(context->out, ", \"full\": %s, \"old\": ", full ? "true" : "false");
		AppendRow(context->out, relation, &change->data.tp.oldtuple->tuple, !full);
	}
	if (change->data.tp.newtuple != nullptr) {
		appendStringInfoString(context->out, ", \"new\": ");
		AppendRow(context->out, relation, &change->data.tp.newtuple->tuple, false);
	}
	appendStringInfoChar(context->out, '}');
	OutputPluginWrite(context, true);
}

void Change(LogicalDecodingContext *context, ReorderBufferTXN *transaction, Relation relation,
            ReorderBufferChange *change)
{
	if (transaction->end_lsn <= beyond)
		return;
	auto memory = static_cast<MemoryContext>(context->output_plugin_private);
	MemoryContext before = MemoryContextSwitchTo(memory);
	WriteChange(context, transaction, relation, change);
	MemoryContextSwitchTo(before);
	MemoryContextReset(memory);
}

void Truncate(LogicalDecodingContext *context, ReorderBufferTXN *transaction, int count,
              Relation relations[], ReorderBufferChange *)
{
	for (int i = 0; i < count && transaction->end_lsn > beyond; ++i) {
		OutputPluginPrepareWrite(context, true);
		AppendHead(context->out, transaction, relations[i], "truncate");
		appendStringInfoChar(context->out, '}');
		OutputPluginWrite(context, true);
	}
}

}  // namespace

bool WantsOrphans()
{
	return pg::settings.orphans_beyond != nullptr && pg::settings.orphans_beyond[0] != '\0';
}

void InitOrphans(OutputPluginCallbacks *callbacks)
{
	*callbacks = OutputPluginCallbacks{};
	callbacks->startup_cb = Startup;
	callbacks->filter_by_origin_cb = FromElsewhere;
	callbacks->begin_cb = Begin;
	callbacks->change_cb = Change;
	callbacks->truncate_cb = Truncate;
	callbacks->commit_cb = Commit;
}

}  // namespace homing::replicate
