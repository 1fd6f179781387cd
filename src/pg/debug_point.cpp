#include "pg/debug_point.hpp"

#include "pg/settings.hpp"

#include "pg/server.hpp"

extern "C" {
#include "utils/builtins.h"
}

#include <csignal>
#include <cstring>

namespace homing::pg {

void DebugPoint(const char *name) noexcept
{
	const char *wanted = settings.debug_point;
	if (wanted == nullptr || wanted[0] == '\0')
		return;
	constexpr char kStop[] = "stop:";
	const bool stops = strncmp(wanted, kStop, sizeof(kStop) - 1) == 0;
	if (stops)
		wanted += sizeof(kStop) - 1;
	if (strcmp(wanted, name) != 0)
		return;
	if (stops) {
		ereport(LOG, (errmsg("process %d stops at debug point %s", MyProcPid, name)));
		(void) kill(MyProcPid, SIGSTOP);
		return;
	}
	(void) kill(MyProcPid, SIGKILL);
	for (;;)
		pg_usleep(1000000L);  // the signal is on its way
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_debug_point);

PGDLLEXPORT Datum homing_debug_point(PG_FUNCTION_ARGS)
{
	DebugPoint(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::pg
