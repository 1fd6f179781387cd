#include "rehome/process.hpp"

#include <cstring>

namespace homing::rehome {

BackgroundWorker ProcessIn(Oid database, const char *role, const char *entry)
{
	BackgroundWorker process;
	std::memset(&process, 0, sizeof(process));
	process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process.bgw_start_time = BgWorkerStart_RecoveryFinished;
	process.bgw_restart_time = BGW_NEVER_RESTART;
	process.bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(process.bgw_library_name, "pg_homing", BGW_MAXLEN);
	strlcpy(process.bgw_function_name, entry, BGW_MAXLEN);
	pg_snprintf(process.bgw_type, BGW_MAXLEN, "pg_homing %s", role);
	pg_snprintf(process.bgw_name, BGW_MAXLEN, "pg_homing %s for database %u", role, database);
	return process;
}

}  // namespace homing::rehome
