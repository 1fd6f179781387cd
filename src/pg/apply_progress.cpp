#include "pg/apply_progress.hpp"

#include "pg/shared_memory.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/pg_subscription.h"
#include "port/atomics.h"
#include "replication/logicalworker.h"
#include "replication/origin.h"
#include "replication/worker_internal.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

namespace {

// How far a subscription's worker was, with all of it visible, when it last began to wait for another stream.
struct Waiting {
	pg_atomic_uint32 subscription;  // 0: free
	pg_atomic_uint64 position;
};

// Of all databases of the server: who waits looks again.
struct Progress {
	pg_atomic_uint64 applied;  // transactions
	ConditionVariable moved;
	Waiting waiting[128];
};

Progress *progress = nullptr;

void Attach(void *memory, LWLock *, bool fresh)
{
	progress = static_cast<Progress *>(memory);
	if (!fresh)
		return;
	pg_atomic_init_u64(&progress->applied, 0);
	ConditionVariableInit(&progress->moved);
	for (Waiting &waiting : progress->waiting) {
		pg_atomic_init_u32(&waiting.subscription, 0);
		pg_atomic_init_u64(&waiting.position, 0);
	}
}

void OnTransactionEnd(XactEvent event)
{
	if (event != XACT_EVENT_COMMIT || MyLogicalRepWorker == nullptr)
		return;
	pg_atomic_fetch_add_u64(&progress->applied, 1);
	ConditionVariableBroadcast(&progress->moved);
}

EndListener end_listener{OnTransactionEnd};

// The place of a subscription; with `make` it gets one if there is still room. nullptr: it has none.
Waiting *PlaceOf(Oid subscription, bool make)
{
	for (Waiting &waiting : progress->waiting) {
		uint32 holder = pg_atomic_read_u32(&waiting.subscription);
		if (holder == subscription)
			return &waiting;
		if (holder != 0)
			continue;
		if (!make)
			return nullptr;
		if (pg_atomic_compare_exchange_u32(&waiting.subscription, &holder, subscription))
			return &waiting;
	}
	return nullptr;
}

// The transaction in which the subscription's apply worker is; invalid: it is in none that has written.
TransactionId ApplyTransaction(Oid subscription)
{
	TransactionId xid = InvalidTransactionId;
	LWLockAcquire(LogicalRepWorkerLock, LW_SHARED);
	LogicalRepWorker *worker = logicalrep_worker_find(subscription, InvalidOid, true);
	if (worker != nullptr && worker->proc != nullptr)
		xid = worker->proc->xid;
	LWLockRelease(LogicalRepWorkerLock);
	return xid;
}

}  // namespace

void RegisterApplyProgress()
{
	AddSharedPiece({"pg_homing apply progress", [] { return sizeof(Progress); }, Attach});
	AddEndListener(&end_listener);
}

Oid SubscriptionOfThisDatabase(const char *name)
{
	return GetSysCacheOid2(SUBSCRIPTIONNAME, Anum_pg_subscription_oid,
	                       ObjectIdGetDatum(MyDatabaseId), CStringGetDatum(name));
}

XLogRecPtr AppliedPosition(Oid subscription)
{
	char name[NAMEDATALEN];
	pg_snprintf(name, sizeof(name), "pg_%u", subscription);
	const RepOriginId origin = replorigin_by_name(name, true);
	return origin == InvalidRepOriginId ? InvalidXLogRecPtr : replorigin_get_progress(origin, false);
}

bool IsApplied(Oid subscription, XLogRecPtr position)
{
	const XLogRecPtr applied = AppliedPosition(subscription);
	if (applied == InvalidXLogRecPtr)
		return false;
	// A worker applies one transaction after the other, and moves its progress before the transaction is visible.
	// So of two that it has passed, the first one is.
	if (applied != position)
		return applied > position;
	const TransactionId xid = ApplyTransaction(subscription);
	if (!TransactionIdIsValid(xid) || !TransactionIdIsInProgress(xid))
		return true;
	// It is in the next one, and waits for a stream that may be the one that asks: it has told that it does.
	Waiting *waiting = PlaceOf(subscription, false);
	return waiting != nullptr && pg_atomic_read_u64(&waiting->position) >= position;
}

void TellWaiting()
{
	if (MyLogicalRepWorker == nullptr || replorigin_session_origin == InvalidRepOriginId ||
	    replorigin_session_origin == DoNotReplicateId)
		return;
	Waiting *waiting = PlaceOf(MyLogicalRepWorker->subid, true);
	if (waiting == nullptr)
		return;
	pg_atomic_write_u64(&waiting->position, replorigin_session_get_progress(false));
	ConditionVariableBroadcast(&progress->moved);
}

uint64 AppliedCount()
{
	return pg_atomic_read_u64(&progress->applied);
}

void AwaitApply(uint64 since, long timeout_ms)
{
	const TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	ConditionVariablePrepareToSleep(&progress->moved);
	for (;;) {
		const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (AppliedCount() != since || left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&progress->moved, left, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

}  // namespace homing::pg
