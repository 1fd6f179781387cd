#include "pg/session_slots.hpp"

#include <algorithm>

#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "access/xact.h"
#include "funcapi.h"
#include "port/atomics.h"
#include "storage/backendid.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procsignal.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

namespace {

// A backend has one session for each region and role that it writes with.
constexpr int kRoomPerBackend = 4;
constexpr int kLeastRoom = 256;
// Who waits looks again after so long, should a wake-up have come in between.
constexpr long kLookAgain = 1000;  // ms

struct Slot {
	int local_pid;  // 0: free
	int remote_pid;
	BackendId backend;
	Oid database, user;
	int16 region;
	pg_atomic_uint32 state;        // SlotState
	pg_atomic_uint32 wanted;       // somebody waits for it
	pg_atomic_uint64 transaction;  // TimestampTz of its begin; 0: none
	TimestampTz connected;
};

struct Slots {
	LWLock *lock;  // for taking and freeing
	ConditionVariable freed;
	pg_atomic_uint32 waiting;  // backends
	int room;
	Slot slots[FLEXIBLE_ARRAY_MEMBER];
};

Slots *slots = nullptr;
bool waiting_here = false;
bool exit_registered = false;

int Room()
{
	return std::max(kLeastRoom, kRoomPerBackend * MaxBackends);
}

Size Bytes()
{
	return add_size(offsetof(Slots, slots), mul_size(sizeof(Slot), static_cast<Size>(Room())));
}

void Attach(void *memory, LWLock *lock, bool fresh)
{
	slots = static_cast<Slots *>(memory);
	if (!fresh)
		return;
	slots->lock = lock;
	slots->room = Room();
	ConditionVariableInit(&slots->freed);
	pg_atomic_init_u32(&slots->waiting, 0);
	for (int i = 0; i < slots->room; ++i) {
		pg_atomic_init_u32(&slots->slots[i].state, 0);
		pg_atomic_init_u32(&slots->slots[i].wanted, 0);
		pg_atomic_init_u64(&slots->slots[i].transaction, 0);
	}
}

void SetState(int number, SlotState state)
{
	pg_atomic_write_u32(&slots->slots[number].state, static_cast<uint32>(state));
}

void StopWaiting()
{
	if (!waiting_here)
		return;
	waiting_here = false;
	(void) pg_atomic_fetch_sub_u32(&slots->waiting, 1);
}

void Free(int number)
{
	LWLockAcquire(slots->lock, LW_EXCLUSIVE);
	slots->slots[number].local_pid = 0;
	LWLockRelease(slots->lock);
	if (pg_atomic_read_u32(&slots->waiting) > 0)
		ConditionVariableBroadcast(&slots->freed);
}

void FreeAll(int, Datum)
{
	StopWaiting();
	for (int i = 0; i < slots->room; ++i) {
		if (slots->slots[i].local_pid == MyProcPid)
			Free(i);
	}
}

void Occupy(Slot *slot, int16 region)
{
	slot->local_pid = MyProcPid;
	slot->remote_pid = 0;
	slot->backend = MyBackendId;
	slot->database = MyDatabaseId;
	slot->user = GetUserId();
	slot->region = region;
	slot->connected = GetCurrentTimestamp();
	pg_atomic_write_u32(&slot->state, static_cast<uint32>(SlotState::kConnecting));
	pg_atomic_write_u32(&slot->wanted, 0);
	pg_atomic_write_u64(&slot->transaction, 0);
}

bool IsIdle(Slot *slot)
{
	return pg_atomic_read_u32(&slot->state) == static_cast<uint32>(SlotState::kIdle);
}

// What a look at all slots found, and did.
struct Look {
	int taken;  // number of the slot that is ours now; -1: none
	bool full;  // the table is
	int owner;  // pid of an idle owner to wake up; 0: none
	BackendId owner_backend;
};

// Takes a slot, or, with `ask`, marks somebody else's as wanted: an idle one, or one that is in use unless as many of those
// are wanted as there are backends that wait.
Look TakeOrAsk(int16 region, int limit, bool ask)
{
	Look look{-1, false, 0, InvalidBackendId};
	int free = -1, used = 0;
	uint32 wanted = 0;
	Slot *candidate = nullptr;
	LWLockAcquire(slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < slots->room; ++i) {
		Slot *slot = &slots->slots[i];
		if (slot->local_pid == 0) {
			if (free < 0)
				free = i;
			continue;
		}
		if (slot->region != region || slot->database != MyDatabaseId)
			continue;
		++used;
		if (pg_atomic_read_u32(&slot->wanted) != 0)
			++wanted;
		else if (slot->local_pid != MyProcPid &&
		         (candidate == nullptr || (!IsIdle(candidate) && IsIdle(slot))))
			candidate = slot;
	}
	look.full = free < 0;
	if (limit > 0 && used >= limit) {
		const uint32 waiting = pg_atomic_read_u32(&slots->waiting);
		if (ask && candidate != nullptr && waiting > 0 && (IsIdle(candidate) || wanted < waiting)) {
			pg_atomic_write_u32(&candidate->wanted, 1);
			// Its owner does it the other way round: becomes idle, then looks whether it is wanted.
			pg_memory_barrier();
			if (IsIdle(candidate)) {
				look.owner = candidate->local_pid;
				look.owner_backend = candidate->backend;
			}
		}
	} else if (free >= 0) {
		Occupy(&slots->slots[free], region);
		look.taken = free;
	}
	LWLockRelease(slots->lock);
	return look;
}

[[noreturn]] void RefuseMore(const char *region, bool full)
{
	if (full)
		ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
		                errmsg("too many connections from this server to other regions"),
		                errhint("Close sessions that have written at other regions.")));
	ereport(ERROR,
	        (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
	         errmsg("too many connections to region \"%s\"", region),
	         errdetail("All %d that homing.max_connections_per_region allows were in use for "
	                   "homing.connect_timeout (%d ms).",
	                   settings.max_connections_per_region, settings.connect_timeout_ms),
	         errhint("Try again, raise homing.max_connections_per_region, or end transactions that stay "
	                 "open (homing.sessions).")));
	pg_unreachable();
}

void FreeAtExit()
{
	if (!exit_registered)
		before_shmem_exit(FreeAll, (Datum) 0);
	exit_registered = true;
}

// Plain server code.
int Take(int16 region, const char *name)
{
	FreeAtExit();
	const TimestampTz until =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), settings.connect_timeout_ms);
	volatile int taken = -1;
	PG_TRY();
	{
		for (;;) {
			const Look look = TakeOrAsk(region, settings.max_connections_per_region, true);
			taken = look.taken;
			if (taken >= 0)
				break;
			if (look.owner != 0)
				(void) SendProcSignal(look.owner, PROCSIG_CATCHUP_INTERRUPT, look.owner_backend);
			const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
			if (left <= 0 || look.full)
				RefuseMore(name, look.full);
			if (!waiting_here) {
				waiting_here = true;
				(void) pg_atomic_fetch_add_u32(&slots->waiting, 1);
				ConditionVariablePrepareToSleep(&slots->freed);
				continue;  // look again, now that we are told
			}
			(void) ConditionVariableTimedSleep(&slots->freed, std::min(left, kLookAgain),
			                                   PG_WAIT_EXTENSION);
		}
	}
	PG_FINALLY();
	{
		if (waiting_here)
			ConditionVariableCancelSleep();
		StopWaiting();
	}
	PG_END_TRY();
	return taken;
}

}  // namespace

void RegisterSessionSlots()
{
	AddSharedPiece({"pg_homing sessions at other regions", Bytes, Attach});
}

SessionSlot::SessionSlot(core::RegionId region, const std::string &region_name)
{
	if (slots == nullptr)
		return;
	const char *name = region_name.c_str();
	number_ = PgCall([&] { return Take(region.value, name); });
}

std::optional<SessionSlot> SessionSlot::IfFree(core::RegionId region)
{
	SessionSlot slot;
	if (slots == nullptr)
		return slot;
	slot.number_ = PgCall([&] {
		FreeAtExit();
		return TakeOrAsk(region.value, settings.max_connections_per_region, false).taken;
	});
	if (slot.number_ < 0)
		return std::nullopt;
	return slot;
}

SessionSlot::~SessionSlot()
{
	if (number_ >= 0)
		Free(number_);
}

void SessionSlot::Connected(int remote_pid) noexcept
{
	if (number_ < 0)
		return;
	slots->slots[number_].remote_pid = remote_pid;
	SetState(number_, SlotState::kIdle);
}

void SessionSlot::Active() noexcept
{
	if (number_ < 0)
		return;
	pg_atomic_write_u64(&slots->slots[number_].transaction,
	                    static_cast<uint64>(GetCurrentTransactionStartTimestamp()));
	SetState(number_, SlotState::kActive);
}

void SessionSlot::Answered() noexcept
{
	if (number_ >= 0)
		SetState(number_, SlotState::kInTransaction);
}

void SessionSlot::Idle() noexcept
{
	if (number_ < 0)
		return;
	pg_atomic_write_u64(&slots->slots[number_].transaction, 0);
	SetState(number_, SlotState::kIdle);
	pg_memory_barrier();
	// Another one may be marked, whose owner takes longer.
	if (pg_atomic_read_u32(&slots->waiting) > 0 && !Wanted())
		ConditionVariableBroadcast(&slots->freed);
}

bool SessionSlot::Wanted() const noexcept
{
	return number_ >= 0 && pg_atomic_read_u32(&slots->slots[number_].wanted) != 0;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_sessions);

static const char *StateName(uint32 state)
{
	switch (static_cast<SlotState>(state)) {
	case SlotState::kConnecting:
		return "connecting";
	case SlotState::kIdle:
		return "idle";
	case SlotState::kActive:
		return "active";
	case SlotState::kInTransaction:
		return "idle in transaction";
	}
	return "unknown";
}

// Of this database: local pid, role, region, remote pid, state, begin of the transaction, of the connection.
PGDLLEXPORT Datum homing_sessions(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (slots == nullptr)
		PG_RETURN_NULL();
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	auto *copy = static_cast<Slot *>(palloc(mul_size(sizeof(Slot), static_cast<Size>(slots->room))));
	LWLockAcquire(slots->lock, LW_SHARED);
	memcpy(copy, slots->slots, sizeof(Slot) * static_cast<Size>(slots->room));
	const int room = slots->room;
	LWLockRelease(slots->lock);
	for (int i = 0; i < room; ++i) {
		Slot *slot = &copy[i];
		if (slot->local_pid == 0 || slot->database != MyDatabaseId)
			continue;
		const auto begun = static_cast<TimestampTz>(pg_atomic_read_u64(&slot->transaction));
		Datum values[] = {Int32GetDatum(slot->local_pid),
		                  ObjectIdGetDatum(slot->user),
		                  Int16GetDatum(slot->region),
		                  Int32GetDatum(slot->remote_pid),
		                  CStringGetTextDatum(StateName(pg_atomic_read_u32(&slot->state))),
		                  TimestampTzGetDatum(begun),
		                  TimestampTzGetDatum(slot->connected)};
		bool nulls[] = {false, false, false, slot->remote_pid == 0, false, begun == 0, false};
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}

}  // extern "C"

}  // namespace homing::pg
