#include "pg/home_lock.hpp"

extern "C" {
#include "storage/lock.h"
}

namespace homing::pg {

namespace {

// pg_advisory_lock uses classes 1 and 2 of the fourth field.
constexpr uint16 kHomeClass = 200;
constexpr uint32 kWholeKeyspace = 0xffffffff;

bool Lock(core::KeyspaceId keyspace, uint32 home, LOCKMODE mode, bool wait = true)
{
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(keyspace.value), home, kHomeClass);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

}  // namespace

void LockHomeForWrite(core::KeyspaceId keyspace, core::HomeId home)
{
	Lock(keyspace, static_cast<uint32>(home.value), ShareLock);
}

void LockKeyspaceForWrite(core::KeyspaceId keyspace)
{
	Lock(keyspace, kWholeKeyspace, ShareLock);
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
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(keyspace.value), kWholeKeyspace,
	                     kHomeClass);
	if (LockHeldByMe(&tag, ShareLock))
		return true;
	for (int home = 0; home < homes; ++home) {
		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(keyspace.value),
		                     static_cast<uint32>(home), kHomeClass);
		if (LockHeldByMe(&tag, ShareLock))
			return true;
	}
	return false;
}

}  // namespace homing::pg
