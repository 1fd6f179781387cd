#include "pg/forward_stats.hpp"

#include "pg/compat.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
}

namespace homing::pg {

namespace {

constexpr int kCounters = static_cast<int>(Forwarded::kCounters);
// Databases times regions. What does not fit is not counted.
constexpr int kRoom = 512;
constexpr const char *kFile = PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_homing_forwarding.stat";
constexpr const char *kTemporaryFile =
	PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_homing_forwarding.stat.tmp";
// Of the file's layout.
constexpr uint32 kMagic = 0x686f6d31;

}  // namespace

struct ForwardCounters {
	Oid database;
	int16 region;
	pg_atomic_uint64 since;  // TimestampTz
	pg_atomic_uint64 values[kCounters];
};

namespace {

struct Stats {
	LWLock *lock;  // for adding entries
	int used;      // entries are never removed
	ForwardCounters entries[kRoom];
};

// An entry in the file.
struct Saved {
	Oid database;
	int16 region;
	TimestampTz since;
	uint64 values[kCounters];
};

Stats *stats = nullptr;

// The lock is held exclusively, or nobody else is there yet.
ForwardCounters *Add(Oid database, int16 region)
{
	if (stats->used == kRoom)
		return nullptr;
	ForwardCounters *entry = &stats->entries[stats->used];
	entry->database = database;
	entry->region = region;
	pg_atomic_init_u64(&entry->since, static_cast<uint64>(GetCurrentTimestamp()));
	for (pg_atomic_uint64 &value : entry->values)
		pg_atomic_init_u64(&value, 0);
	++stats->used;
	return entry;
}

// Counts are not worth a server that does not start: what is no such file is left out.
void Load()
{
	FILE *file = AllocateFile(kFile, PG_BINARY_R);
	if (file == nullptr)
		return;
	uint32 magic = 0;
	Saved saved;
	memset(&saved, 0, sizeof(saved));
	if (fread(&magic, sizeof(magic), 1, file) == 1 && magic == kMagic) {
		while (fread(&saved, sizeof(saved), 1, file) == 1) {
			ForwardCounters *entry = Add(saved.database, saved.region);
			if (entry == nullptr)
				break;
			pg_atomic_write_u64(&entry->since, static_cast<uint64>(saved.since));
			for (int i = 0; i < kCounters; ++i)
				pg_atomic_write_u64(&entry->values[i], saved.values[i]);
		}
	}
	(void) FreeFile(file);
	(void) unlink(kFile);
}

bool Write(FILE *file)
{
	if (fwrite(&kMagic, sizeof(kMagic), 1, file) != 1)
		return false;
	for (int i = 0; i < stats->used; ++i) {
		ForwardCounters *entry = &stats->entries[i];
		Saved saved;
		memset(&saved, 0, sizeof(saved));
		saved.database = entry->database;
		saved.region = entry->region;
		saved.since = static_cast<TimestampTz>(pg_atomic_read_u64(&entry->since));
		for (int value = 0; value < kCounters; ++value)
			saved.values[value] = pg_atomic_read_u64(&entry->values[value]);
		if (fwrite(&saved, sizeof(saved), 1, file) != 1)
			return false;
	}
	return true;
}

// In the postmaster, which ends.
void Save(int code, Datum)
{
	if (code != 0 || stats == nullptr)
		return;
	FILE *file = AllocateFile(kTemporaryFile, PG_BINARY_W);
	bool written = file != nullptr;
	if (written) {
		written = Write(file);
		written = FreeFile(file) == 0 && written;
	}
	if (written) {
		(void) durable_rename(kTemporaryFile, kFile, LOG);
		return;
	}
	ereport(LOG,
	        (errcode_for_file_access(), errmsg("could not write file \"%s\": %m", kTemporaryFile)));
	(void) unlink(kTemporaryFile);
}

void Attach(void *memory, LWLock *lock, bool fresh)
{
	stats = static_cast<Stats *>(memory);
	if (!IsUnderPostmaster)
		on_shmem_exit(Save, (Datum) 0);
	if (!fresh)
		return;
	stats->lock = lock;
	Load();
}

ForwardCounters *Find(Oid database, int16 region)
{
	for (int i = 0; i < stats->used; ++i) {
		ForwardCounters *entry = &stats->entries[i];
		if (entry->database == database && entry->region == region)
			return entry;
	}
	return nullptr;
}

Forwarded ClassOf(const std::string &sqlstate)
{
	const std::string group = sqlstate.substr(0, 2);
	if (group == "08")
		return Forwarded::kConnectionErrors;
	if (group == "40")
		return Forwarded::kConflicts;
	if (group == "23")
		return Forwarded::kConstraintErrors;
	if (group == "57")
		return Forwarded::kCancels;
	return Forwarded::kOtherErrors;
}

}  // namespace

void RegisterForwardStats()
{
	AddSharedPiece({"pg_homing forwarding statistics", [] { return sizeof(Stats); }, Attach});
}

ForwardCounters *CountersOf(core::RegionId region) noexcept
{
	if (stats == nullptr)
		return nullptr;
	LWLockAcquire(stats->lock, LW_SHARED);
	ForwardCounters *entry = Find(MyDatabaseId, region.value);
	LWLockRelease(stats->lock);
	if (entry != nullptr)
		return entry;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	entry = Find(MyDatabaseId, region.value);
	if (entry == nullptr)
		entry = Add(MyDatabaseId, region.value);
	LWLockRelease(stats->lock);
	return entry;
}

void Count(ForwardCounters *counters, Forwarded what, uint64 by) noexcept
{
	if (counters != nullptr && by > 0)
		pg_atomic_fetch_add_u64(&counters->values[static_cast<int>(what)], static_cast<int64>(by));
}

void CountError(ForwardCounters *counters, const std::string &sqlstate) noexcept
{
	Count(counters, ClassOf(sqlstate));
}

void CountSince(ForwardCounters *counters, Forwarded what,
                std::chrono::steady_clock::time_point begin) noexcept
{
	const auto time = std::chrono::steady_clock::now() - begin;
	Count(counters, what,
	      static_cast<uint64>(std::chrono::duration_cast<std::chrono::microseconds>(time).count()));
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_forward_stats);
PG_FUNCTION_INFO_V1(homing_stat_forwarding_reset);

// Region, the counters, and since when they count, of this database.
PGDLLEXPORT Datum homing_forward_stats(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (stats == nullptr)
		PG_RETURN_NULL();
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	LWLockAcquire(stats->lock, LW_SHARED);
	const int used = stats->used;
	LWLockRelease(stats->lock);
	for (int i = 0; i < used; ++i) {
		ForwardCounters *entry = &stats->entries[i];
		if (entry->database != MyDatabaseId)
			continue;
		Datum values[kCounters + 2];
		bool nulls[kCounters + 2] = {};
		values[0] = Int16GetDatum(entry->region);
		for (int value = 0; value < kCounters; ++value)
			values[value + 1] =
				Int64GetDatum(static_cast<int64>(pg_atomic_read_u64(&entry->values[value])));
		values[kCounters + 1] =
			TimestampTzGetDatum(static_cast<TimestampTz>(pg_atomic_read_u64(&entry->since)));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}

PGDLLEXPORT Datum homing_stat_forwarding_reset(PG_FUNCTION_ARGS)
{
	if (stats == nullptr)
		PG_RETURN_VOID();
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	for (int i = 0; i < stats->used; ++i) {
		ForwardCounters *entry = &stats->entries[i];
		if (entry->database != MyDatabaseId)
			continue;
		for (pg_atomic_uint64 &value : entry->values)
			pg_atomic_write_u64(&value, 0);
		pg_atomic_write_u64(&entry->since, static_cast<uint64>(GetCurrentTimestamp()));
	}
	LWLockRelease(stats->lock);
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::pg
