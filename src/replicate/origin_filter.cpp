// The output plugin "pg_homing": pgoutput that sends only what was written in this region.
//
// Every region receives the changes of every other region directly from there. What a region applied of
// others carries a replication origin in WAL; were it sent on, it would go round for ever. PostgreSQL 15's
// pgoutput knows no way to leave it out, so this plugin is pgoutput with another filter: the subscription
// at the other end speaks to it, and passes it options, as it would to pgoutput.
//
// To pass on the end of a lost region's stream it sends the opposite: only what came from that region, and
// of that only what is beyond a position of its stream. Two settings of the connection say so (relay.sql).
#include "replicate/orphans.hpp"

#include "pg/server.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
}

namespace homing::replicate {

namespace {

OutputPluginCallbacks pgoutput_callbacks;
RepOriginId passed_on_origin = InvalidRepOriginId;  // that is: our own
XLogRecPtr passed_on_beyond = InvalidXLogRecPtr;

void Startup(LogicalDecodingContext *context, OutputPluginOptions *options, bool is_init)
{
	passed_on_origin = static_cast<RepOriginId>(pg::settings.relay_origin);
	passed_on_beyond = InvalidXLogRecPtr;
	if (pg::settings.relay_beyond != nullptr && pg::settings.relay_beyond[0] != '\0')
		passed_on_beyond =
			DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(pg::settings.relay_beyond)));
	pgoutput_callbacks.startup_cb(context, options, is_init);
}

bool FromElsewhere(LogicalDecodingContext *, RepOriginId origin)
{
	return origin != passed_on_origin;
}

// Whether the other end has the transaction already. pgoutput sends nothing of one without changes.
bool IsKnownThere(const ReorderBufferTXN *transaction)
{
	return passed_on_origin != InvalidRepOriginId && transaction->origin_lsn <= passed_on_beyond;
}

void Change(LogicalDecodingContext *context, ReorderBufferTXN *transaction, Relation relation,
            ReorderBufferChange *change)
{
	if (!IsKnownThere(transaction))
		pgoutput_callbacks.change_cb(context, transaction, relation, change);
}

void Truncate(LogicalDecodingContext *context, ReorderBufferTXN *transaction, int count,
              Relation relations[], ReorderBufferChange *change)
{
	if (!IsKnownThere(transaction))
		pgoutput_callbacks.truncate_cb(context, transaction, count, relations, change);
}

}  // namespace

extern "C" {

PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

void _PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	if (WantsOrphans()) {
		InitOrphans(callbacks);
		return;
	}
	auto pgoutput = reinterpret_cast<LogicalOutputPluginInit>(
		load_external_function("pgoutput", "_PG_output_plugin_init", true, nullptr));
	pgoutput(callbacks);
	pgoutput_callbacks = *callbacks;
	callbacks->startup_cb = Startup;
	callbacks->filter_by_origin_cb = FromElsewhere;
	callbacks->change_cb = Change;
	callbacks->truncate_cb = Truncate;
}

}  // extern "C"

}  // namespace homing::replicate
