#include "rehome/worker_table.hpp"

#include "pg/shared_memory.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
#include "funcapi.h"
#include "postmaster/bgworker_internals.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
}

namespace homing::rehome {

namespace {

struct Entry {
	Oid database;  // InvalidOid: free
	int pid;       // 0: nobody serves it
	bool region;   // a worker found a region there
	bool wanted;
	bool handed_over;  // a home was handed over since the worker looked last
	Latch *latch;      // of the worker; set while pid is
	int peer_count;
	PeerSeen peers[kMaxPeers];
};

struct Table {
	LWLock *lock;
	Latch *launcher;
	int size;
	Entry entries[FLEXIBLE_ARRAY_MEMBER];
};

Table *table = nullptr;
Entry *mine = nullptr;

// Every served database takes a worker process, so there cannot be more of them.
Size TableSize()
{
	return add_size(offsetof(Table, entries), mul_size(max_worker_processes, sizeof(Entry)));
}

void Attach(void *memory, LWLock *lock, bool fresh)
{
	table = static_cast<Table *>(memory);
	if (!fresh)
		return;
	table->lock = lock;
	table->size = max_worker_processes;
}

// Requires: the lock. nullptr: unknown.
Entry *Find(Oid database)
{
	for (int i = 0; i < table->size; ++i) {
		if (table->entries[i].database == database)
			return &table->entries[i];
	}
	return nullptr;
}

// Requires: the lock, exclusively. nullptr: the table is full.
Entry *FindOrMake(Oid database)
{
	Entry *entry = Find(database);
	if (entry != nullptr)
		return entry;
	entry = Find(InvalidOid);
	if (entry != nullptr) {
		memset(static_cast<void *>(entry), 0, sizeof(Entry));
		entry->database = database;
	}
	return entry;
}

void WakeLauncher()
{
	if (table->launcher != nullptr)
		SetLatch(table->launcher);
}

void OnExit(int, Datum)
{
	ReleaseDatabase(false);
}

bool want_worker_at_commit = false;

void OnTransactionEnd(XactEvent event, void *)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (want_worker_at_commit && event == XACT_EVENT_COMMIT)
		WantWorker(MyDatabaseId);
	want_worker_at_commit = false;
}

}  // namespace

void RegisterWorkerTable()
{
	pg::AddSharedPiece({"pg_homing workers", TableSize, Attach});
}

bool WorkerTableExists()
{
	return table != nullptr;
}

bool ClaimDatabase(Oid database)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	Entry *entry = FindOrMake(database);
	const bool claimed = entry != nullptr && entry->pid == 0;
	if (claimed) {
		entry->pid = MyProcPid;
		entry->latch = MyLatch;
		entry->wanted = false;
		mine = entry;
	}
	LWLockRelease(table->lock);
	if (claimed)
		before_shmem_exit(OnExit, 0);
	return claimed;
}

void ConfirmRegion()
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	const bool news = !mine->region;
	mine->region = true;
	if (news)
		WakeLauncher();
	LWLockRelease(table->lock);
}

void ReleaseDatabase(bool forget)
{
	if (mine == nullptr)
		return;
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	mine->pid = 0;
	mine->latch = nullptr;
	// `wanted` was set again while we were leaving: the database became a region after we looked.
	if ((forget || !mine->region) && !mine->wanted)
		mine->database = InvalidOid;
	mine = nullptr;
	WakeLauncher();
	LWLockRelease(table->lock);
}

bool TakeHandedOver()
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	const bool handed_over = mine->handed_over;
	mine->handed_over = false;
	LWLockRelease(table->lock);
	return handed_over;
}

void RecordPeer(const PeerSeen &seen)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	int i = 0;
	while (i < mine->peer_count && mine->peers[i].region_id != seen.region_id)
		++i;
	if (i < kMaxPeers) {
		mine->peers[i] = seen;
		if (i == mine->peer_count)
			++mine->peer_count;
	}
	LWLockRelease(table->lock);
}

int ReadPeers(Oid database, PeerSeen peers[kMaxPeers])
{
	int count = 0;
	LWLockAcquire(table->lock, LW_SHARED);
	const Entry *entry = Find(database);
	if (entry != nullptr) {
		count = entry->peer_count;
		memcpy(peers, entry->peers, count * sizeof(PeerSeen));
	}
	LWLockRelease(table->lock);
	return count;
}

void WantWorker(Oid database) noexcept
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	Entry *entry = FindOrMake(database);
	if (entry != nullptr)
		entry->wanted = true;
	WakeLauncher();
	LWLockRelease(table->lock);
}

void TellHandedOver(Oid database) noexcept
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	Entry *entry = Find(database);
	if (entry != nullptr) {
		entry->handed_over = true;
		if (entry->latch != nullptr)
			SetLatch(entry->latch);
	}
	LWLockRelease(table->lock);
}

Served LookAtDatabase(Oid database)
{
	Served served = Served::kNo;
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	Entry *entry = Find(database);
	if (entry != nullptr) {
		if (entry->pid != 0)
			served = entry->region ? Served::kYes : Served::kNo;
		else if (entry->wanted)
			served = Served::kWanted;
		else if (entry->region)
			served = Served::kRegion;
	}
	LWLockRelease(table->lock);
	return served;
}

void ForgetDatabases(bool (*exists)(Oid database, void *argument), void *argument)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->size; ++i) {
		Entry *entry = &table->entries[i];
		if (OidIsValid(entry->database) && entry->pid == 0 && !exists(entry->database, argument))
			entry->database = InvalidOid;
	}
	LWLockRelease(table->lock);
}

void SetLauncherLatch(Latch *latch)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	table->launcher = latch;
	LWLockRelease(table->lock);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_start_worker);
PG_FUNCTION_INFO_V1(homing_peer_seen);

PGDLLEXPORT Datum homing_start_worker(PG_FUNCTION_ARGS)
{
	pg::RequireLoaded(table != nullptr);
	pg::AtTransactionEnd<OnTransactionEnd>();
	want_worker_at_commit = true;
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_peer_seen(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	if (table == nullptr)
		return (Datum) 0;

	auto *peers = static_cast<PeerSeen *>(palloc(kMaxPeers * sizeof(PeerSeen)));
	const int count = ReadPeers(MyDatabaseId, peers);
	for (int i = 0; i < count; ++i) {
		Datum values[] = {Int16GetDatum(peers[i].region_id), TimestampTzGetDatum(peers[i].last_seen),
		                  Int64GetDatum(peers[i].epoch), BoolGetDatum(peers[i].fenced)};
		bool nulls[] = {false, false, false, false};
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

}  // extern "C"

}  // namespace homing::rehome
