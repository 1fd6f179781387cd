#include "write/transaction.hpp"

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "pg/boundary.hpp"
#include "pg/catalog.hpp"
#include "pg/compat.hpp"
#include "pg/settings.hpp"
#include "pg/home_lock.hpp"
#include "pg/lease.hpp"
#include "pg/transaction_end.hpp"
#include "pg/waiter.hpp"
#include "write/atomic_commit.hpp"
#include "write/idle_sessions.hpp"
#include "write/outcome.hpp"
#include "write/read_consistency.hpp"
#include "write/sync_mode.hpp"
#include "write/warm_session.hpp"

extern "C" {
#include "access/xact.h"
#include "foreign/foreign.h"
#include "storage/predicate.h"
#include "utils/inval.h"
#include "utils/syscache.h"
}

namespace homing::write {

namespace {

// Server and user: who connects where.
using SessionKey = std::pair<core::RegionId, Oid>;
using Sessions = std::map<SessionKey, std::unique_ptr<RegionSession>>;

Sessions *sessions = nullptr;

// A writer has locked its table here while it waits for another region.
class WriterLatch : public pg::LatchWaiter {
protected:
	void OnLongWait() override
	{
		pg::PgCall([] { pg::CheckHoldsUpNoChange(); });
	}
};
WriterLatch *waiter = nullptr;
WarmSession *warm = nullptr;      // one at a time
std::int64_t warmed_already = 0;  // see Warm
bool credentials_changed = false;

// The last transaction that has served a write of a homed table. A ROLLBACK TO leaves it.
LocalTransactionId served_in = InvalidLocalTransactionId;
bool waits_for_regions = false;  // with its commit

void OnTransactionEnd(XactEvent event);
pg::EndListener end_listener{OnTransactionEnd};

// A region has committed what this transaction did; a cancel must not make it look undone any more.
bool cancel_held = false;

void HoldCancel()
{
	if (!std::exchange(cancel_held, true))
		HOLD_CANCEL_INTERRUPTS();
}

// A cancel that arrived meanwhile was meant for the transaction that is over now.
void ReleaseCancel()
{
	if (!std::exchange(cancel_held, false))
		return;
	// An error has already reset it.
	if (QueryCancelHoldoffCount > 0)
		RESUME_CANCEL_INTERRUPTS();
	QueryCancelPending = false;
}

// Servers or user mappings changed: connections made with the old ones end with their transactions.
void OnCredentialsChanged(Datum, int, uint32)
{
	credentials_changed = true;
}

void DropIdleSessions()
{
	for (auto it = sessions->begin(); it != sessions->end();) {
		if (!it->second->InTransaction())
			it = sessions->erase(it);
		else
			++it;
	}
	credentials_changed = false;
}

remote::ConnectionLost LostInTransaction(const RegionSession &session)
{
	return remote::ConnectionLost("the connection to region \"" + session.name() +
	                              "\" was lost in this transaction");
}

void DropWarm() noexcept
{
	delete std::exchange(warm, nullptr);
}

bool IsAt(const Place &place, const Place &other)
{
	return place.region == other.region && place.user == other.user && place.epoch == other.epoch &&
	       place.server == other.server;
}

std::unique_ptr<RegionSession> Connect(Place place)
{
	if (warm != nullptr && IsAt(warm->place(), place)) {
		const std::unique_ptr<WarmSession> begun(std::exchange(warm, nullptr));
		return begun->Finish(*waiter);
	}
	pg::SessionSlot slot(place.region, place.name);
	pg::RegionConnection connection = pg::ConnectTo(place.server, place.user, *waiter);
	return std::make_unique<RegionSession>(std::move(place), std::move(slot), std::move(connection),
	                                       *waiter);
}

std::unique_ptr<RegionSession> OpenSession(const Place &place)
{
	const auto begin = std::chrono::steady_clock::now();
	pg::ForwardCounters *counters = pg::CountersOf(place.region);
	try {
		std::unique_ptr<RegionSession> session = Connect(place);
		pg::Count(counters, pg::Forwarded::kConnections);
		pg::CountSince(counters, pg::Forwarded::kConnectTime, begin);
		return session;
	} catch (const remote::Error &error) {
		pg::CountError(counters, error.sqlstate);
		throw;
	}
}

void MakeReady()
{
	if (sessions == nullptr) {
		sessions = new Sessions;
		waiter = new WriterLatch;
	}
	pg::ListenToEnd(&end_listener);
	if (credentials_changed) {
		DropIdleSessions();
		DropWarm();
	}
}

RegionSession &SessionAt(core::RegionId region)
{
	MakeReady();
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const Oid user = GetUserId();
	const core::Epoch epoch = catalog->map.epoch();
	auto known = sessions->find({region, user});
	if (known != sessions->end()) {
		RegionSession &session = *known->second;
		if (session.Lost())
			throw LostInTransaction(session);
		if (!session.InTransaction() && (!session.Usable() || session.place().epoch != epoch)) {
			sessions->erase(known);
			known = sessions->end();
		}
	}
	if (known == sessions->end()) {
		// Entered only when it is there: connecting may fail, and the callbacks visit every entry.
		const std::string name = catalog->RegionName(region);
		const Oid server = pg::PgCall([&] { return pg::RegionServer(name.c_str()); });
		std::unique_ptr<RegionSession> session =
			OpenSession(Place{region, name, epoch, server, user});
		known = sessions->emplace(SessionKey(region, user), std::move(session)).first;
	}
	return *known->second;
}

// Nothing: it cannot be reached from here by the current user.
std::optional<Place> PlaceToWarm(core::RegionId region)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	Place place{region, catalog->RegionName(region), catalog->map.epoch(), InvalidOid, GetUserId()};
	place.server = pg::PgCall([&] { return get_foreign_server_oid(place.name.c_str(), true); });
	if (!OidIsValid(place.server) || !pg::CanConnectTo(place.server, place.user))
		return std::nullopt;
	return place;
}

// True when there is nothing more to do about it.
bool AdvanceWarming(core::RegionId region)
{
	if (warm != nullptr && (warm->place().region != region || warm->place().user != GetUserId()))
		DropWarm();
	if (warm == nullptr) {
		const std::optional<Place> place = PlaceToWarm(region);
		if (!place)
			return true;
		std::optional<pg::SessionSlot> slot = pg::SessionSlot::IfFree(region);
		if (!slot)
			return true;
		warm = new WarmSession(*place, std::move(*slot));
	}
	if (!warm->Advance(*waiter))
		return false;
	const Place place = warm->place();
	sessions->emplace(SessionKey(region, place.user), OpenSession(place));
	return true;
}

std::vector<RegionSession *> Writers()
{
	std::vector<RegionSession *> writers;
	if (sessions != nullptr) {
		for (auto &[key, session] : *sessions) {
			if (session->Wrote())
				writers.push_back(session.get());
		}
	}
	return writers;
}

bool WroteHere()
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny());
}

bool ServedHere()
{
	return served_in != InvalidLocalTransactionId && served_in == pg::LocalTransactionOf(MyProc);
}

// A region that would have to prepare its part but cannot is found out with the second writer.
void CheckWriters()
{
	const std::vector<RegionSession *> writers = Writers();
	if (writers.size() > 1 || (writers.size() == 1 && WroteHere())) {
		for (const RegionSession *session : writers)
			CheckCanPrepare(*session);
	}
}

// With one writer its COMMIT decides. Ours follows, and must not fail any more.
void CommitAt(RegionSession &session)
{
	if (IsolationIsSerializable())
		pg::PgCall([] { PreCommit_CheckForSerializationFailure(); });
	CommitPoint commit;
	commit.token = NewToken(session.place().region, session.User());
	session.Commit(&commit);
	HoldCancel();
	NeedCommit(session.place().region, commit.position);
}

void OnPreCommit()
{
	for (auto &[key, session] : *sessions) {
		if (session->Lost())
			throw LostInTransaction(*session);
	}
	const std::vector<RegionSession *> writers = Writers();
	if (writers.size() == 1 && !WroteHere())
		CommitAt(*writers.front());
	else if (!writers.empty()) {
		// The decision is ours.
		pg::PgCall([] { CheckWaitsForRegions(); });
		// Our decision must not be beyond what survives of us.
		pg::PgCall([] { pg::CheckLease(); });
		PrepareEverywhere(writers);
	}
}

bool AnyWriter()
{
	for (const auto &[key, session] : *sessions) {
		if (session->Wrote())
			return true;
	}
	return false;
}

// Between two transactions.
bool IsToClose(const RegionSession &session)
{
	return session.Dead() || session.Wanted() || HasIdled(session.LastUse());
}

// Apart, so that who has none runs past little code.
[[gnu::noinline]] void EndSessions(XactEvent event)
{
	pg::ListenToEnd(&end_listener);
	switch (event) {
	case XACT_EVENT_PRE_COMMIT:
		pg::PgEntry([] { OnPreCommit(); });
		break;
	case XACT_EVENT_PRE_PREPARE:
		if (AnyWriter())
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot PREPARE a transaction that has written at another region")));
		break;
	case XACT_EVENT_COMMIT:
		FinishEverywhere();
		[[fallthrough]];
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
		ForgetPrepared();
		ReleaseCancel();
		// Those that only read end here too, without a round trip.
		for (auto it = sessions->begin(); it != sessions->end();) {
			it->second->Rollback();
			it = IsToClose(*it->second) ? sessions->erase(it) : std::next(it);
		}
		WatchIdle(!sessions->empty());
		break;
	default:
		break;
	}
}

void OnTransactionEnd(XactEvent event)
{
	if ((event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE) && ServedHere() &&
	    WroteHere()) {
		CheckWaitsForRegions();
		waits_for_regions = event == XACT_EVENT_PRE_COMMIT;
	}
	if (waits_for_regions && event != XACT_EVENT_PRE_COMMIT) {
		waits_for_regions = false;
		if (event == XACT_EVENT_COMMIT)
			WithholdUnconfirmed();
	}
	if (sessions != nullptr)
		EndSessions(event);
}

void OnSubTransactionEnd(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	if (sessions == nullptr ||
	    (event != SUBXACT_EVENT_PRE_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	const bool commit = event == SUBXACT_EVENT_PRE_COMMIT_SUB;
	const int level = GetCurrentTransactionNestLevel();
	pg::PgEntry([&] {
		for (auto &[key, session] : *sessions)
			session->EndSubtransaction(commit, level);
	});
}

}  // namespace

void RegisterTransaction()
{
	pg::AddEndListener(&end_listener);
	RegisterSubXactCallback(OnSubTransactionEnd, nullptr);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, OnCredentialsChanged, 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, OnCredentialsChanged, 0);
}

remote::Result ForwardAlone(core::RegionId region, const RemoteStatement &statement,
                            std::uint64_t *rows)
{
	RegionSession &session = SessionAt(region);
	CommitPoint commit;
	commit.token = NewToken(region, session.User());
	remote::Result result = session.RunAlone(statement, &commit);
	HoldCancel();
	NeedCommit(region, commit.position);
	if (!result)
		*rows = commit.rows;
	return result;
}

namespace {

// Counts a write at the region before it is sent: whatever it does may have to be committed or undone.
int BecomeWriter(RegionSession &session, bool aside = false)
{
	const int level = pg::PgCall([] { return GetCurrentTransactionNestLevel(); }) + (aside ? 1 : 0);
	session.MarkWritten(level);
	CheckWriters();
	return level;
}

}  // namespace

void Post(core::RegionId region, const RemoteStatement &statement)
{
	RegionSession &session = SessionAt(region);
	session.Post(statement, BecomeWriter(session));
}

void PostAside(core::RegionId region, const RemoteStatement &statement)
{
	RegionSession &session = SessionAt(region);
	session.Post(statement, BecomeWriter(session, true));
}

void EndAside(core::RegionId region, bool keep)
{
	const int level = pg::PgCall([] { return GetCurrentTransactionNestLevel(); }) + 1;
	sessions->at({region, GetUserId()})->EndSubtransaction(keep, level);
}

void PostRead(core::RegionId region, const RemoteStatement &statement)
{
	const int level = pg::PgCall([] { return GetCurrentTransactionNestLevel(); });
	SessionAt(region).Post(statement, level);
}

RegionSession &BeginCopy(core::RegionId region, const std::string &sql)
{
	RegionSession &session = SessionAt(region);
	session.BeginCopy(sql, BecomeWriter(session));
	return session;
}

remote::Result Await(core::RegionId region)
{
	remote::Result result = sessions->at({region, GetUserId()})->Receive();
	CheckWriters();
	return result;
}

[[gnu::hot]] void CheckMayWriteHere()
{
	served_in = pg::LocalTransactionOf(MyProc);
	// Most sessions have no more to do at the end than without us.
	if (SomebodyIsWaitedFor() || sessions != nullptr)
		pg::ListenToEnd(&end_listener);
	if (sessions != nullptr)
		pg::PgEntry([] {
			for (const RegionSession *session : Writers())
				CheckCanPrepare(*session);
		});
}

WritePlaces WhereWritten()
{
	WritePlaces places{0, {}, ServedHere()};
	if (sessions != nullptr) {
		for (const auto &[key, session] : *sessions) {
			if (!session->Wrote())
				continue;
			++places.elsewhere;
			places.region = key.first;
		}
	}
	return places;
}

void Warm(core::RegionId region, std::int64_t announced)
{
	if (announced == warmed_already)
		return;
	MakeReady();
	if (sessions->count({region, GetUserId()}) > 0)
		return;
	try {
		if (AdvanceWarming(region))
			warmed_already = announced;
	} catch (const remote::Error &) {
		// Whoever needs the session connects anew, and is told why it cannot.
		DropWarm();
		warmed_already = announced;
	}
}

bool TransactionIsUntouched()
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	if (sessions != nullptr) {
		for (const auto &[key, session] : *sessions) {
			if (session->InTransaction())
				return false;
		}
	}
	return true;
}

[[gnu::hot]] bool WroteElsewhere()
{
	return sessions != nullptr && AnyWriter();
}

std::vector<core::RegionId> RegionsInTransaction()
{
	std::vector<core::RegionId> regions;
	if (sessions != nullptr) {
		for (const auto &[key, session] : *sessions) {
			if (session->InTransaction() && key.second == GetUserId())
				regions.push_back(key.first);
		}
	}
	return regions;
}

}  // namespace homing::write
