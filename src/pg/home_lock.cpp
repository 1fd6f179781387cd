#include "pg/home_lock.hpp"

#include <cstring>

extern "C" {
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
}

namespace homing::pg {

namespace {

// pg_advisory_lock uses classes 1 and 2 of the fourth field; pg/lease has 204.
constexpr uint16 kKeyspaceClass = 200;
constexpr uint16 kChangeClass = 201;
// Claims. Who claims takes RowExclusiveLock, who keeps open ShareLock; each goes with its like.
// A key, by its hash: single claims against single keepers.
constexpr uint16 kClaimClass = 202;
// 0: any claim against keepers of all keys; 1: claims of many keys against single keepers.
constexpr uint16 kAnyClaimClass = 203;
constexpr uint32 kWholeKeyspace = 0xffffffff;

// Numbers that no relation of a server has: given-out ones begin above, and PostgreSQL keeps 8000 to 9999 for patches
// under development, out of every release (access/transam.h).
constexpr uint32 kFirstHomeNumber = 9000, kHomeNumbers = 1000;

LOCKTAG TagOf(core::KeyspaceId keyspace, uint32 home)
{
	LOCKTAG tag;
	const auto id = static_cast<uint32>(keyspace.value);
	if (home == kWholeKeyspace)
		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, id, home, kKeyspaceClass);
	else
		SET_LOCKTAG_RELATION(tag, MyDatabaseId, kFirstHomeNumber + (id * 131 + home) % kHomeNumbers);
	return tag;
}

LOCKMODE ModeForWrite(uint32 home)
{
	return home == kWholeKeyspace ? ShareLock : RowExclusiveLock;
}

inline bool Lock(core::KeyspaceId keyspace, uint32 home, LOCKMODE mode, bool wait = true)
{
	const LOCKTAG tag = TagOf(keyspace, home);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

bool IsSame(const LOCKTAG &left, const LOCKTAG &right)
{
	return std::memcmp(&left, &right, sizeof(LOCKTAG)) == 0;
}

struct Wait {
	core::KeyspaceId keyspace;
	uint32 home;
};

void AwaitLock(void *argument)
{
	const auto *wait = static_cast<const Wait *>(argument);
	(void) Lock(wait->keyspace, wait->home, ModeForWrite(wait->home));
}

// A writer has locked its table before it comes here. A change of the table in every region holds the homes while it
// waits for what is on its way, and only then wants the table: the circle closes long after we began to wait. The
// server looks for circles once, so the change would find it and be the victim. We look again and again.
[[gnu::noinline]] void WaitForWrite(core::KeyspaceId keyspace, uint32 home)
{
	constexpr int kLookEvery = 200;  // ms
	static TimeoutId timer = MAX_TIMEOUTS;
	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, CheckDeadLockAlert);
	Wait wait{keyspace, home};
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kLookEvery),
	                     kLookEvery);
	ErrorData *error = CallGuarded(AwaitLock, &wait);
	disable_timeout(timer, false);
	if (error != nullptr)
		ReThrowError(error);
}

inline void LockForWrite(core::KeyspaceId keyspace, uint32 home)
{
	if (!Lock(keyspace, home, ModeForWrite(home), false))
		WaitForWrite(keyspace, home);
}

}  // namespace

[[gnu::hot]] void LockHomeForWrite(core::KeyspaceId keyspace, core::HomeId home)
{
	LockForWrite(keyspace, static_cast<uint32>(home.value));
}

void LockKeyspaceForWrite(core::KeyspaceId keyspace)
{
	LockForWrite(keyspace, kWholeKeyspace);
}

void LockHomeForMove(core::KeyspaceId keyspace, core::HomeId home)
{
	Lock(keyspace, kWholeKeyspace, RowExclusiveLock);
	Lock(keyspace, static_cast<uint32>(home.value), ExclusiveLock);
}

bool TryLockHomeForMove(core::KeyspaceId keyspace, core::HomeId home)
{
	return Lock(keyspace, kWholeKeyspace, RowExclusiveLock, false) &&
	       Lock(keyspace, static_cast<uint32>(home.value), ExclusiveLock, false);
}

bool HoldsLockForWrite(core::KeyspaceId keyspace, int homes)
{
	LOCKTAG tag = TagOf(keyspace, kWholeKeyspace);
	if (LockHeldByMe(&tag, ModeForWrite(kWholeKeyspace)))
		return true;
	for (int home = 0; home < homes; ++home) {
		tag = TagOf(keyspace, static_cast<uint32>(home));
		if (LockHeldByMe(&tag, ModeForWrite(static_cast<uint32>(home))))
			return true;
	}
	return false;
}

namespace {

void LockClaims(core::KeyspaceId keyspace, uint16 lock_class, uint32 what, LOCKMODE mode)
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(keyspace.value), what, lock_class);
	(void) LockAcquire(&tag, mode, false, false);
}

constexpr uint32 kAnyKey = 0, kManyKeys = 1;

}  // namespace

void LockKeyForClaim(core::KeyspaceId keyspace, uint64 key_hash)
{
	LockClaims(keyspace, kAnyClaimClass, kAnyKey, RowExclusiveLock);
	LockClaims(keyspace, kClaimClass, static_cast<uint32>(key_hash), RowExclusiveLock);
}

void LockKeysForClaim(core::KeyspaceId keyspace)
{
	LockClaims(keyspace, kAnyClaimClass, kAnyKey, RowExclusiveLock);
	LockClaims(keyspace, kAnyClaimClass, kManyKeys, RowExclusiveLock);
}

void KeepKeyOpen(core::KeyspaceId keyspace, uint64 key_hash)
{
	LockClaims(keyspace, kAnyClaimClass, kManyKeys, ShareLock);
	LockClaims(keyspace, kClaimClass, static_cast<uint32>(key_hash), ShareLock);
}

void KeepKeysOpen(core::KeyspaceId keyspace)
{
	LockClaims(keyspace, kAnyClaimClass, kAnyKey, ShareLock);
}

void LockChange()
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, kChangeClass);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void HoldChange()
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, kChangeClass);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
}

void ReleaseChange()
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, kChangeClass);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

void CheckHoldsUpNoChange()
{
	LOCKTAG change;
	SET_LOCKTAG_ADVISORY(change, MyDatabaseId, 0, 0, kChangeClass);
	if (LockAcquire(&change, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL) {
		(void) LockRelease(&change, ShareLock, false);
		return;
	}
	const LockData *data = GetLockStatusData();
	const LockInstanceData *end = data->locks + data->nelements;
	int changing = 0;
	for (const LockInstanceData *lock = data->locks; lock < end; ++lock) {
		if (IsSame(lock->locktag, change) && lock->holdMask != 0)
			changing = lock->pid;
	}
	for (const LockInstanceData *wanted = data->locks; wanted < end; ++wanted) {
		if (wanted->pid != changing || wanted->waitLockMode != AccessExclusiveLock ||
		    wanted->locktag.locktag_type != LOCKTAG_RELATION)
			continue;
		for (const LockInstanceData *ours = data->locks; ours < end; ++ours) {
			if (ours->pid == MyProcPid && ours->holdMask != 0 &&
			    IsSame(ours->locktag, wanted->locktag))
				ereport(ERROR,
				        (errcode(ERRCODE_T_R_DEADLOCK_DETECTED), errmsg("deadlock detected"),
				         errdetail(
							 "Process %d changes homed tables in every region and waits for a table "
							 "that is used here by a transaction that waits for another region.",
							 changing),
				         errhint("Try again.")));
		}
	}
}

}  // namespace homing::pg
