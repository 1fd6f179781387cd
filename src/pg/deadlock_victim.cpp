#include "pg/deadlock_victim.hpp"

#include <csignal>

#include "pg/compat.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/elog.h"
#include "utils/timestamp.h"
}

namespace homing::pg {

namespace {

constexpr int64 kToUnixMicroseconds =
	static_cast<int64>(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

// By BackendId: the local number of the transaction that is to go; 0: none. One that has ended by itself leaves
// its number behind, which does no harm.
pg_atomic_uint32 *victims = nullptr;

Size Bytes()
{
	return mul_size(sizeof(pg_atomic_uint32), static_cast<Size>(MaxBackends));
}

void Attach(void *memory, LWLock *, bool fresh)
{
	victims = static_cast<pg_atomic_uint32 *>(memory);
	if (!fresh)
		return;
	for (int i = 0; i < MaxBackends; ++i)
		pg_atomic_init_u32(&victims[i], 0);
}

pg_atomic_uint32 *VictimOf(BackendId backend)
{
	return victims != nullptr && backend > 0 && backend <= MaxBackends ? &victims[backend - 1]
	                                                                   : nullptr;
}

// While an error is made.
void NameError(void *)
{
	pg_atomic_uint32 *mark = VictimOf(MyBackendId);
	if (mark == nullptr || pg_atomic_read_u32(mark) == 0 || geterrcode() != ERRCODE_QUERY_CANCELED)
		return;
	const uint32 transaction = pg_atomic_exchange_u32(mark, 0);
	if (transaction != LocalTransactionOf(MyProc))
		return;
	errcode(ERRCODE_T_R_DEADLOCK_DETECTED);
	errmsg("deadlock detected");
	errdetail("The transaction waits for others which, at other regions, wait for it.");
	errhint("See server log for the transactions. Try again.");
}

ErrorContextCallback callback = {nullptr, NameError, nullptr};

// Marks and cancels the process if it still waits since then.
bool Cancel(int pid, TimestampTz since)
{
	PGPROC *proc = BackendPidGetProc(pid);
	pg_atomic_uint32 *mark = proc != nullptr ? VictimOf(proc->backendId) : nullptr;
	if (mark == nullptr || pg_atomic_read_u64(&proc->waitStart) != static_cast<uint64>(since))
		return false;
	pg_atomic_write_u32(mark, LocalTransactionOf(proc));
	pg_memory_barrier();
	return kill(pid, SIGINT) == 0;
}

}  // namespace

void RegisterDeadlockVictim()
{
	AddSharedPiece({"pg_homing deadlock victims", Bytes, Attach});
}

// Those who take their own callback off put back what was below it, which this changes for the last one. An error
// that goes up to the client clears the stack.
void WatchForDeadlock() noexcept
{
	ErrorContextCallback **end = &error_context_stack;
	while (*end != nullptr) {
		if (*end == &callback)
			return;
		end = &(*end)->previous;
	}
	*end = &callback;
}

TimestampTz LatestLongWait() noexcept
{
	const TimestampTz limit = GetCurrentTimestamp() - static_cast<int64>(DeadlockTimeout) * 1000;
	TimestampTz latest = 0;
	for (uint32 i = 0; i < ProcGlobal->allProcCount; ++i) {
		PGPROC *proc = &ProcGlobal->allProcs[i];
		const auto since = static_cast<TimestampTz>(pg_atomic_read_u64(&proc->waitStart));
		if (since != 0 && since <= limit && since > latest)
			latest = since;
	}
	return latest;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_cancel_deadlocked);

PGDLLEXPORT Datum homing_cancel_deadlocked(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(Cancel(PG_GETARG_INT32(0), PG_GETARG_INT64(1) - kToUnixMicroseconds));
}

}  // extern "C"

}  // namespace homing::pg
