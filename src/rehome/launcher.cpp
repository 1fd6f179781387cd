// The launcher is connected to no database, so it cannot see which ones hold a region. It starts a worker
// in each database once; a worker that finds no region ends at once. It looks again
//   at once when a region is created or joined (WantWorker) or a region's worker ends,
//   every kLookAgain at databases that were none, which finds a copy of a region's database.
// It starts one worker at a time: a server with many databases needs one spare worker process for this.
#include "rehome/launcher.hpp"
#include "rehome/process.hpp"
#include "rehome/worker_table.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
}

namespace homing::rehome {

namespace {

constexpr int kLookAgain = 60 * 1000;  // ms
// A worker also ends to make way for DROP DATABASE: it must not be back before that has looked.
constexpr int kStartAgain = 5 * 1000;     // ms
constexpr int kStartTimeout = 10 * 1000;  // ms

struct Database {
	Oid oid;
	TimestampTz started;  // the last worker; 0: never
};

// What the launcher knows of the databases that exist; lives in the top memory context.
Database *databases = nullptr;
int database_count = 0;
bool out_of_workers = false;

Database *FindDatabase(Database *list, int count, Oid oid)
{
	for (int i = 0; i < count; ++i) {
		if (list[i].oid == oid)
			return &list[i];
	}
	return nullptr;
}

bool Exists(Oid oid, void *)
{
	return FindDatabase(databases, database_count, oid) != nullptr;
}

// Reads the list of databases anew, keeping what is known of those that still exist.
void ListDatabases()
{
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	Relation relation = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);

	int capacity = 16, count = 0;
	auto *list =
		static_cast<Database *>(MemoryContextAlloc(TopMemoryContext, capacity * sizeof(Database)));
	HeapTuple tuple;
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != nullptr) {
		auto form = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
		if (!form->datallowconn || form->datistemplate)
			continue;
		if (count == capacity) {
			capacity *= 2;
			list = static_cast<Database *>(repalloc(list, capacity * sizeof(Database)));
		}
		const Database *known = FindDatabase(databases, database_count, form->oid);
		list[count++] = {form->oid, known != nullptr ? known->started : 0};
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);

	if (databases != nullptr)
		pfree(databases);
	databases = list;
	database_count = count;
	ForgetDatabases(Exists, nullptr);
}

void Sleep(long milliseconds)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds,
	                 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending) {
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

// Starts a worker and waits until it has settled in or has ended.
void StartWorker(Database *database)
{
	BackgroundWorker worker = ProcessIn(database->oid, "worker", "homing_worker_main");
	worker.bgw_notify_pid = MyProcPid;

	database->started = GetCurrentTimestamp();
	BackgroundWorkerHandle *handle;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle)) {
		if (!out_of_workers)
			ereport(WARNING,
			        (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			         errmsg("out of background worker slots"),
			         errdetail(
						 "A region without its worker does not hear that it was declared lost."),
			         errhint("You might need to increase max_worker_processes.")));
		out_of_workers = true;
		return;
	}
	out_of_workers = false;

	pid_t pid;
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED &&
	       LookAtDatabase(database->oid) != Served::kYes) {
		const long left = TimestampDifferenceMilliseconds(
			GetCurrentTimestamp(), TimestampTzPlusMilliseconds(database->started, kStartTimeout));
		if (left <= 0)
			break;  // it waits for somebody who has locked the database; it does not need us
		Sleep(left);
	}
	pfree(handle);
}

// Starts what is due. Returns when to look again, in ms.
long Round()
{
	ListDatabases();
	long next = kLookAgain;
	for (int i = 0; i < database_count; ++i) {
		Database *database = &databases[i];
		const Served served = LookAtDatabase(database->oid);
		if (served == Served::kYes)
			continue;
		const int pause = served == Served::kRegion ? kStartAgain : kLookAgain;
		long due = 0;
		if (served != Served::kWanted && database->started != 0)
			due = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
			                                      TimestampTzPlusMilliseconds(database->started,
			                                                                  pause));
		if (due <= 0) {
			StartWorker(database);
			due = out_of_workers ? kStartAgain : pause;
		}
		if (due < next)
			next = due;
	}
	return next;
}

void OnLauncherExit(int, Datum)
{
	SetLauncherLatch(nullptr);
}

}  // namespace

void RegisterLauncher()
{
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	RegisterWorkerTable();

	BackgroundWorker launcher;
	memset(&launcher, 0, sizeof(launcher));
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 5;
	strlcpy(launcher.bgw_library_name, "pg_homing", BGW_MAXLEN);
	strlcpy(launcher.bgw_function_name, "homing_launcher_main", BGW_MAXLEN);
	strlcpy(launcher.bgw_name, "pg_homing launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "pg_homing launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&launcher);
}

extern "C" {

PGDLLEXPORT void homing_launcher_main(Datum)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);

	before_shmem_exit(OnLauncherExit, 0);
	SetLauncherLatch(MyLatch);
	// What is left to this process by an error in a round is not worth keeping: the postmaster starts it anew.
	for (;;)
		Sleep(Round());
}

}  // extern "C"

}  // namespace homing::rehome
