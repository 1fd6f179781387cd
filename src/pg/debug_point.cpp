#include "pg/debug_point.hpp"

#include "pg/settings.hpp"

#include "pg/server.hpp"

#include <csignal>
#include <cstring>

namespace homing::pg {

void DebugPoint(const char *name) noexcept
{
	if (settings.debug_point == nullptr || settings.debug_point[0] == '\0' ||
	    strcmp(settings.debug_point, name) != 0)
		return;
	(void) kill(MyProcPid, SIGKILL);
	for (;;)
		pg_usleep(1000000L);  // the signal is on its way
}

}  // namespace homing::pg
