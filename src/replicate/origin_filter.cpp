// The output plugin "pg_homing": pgoutput that sends only what was written in this region.
//
// Every region receives the changes of every other region directly from there. What a region applied of
// others carries a replication origin in WAL; were it sent on, it would go round for ever. PostgreSQL 15's
// pgoutput knows no way to leave it out, so this plugin is pgoutput with another filter: the subscription
// at the other end speaks to it, and passes it options, as it would to pgoutput.
#include "pg/server.hpp"

extern "C" {
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
}

namespace homing::replicate {

namespace {

bool FromElsewhere(LogicalDecodingContext *, RepOriginId origin)
{
	return origin != InvalidRepOriginId;
}

}  // namespace

extern "C" {

PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

void _PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	auto pgoutput = reinterpret_cast<LogicalOutputPluginInit>(
		load_external_function("pgoutput", "_PG_output_plugin_init", true, nullptr));
	pgoutput(callbacks);
	callbacks->filter_by_origin_cb = FromElsewhere;
}

}  // extern "C"

}  // namespace homing::replicate
