#include "rehome/declarer.hpp"

#include "rehome/own_transaction.hpp"
#include "rehome/peer.hpp"
#include "rehome/process.hpp"
#include "rehome/worker_state.hpp"

#include <algorithm>
#include <chrono>
#include <string>

#include "pg/boundary.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "access/xact.h"
#include "commands/extension.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kSlice{500};     // between two looks whether somebody wants the database
constexpr milliseconds kRefresh{5000};  // between two looks at the sessions
constexpr int kStartAgain = 10000;      // ms; there may be no room for it
constexpr int kTakenWithin = 100;       // ms; it may be connecting to a region that is gone
constexpr Size kQueueSize = 16384;

// --- the desk of a database -----------------------------------------------------------------------------------------

struct Desk {
	Oid database;
	int pid;  // of the declarer; 0: nobody is there
	Latch *latch;
	dsm_handle request;  // DSM_HANDLE_INVALID: none
	bool taken;          // the request is being worked on
};

struct Desks {
	LWLock *lock;
	int size;
	Desk desks[FLEXIBLE_ARRAY_MEMBER];
};

Desks *desks = nullptr;

Size DesksSize()
{
	return add_size(offsetof(Desks, desks), mul_size(max_worker_processes, sizeof(Desk)));
}

void Attach(void *memory, LWLock *lock, bool fresh)
{
	desks = static_cast<Desks *>(memory);
	if (!fresh)
		return;
	desks->lock = lock;
	desks->size = max_worker_processes;
}

// Requires: the lock. Of this database; nullptr: nobody is there.
Desk *FindDesk()
{
	for (int i = 0; i < desks->size; ++i) {
		if (desks->desks[i].pid != 0 && desks->desks[i].database == MyDatabaseId)
			return &desks->desks[i];
	}
	return nullptr;
}

bool DeskIsTaken()
{
	LWLockAcquire(desks->lock, LW_SHARED);
	const bool taken = FindDesk() != nullptr;
	LWLockRelease(desks->lock);
	return taken;
}

// --- who asks: plain server code ------------------------------------------------------------------------------------

// What the segment begins with; the queue is behind it.
struct Request {
	Size queue;  // where it is
	char text[FLEXIBLE_ARRAY_MEMBER];
};

shm_mq *QueueOf(dsm_segment *segment)
{
	auto *request = static_cast<Request *>(dsm_segment_address(segment));
	return reinterpret_cast<shm_mq *>(reinterpret_cast<char *>(request) + request->queue);
}

// False: nobody is there, or somebody else is served.
bool PutOnDesk(dsm_handle request)
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	const bool put = desk != nullptr && desk->request == DSM_HANDLE_INVALID;
	if (put) {
		desk->request = request;
		desk->taken = false;
		SetLatch(desk->latch);
	}
	LWLockRelease(desks->lock);
	return put;
}

// True: it was not taken yet, or is not worked on any more.
bool TakeBack(dsm_handle request)
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	const bool ours = desk != nullptr && desk->request == request;
	const bool taken = ours && desk->taken;
	if (ours && !taken)
		desk->request = DSM_HANDLE_INVALID;
	LWLockRelease(desks->lock);
	return !taken;
}

void CancelAtDesk(dsm_handle request)
{
	if (TakeBack(request))
		return;
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	if (desk != nullptr && desk->request == request)
		(void) kill(desk->pid, SIGINT);
	LWLockRelease(desks->lock);
}

// Notices and errors are raised here. The result, if it was that.
text *PassOn(const char *message, Size size)
{
	if (message[0] == 'D')
		return cstring_to_text_with_len(message + 1, static_cast<int>(size - 1));
	if (message[0] != 'E' && message[0] != 'N')
		return nullptr;
	StringInfoData body;
	initStringInfo(&body);
	appendBinaryStringInfo(&body, message + 1, static_cast<int>(size - 1));
	ErrorData error;
	pq_parse_errornotice(&body, &error);
	if (error.elevel <= ERROR)  // else it is the end of the declarer, not ours
		ThrowErrorData(&error);
	return nullptr;
}

// nullptr: it has ended without an answer, or has not begun.
text *AwaitAnswer(shm_mq_handle *queue, dsm_handle request)
{
	text *result = nullptr;
	const TimestampTz taken_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kTakenWithin);
	for (;;) {
		Size size;
		void *message;
		const shm_mq_result received = shm_mq_receive(queue, &size, &message, true);
		if (received == SHM_MQ_DETACHED)
			return result;
		if (received == SHM_MQ_SUCCESS) {
			text *answer = PassOn(static_cast<const char *>(message), size);
			result = answer != nullptr ? answer : result;
			continue;
		}
		if (GetCurrentTimestamp() >= taken_until && TakeBack(request) &&
		    shm_mq_get_sender(shm_mq_get_queue(queue)) == nullptr)
			return nullptr;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kTakenWithin,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

text *AskDeclarer(const char *request)
{
	if (desks == nullptr || !DeskIsTaken())
		return nullptr;
	const Size length = strlen(request) + 1;
	const Size queue_at = MAXALIGN(offsetof(Request, text) + length);
	dsm_segment *segment = dsm_create(queue_at + kQueueSize, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (segment == nullptr)
		return nullptr;
	auto *head = static_cast<Request *>(dsm_segment_address(segment));
	head->queue = queue_at;
	memcpy(head->text, request, length);
	shm_mq *queue = shm_mq_create(reinterpret_cast<char *>(head) + queue_at, kQueueSize);
	shm_mq_set_receiver(queue, MyProc);
	shm_mq_handle *handle = shm_mq_attach(queue, segment, nullptr);
	const dsm_handle number = dsm_segment_handle(segment);
	text *result = nullptr;
	if (PutOnDesk(number)) {
		PG_TRY();
		{
			result = AwaitAnswer(handle, number);
		}
		PG_CATCH();
		{
			CancelAtDesk(number);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	dsm_detach(segment);
	return result;
}

// --- the declarer: plain server code --------------------------------------------------------------------------------

void LeaveDesk(int, Datum)
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	if (desk != nullptr && desk->pid == MyProcPid)
		desk->pid = 0;
	LWLockRelease(desks->lock);
}

// False: somebody is there already, or there is none left.
bool SitDown()
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = nullptr;
	for (int i = 0; i < desks->size && FindDesk() == nullptr && desk == nullptr; ++i) {
		if (desks->desks[i].pid == 0)
			desk = &desks->desks[i];
	}
	if (desk != nullptr)
		*desk = {MyDatabaseId, MyProcPid, MyLatch, DSM_HANDLE_INVALID, false};
	LWLockRelease(desks->lock);
	if (desk != nullptr)
		before_shmem_exit(LeaveDesk, 0);
	return desk != nullptr;
}

dsm_handle TakeRequest()
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	const dsm_handle request = desk->request;
	desk->taken = request != DSM_HANDLE_INVALID;
	LWLockRelease(desks->lock);
	return request;
}

void FinishRequest()
{
	LWLockAcquire(desks->lock, LW_EXCLUSIVE);
	Desk *desk = FindDesk();
	desk->request = DSM_HANDLE_INVALID;
	desk->taken = false;
	LWLockRelease(desks->lock);
}

void Answer(dsm_handle handle)
{
	MemoryContext context = CurrentMemoryContext;
	dsm_segment *segment = dsm_attach(handle);
	if (segment == nullptr) {
		FinishRequest();  // who has asked is gone
		return;
	}
	shm_mq *queue = QueueOf(segment);
	shm_mq_set_sender(queue, MyProc);
	pq_redirect_to_shm_mq(segment, shm_mq_attach(queue, segment, nullptr));
	PG_TRY();
	{
		StartTransactionCommand();
		const char *result =
			Call("SELECT homing._declare_for($1::pg_catalog.jsonb)",
		         {static_cast<Request *>(dsm_segment_address(segment))->text}, context);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		StringInfoData message;
		pq_beginmessage(&message, 'D');
		pq_sendbytes(&message, result, static_cast<int>(strlen(result)));
		pq_endmessage(&message);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		// A session that was kept may have been dead: it is for who has asked to try with new ones.
		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_CONNECTION_EXCEPTION) {
			ErrorData *error = CopyErrorData();
			FlushErrorState();
			ereport(LOG, (errmsg("a session that was kept for the loss of a region failed"),
			              errdetail_internal("%s", error->message)));
		} else {
			EmitErrorReport();
			FlushErrorState();
		}
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	dsm_detach(segment);
	FinishRequest();
}

}  // namespace

// --- its life -------------------------------------------------------------------------------------------------------

namespace {

// False: this database is no region, or votes only.
bool RefreshSessions(MemoryContext context)
{
	const char *region = nullptr;
	InTransaction([&] {
		region = pg::PgCall([&]() -> const char * {
			if (!OidIsValid(get_extension_oid("pg_homing", true)))
				return nullptr;
			return Call("SELECT homing._keep_step_sessions()", {}, context);
		});
	});
	return region != nullptr && region[0] == 't';
}

void Serve()
{
	MemoryContext round = pg::PgCall([] {
		return AllocSetContextCreate(TopMemoryContext, "homing declarer", ALLOCSET_DEFAULT_SIZES);
	});
	MemoryContextSwitchTo(round);
	KeepPeerSessions();
	std::string trouble;
	auto due = Clock::now();
	for (;;) {
		pg::PgCall([&] { MemoryContextReset(round); });
		QueryCancelPending = false;  // it was for what is over
		const dsm_handle request = pg::PgCall([] { return TakeRequest(); });
		if (request != DSM_HANDLE_INVALID) {
			pg::PgCall([&] { Answer(request); });
			due = Clock::now();
			continue;
		}
		if (pg::PgCall([] { return DatabaseIsWanted(); }))
			return;
		if (due <= Clock::now()) {
			std::string failed;
			try {
				if (!RefreshSessions(round))
					return;
			} catch (const Failure &failure) {
				failed = failure.what();
			}
			if (failed != trouble && !failed.empty())
				pg::PgCall([&] {
					ereport(LOG, (errmsg("could not keep sessions with the other regions"),
					              errdetail_internal("%s", failed.c_str())));
				});
			trouble = failed;
			due = Clock::now() + kRefresh;
		}
		const auto left = std::chrono::ceil<milliseconds>(due - Clock::now());
		const long timeout = static_cast<long>(std::clamp(left, milliseconds(1), kSlice).count());
		pg::PgCall([&] { Nap(timeout); });
	}
}

}  // namespace

void RegisterDeclarer()
{
	pg::AddSharedPiece({"pg_homing declarers", DesksSize, Attach});
}

void StartDeclarer()
{
	static TimestampTz tried = 0;
	const TimestampTz now = GetCurrentTimestamp();
	if (DeskIsTaken() || !TimestampDifferenceExceeds(tried, now, kStartAgain))
		return;
	tried = now;
	BackgroundWorker declarer = ProcessIn(MyDatabaseId, "declarer", "homing_declarer_main");
	if (!RegisterDynamicBackgroundWorker(&declarer, nullptr))
		ereport(LOG, (errmsg("out of background worker slots"),
		              errdetail("Without its declarer, a region takes longer to declare a loss."),
		              errhint("You might need to increase max_worker_processes.")));
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_ask_declarer);

PGDLLEXPORT Datum homing_ask_declarer(PG_FUNCTION_ARGS)
{
	text *result = AskDeclarer(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (result == nullptr)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

PGDLLEXPORT void homing_declarer_main(Datum database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	SettleIn();
	if (SitDown())
		pg::PgEntry([] { Serve(); });
}

}  // extern "C"

}  // namespace homing::rehome
