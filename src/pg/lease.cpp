#include "pg/lease.hpp"

#include <time.h>

#include <limits>

#include "pg/catalog.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
}

namespace homing::pg {

namespace {

constexpr int kMaxRegions = 128;    // a voter promises to; the ones that asked last
constexpr int64 kMargin = 250;      // ms
constexpr long kFirstLease = 5000;  // ms that who writes waits for it

struct Promised {
	int16 region;  // 0: free
	core::VoterPromise promise;
	core::Instant renewed;  // when it asked last
};

// One database. Never given back before the server ends, so that a pointer to it stays good.
struct Slot {
	Oid database;
	int keeper;                    // pid; 0: none
	pg_atomic_uint64 valid_until;  // µs; 0: never held one
	pg_atomic_uint32 confirmed;
	pg_atomic_uint64 counted;  // epoch of the map whose voters gave the lease
	pg_atomic_uint32 recount;  // is wanted
	Promised promised[kMaxRegions];
};

struct Leases {
	LWLock *lock;
	core::Instant started;
	int size;
	Slot slots[FLEXIBLE_ARRAY_MEMBER];
};

Leases *leases = nullptr;
Slot *mine = nullptr;

// This transaction has written what only the holder of a lease may write.
bool watched = false;
bool wrote = false;  // and it has a transaction id

Size LeasesSize()
{
	return add_size(offsetof(Leases, slots), mul_size(max_worker_processes, sizeof(Slot)));
}

void Attach(void *memory, LWLock *lock, bool fresh)
{
	leases = static_cast<Leases *>(memory);
	if (!fresh)
		return;
	leases->lock = lock;
	leases->started = BootTime();
	leases->size = max_worker_processes;
}

// nullptr: there are too many databases.
Slot *Mine()
{
	if (mine != nullptr || leases == nullptr)
		return mine;
	LWLockAcquire(leases->lock, LW_EXCLUSIVE);
	for (int i = 0; i < leases->size && mine == nullptr; ++i) {
		Slot *slot = &leases->slots[i];
		if (slot->database == MyDatabaseId) {
			mine = slot;
		} else if (!OidIsValid(slot->database)) {
			slot->database = MyDatabaseId;
			pg_atomic_init_u64(&slot->valid_until, 0);
			pg_atomic_init_u32(&slot->confirmed, 0);
			pg_atomic_init_u64(&slot->counted, 0);
			pg_atomic_init_u32(&slot->recount, 0);
			mine = slot;
		}
	}
	LWLockRelease(leases->lock);
	return mine;
}

core::Fencing FencingMode()
{
	return static_cast<core::Fencing>(settings.fencing);
}

core::Instant ValidUntil(Slot *slot)
{
	return {static_cast<int64>(pg_atomic_read_u64(&slot->valid_until))};
}

[[gnu::hot]] bool LeaseStands()
{
	Slot *slot = Mine();
	return slot != nullptr && BootTime() < ValidUntil(slot);
}

core::LeaseTerms Terms(int lease_ms)
{
	core::LeaseTerms terms;
	terms.lease = core::Milliseconds(lease_ms);
	terms.drift_ppm = settings.clock_drift_ppm;
	terms.margin = core::Milliseconds(kMargin);
	return terms;
}

// Held exclusively by who votes, and shared by who promises, to the end of their transactions: a promise is given
// before a vote is durable that contradicts it, and then the vote waits, or after, and then it is seen.
constexpr uint16 kVoteClass = 204;

bool LockVotes(LOCKMODE mode, bool wait)
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, kVoteClass);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

// Requires: the lock. Ids are never used again, so there may be more than fit: the oldest promise has ended.
Promised *PromisedTo(Slot *slot, int16 region)
{
	Promised *oldest = &slot->promised[0];
	for (Promised &promised : slot->promised) {
		if (promised.region == region)
			return &promised;
		if (promised.region == 0) {
			promised = {region, {}, {}};
			return &promised;
		}
		if (promised.renewed < oldest->renewed)
			oldest = &promised;
	}
	*oldest = {region, {}, {}};
	return oldest;
}

// nullptr: it has never asked. Requires: the lock.
const Promised *FindPromised(const Slot *slot, int16 region)
{
	for (const Promised &promised : slot->promised) {
		if (promised.region == region)
			return &promised;
	}
	return nullptr;
}

constexpr int32 kLongest = 24 * 3600 * 1000;  // ms

int16 RegionArgument(Datum datum)
{
	const int16 region = DatumGetInt16(datum);
	if (region <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid number of a region: %d", region)));
	return region;
}

int32 TimeArgument(Datum datum)
{
	const int32 ms = DatumGetInt32(datum);
	if (ms < 0 || ms > kLongest)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid time: %d ms", ms)));
	return ms;
}

Slot *RequiredSlot()
{
	Slot *slot = Mine();
	if (slot == nullptr)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		                errmsg("this server has no room for the leases of another region"),
		                errhint("You might need to increase max_worker_processes.")));
	return slot;
}

void AskForRecount(Slot *slot)
{
	pg_atomic_write_u32(&slot->recount, 1);
	LWLockAcquire(leases->lock, LW_SHARED);
	PGPROC *keeper = slot->keeper != 0 ? BackendPidGetProc(slot->keeper) : nullptr;
	LWLockRelease(leases->lock);
	if (keeper != nullptr)
		SetLatch(&keeper->procLatch);
}

void OnKeeperExit(int, Datum)
{
	LWLockAcquire(leases->lock, LW_EXCLUSIVE);
	if (mine != nullptr && mine->keeper == MyProcPid)
		mine->keeper = 0;
	LWLockRelease(leases->lock);
}

void RefuseAtEnd()
{
	ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
	                errmsg("cannot commit a write of homed tables: this region is fenced"),
	                errdetail_internal("%s", WhyNotServing()),
	                errhint("Write at another region, or again when this one reaches the others.")));
}

[[gnu::hot]] void OnTransactionEnd(XactEvent event)
{
	if (!watched)
		return;
	switch (event) {
	case XACT_EVENT_PRE_COMMIT:
	case XACT_EVENT_PRE_PREPARE:
		// Without a transaction id nothing of it is in WAL, though another region may have committed its part.
		wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());
		if (wrote && !LeaseStands())
			RefuseAtEnd();
		break;
	case XACT_EVENT_COMMIT:
	case XACT_EVENT_PREPARE:
		watched = false;
		if (wrote && !LeaseStands())
			WithholdAcknowledgement(
				"closing the connection because the lease of this region ran out during a commit",
				"The transaction is committed here, but may not survive if the region was declared lost.");
		break;
	case XACT_EVENT_ABORT:
		watched = false;
		break;
	default:
		break;
	}
}

EndListener end_listener{OnTransactionEnd};

}  // namespace

void RegisterLease()
{
	AddSharedPiece({"pg_homing leases", LeasesSize, Attach});
	AddEndListener(&end_listener);
}

core::Instant BootTime()
{
	timespec now;
	(void) clock_gettime(CLOCK_BOOTTIME, &now);
	return {static_cast<int64>(now.tv_sec) * 1000000 + now.tv_nsec / 1000};
}

[[gnu::hot]] bool MayServe(const core::Electorate &electorate)
{
	if (core::NeedsLease(FencingMode(), electorate)) {
		watched = true;
		ListenToEnd(&end_listener);
		return LeaseStands();
	}
	if (electorate.alone)
		return true;
	Slot *slot = Mine();
	return slot != nullptr && pg_atomic_read_u32(&slot->confirmed) != 0;
}

bool HasEverServed()
{
	Slot *slot = Mine();
	if (slot == nullptr)
		return true;
	return watched ? ValidUntil(slot).us != 0 : pg_atomic_read_u32(&slot->confirmed) != 0;
}

long FirstLeasePatience()
{
	return HasEverServed() ? 0 : kFirstLease;
}

const char *WhyNotServing()
{
	if (!HasEverServed())
		return "It has not heard from enough other regions since its server started.";
	return "It holds no lease from a majority of the regions.";
}

void CheckLease()
{
	const TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kFirstLease);
	for (;;) {
		const CatalogVersion seen = PgEntry([] { return CurrentVersion(); });
		const Catalog *catalog = PgEntry([] { return CurrentCatalog(); });
		if (catalog == nullptr || MayServe(catalog->electorate))
			return;
		const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (HasEverServed() || left <= 0)
			break;
		(void) AwaitChange(seen, left);
	}
	ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION), errmsg("this region is fenced"),
	                errdetail_internal("%s", WhyNotServing()),
	                errhint("Try again when it reaches the other regions.")));
}

bool ClaimLease()
{
	Slot *slot = Mine();
	if (slot == nullptr)
		return false;
	LWLockAcquire(leases->lock, LW_EXCLUSIVE);
	const bool claimed = slot->keeper == 0;
	if (claimed)
		slot->keeper = MyProcPid;
	LWLockRelease(leases->lock);
	if (claimed)
		before_shmem_exit(OnKeeperExit, 0);
	return claimed;
}

bool LeaseIsKept()
{
	Slot *slot = Mine();
	LWLockAcquire(leases->lock, LW_SHARED);
	const bool kept = slot == nullptr || slot->keeper != 0;
	LWLockRelease(leases->lock);
	return kept;
}

void PublishLease(core::Instant until, std::int64_t epoch)
{
	Slot *slot = Mine();
	if (slot == nullptr)
		return;
	const bool stood = LeaseStands();
	pg_atomic_write_u64(&slot->valid_until, until.us > 0 ? static_cast<uint64>(until.us) : 0);
	pg_memory_barrier();
	const uint64 before = pg_atomic_exchange_u64(&slot->counted, static_cast<uint64>(epoch));
	if (before != static_cast<uint64>(epoch) || (!stood && LeaseStands()))
		WakeWaiters();
}

bool RecountIsWanted()
{
	Slot *slot = Mine();
	return slot != nullptr && pg_atomic_exchange_u32(&slot->recount, 0) != 0;
}

void ConfirmServing()
{
	Slot *slot = Mine();
	if (slot != nullptr && pg_atomic_exchange_u32(&slot->confirmed, 1) == 0)
		WakeWaiters();
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_lock_votes);
PG_FUNCTION_INFO_V1(homing_promise);
PG_FUNCTION_INFO_V1(homing_promised_for);
PG_FUNCTION_INFO_V1(homing_withhold);
PG_FUNCTION_INFO_V1(homing_silent_for);
PG_FUNCTION_INFO_V1(homing_lease_left);
PG_FUNCTION_INFO_V1(homing_check_lease);
PG_FUNCTION_INFO_V1(homing_confirm_serving);
PG_FUNCTION_INFO_V1(homing_await_recount);

// (for_vote bool) → whether it is held, to the end of the transaction; for a vote it is waited for.
PGDLLEXPORT Datum homing_lock_votes(PG_FUNCTION_ARGS)
{
	const bool for_vote = PG_GETARG_BOOL(0);
	PG_RETURN_BOOL(LockVotes(for_vote ? ExclusiveLock : ShareLock, for_vote));
}

// (region int2, lease_ms int4) → whether it is promised.
PGDLLEXPORT Datum homing_promise(PG_FUNCTION_ARGS)
{
	Slot *slot = RequiredSlot();
	const int16 region = RegionArgument(PG_GETARG_DATUM(0));
	const int32 lease = TimeArgument(PG_GETARG_DATUM(1));
	LWLockAcquire(leases->lock, LW_EXCLUSIVE);
	Promised *promised = PromisedTo(slot, region);
	const core::Instant now = BootTime();
	promised->renewed = now;
	const bool given = core::Promise(&promised->promise, Terms(lease), now);
	LWLockRelease(leases->lock);
	PG_RETURN_BOOL(given);
}

// (region int2, longest_lease_ms int4) → ms until the promise to the region has ended; 0: it has.
PGDLLEXPORT Datum homing_promised_for(PG_FUNCTION_ARGS)
{
	Slot *slot = RequiredSlot();
	const int16 region = RegionArgument(PG_GETARG_DATUM(0));
	const int32 longest = TimeArgument(PG_GETARG_DATUM(1));
	LWLockAcquire(leases->lock, LW_SHARED);
	const Promised *promised = FindPromised(slot, region);
	const core::Instant until =
		core::PromisedUntil(promised != nullptr ? promised->promise : core::VoterPromise{},
	                        Terms(longest), leases->started);
	LWLockRelease(leases->lock);
	const core::Duration left = until - BootTime();
	PG_RETURN_INT64(left.us > 0 ? left.us / 1000 + 1 : 0);
}

// (region int2, ms int4): promises nothing to the region for so long.
PGDLLEXPORT Datum homing_withhold(PG_FUNCTION_ARGS)
{
	Slot *slot = RequiredSlot();
	const int16 region = RegionArgument(PG_GETARG_DATUM(0));
	const int32 ms = TimeArgument(PG_GETARG_DATUM(1));
	LWLockAcquire(leases->lock, LW_EXCLUSIVE);
	core::Withhold(&PromisedTo(slot, region)->promise, BootTime() + core::Milliseconds(ms));
	LWLockRelease(leases->lock);
	PG_RETURN_VOID();
}

// (region int2) → ms since the region asked for a promise, or since the server started.
PGDLLEXPORT Datum homing_silent_for(PG_FUNCTION_ARGS)
{
	Slot *slot = RequiredSlot();
	const int16 region = RegionArgument(PG_GETARG_DATUM(0));
	LWLockAcquire(leases->lock, LW_SHARED);
	const Promised *promised = FindPromised(slot, region);
	const core::Instant renewed = promised != nullptr ? promised->renewed : core::Instant{};
	LWLockRelease(leases->lock);
	const core::Instant since = renewed < leases->started ? leases->started : renewed;
	PG_RETURN_INT64((BootTime() - since).us / 1000);
}

PGDLLEXPORT Datum homing_lease_left(PG_FUNCTION_ARGS)
{
	const Catalog *catalog = PgEntry([] { return CurrentCatalog(); });
	Slot *slot = Mine();
	if (catalog == nullptr || slot == nullptr)
		PG_RETURN_NULL();
	int64 left = 0;
	if (core::NeedsLease(FencingMode(), catalog->electorate))
		left = (ValidUntil(slot) - BootTime()).us;
	else if (MayServe(catalog->electorate))
		PG_RETURN_NULL();
	auto *interval = static_cast<Interval *>(palloc0(sizeof(Interval)));
	interval->time = left > 0 ? left : 0;
	PG_RETURN_INTERVAL_P(interval);
}

PGDLLEXPORT Datum homing_confirm_serving(PG_FUNCTION_ARGS)
{
	(void) RequiredSlot();
	ConfirmServing();
	PG_RETURN_VOID();
}

// (epoch int8): waits until this region serves by no lease that was counted by an older map.
PGDLLEXPORT Datum homing_await_recount(PG_FUNCTION_ARGS)
{
	Slot *slot = RequiredSlot();
	const auto epoch = static_cast<uint64>(PG_GETARG_INT64(0));
	for (;;) {
		const CatalogVersion seen = PgEntry([] { return CurrentVersion(); });
		const core::Duration left = ValidUntil(slot) - BootTime();
		if (left.us <= 0 || pg_atomic_read_u64(&slot->counted) >= epoch)
			break;
		AskForRecount(slot);
		(void) AwaitChange(seen, left.us / 1000 + 1);
	}
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_check_lease(PG_FUNCTION_ARGS)
{
	CheckLease();
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::pg
