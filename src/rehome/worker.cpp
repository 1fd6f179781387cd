// The worker of a region.
//
// Every homing.probe_interval it asks each peer, in one query, for the epoch and digest of its map (and
// the map, if newer), and does what core::OnPeerMap says: adopt, fence, or nothing. Regions that our map
// calls lost are asked as well, less often, and told our map when theirs is older: a lost region that
// still runs then fences itself, whichever side can reach the other.
//
// It accepts the homes that are handed over to this region, at once: also while it waits for a peer. All else
// that it writes is local and adds nothing to the region's stream. It holds neither a lock nor a snapshot
// while it waits for the network, and it leaves when somebody locks its database.
#include "rehome/worker.hpp"

#include "core/deadlock.hpp"
#include "core/lease.hpp"
#include "core/map_exchange.hpp"
#include "rehome/declarer.hpp"
#include "rehome/lease_keeper.hpp"
#include "rehome/loss_duty.hpp"
#include "rehome/own_transaction.hpp"
#include "rehome/second_phase.hpp"
#include "rehome/worker_state.hpp"
#include "rehome/worker_table.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pg/catalog.hpp"
#include "pg/credentials.hpp"
#include "pg/deadlock_victim.hpp"
#include "pg/lease.hpp"
#include "pg/settings.hpp"
#include "pg/waiter.hpp"

extern "C" {
#include "access/xact.h"
#include "foreign/foreign.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/origin.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Thrown to leave the database: it is wanted by somebody who needs it empty.
struct Leave {};

// How often to look whether somebody wants the database: they wait 5 s for it to become empty.
constexpr milliseconds kSlice{500};
// A region that is lost may stay away for ever, and every try to reach it can take homing.connect_timeout.
constexpr int kLostPause = 15;  // intervals
constexpr milliseconds kCleanUpPause{5000};
constexpr milliseconds kForgetPause{60000};
constexpr milliseconds kDeadlockPause{5000};
constexpr milliseconds kPrunePause{60000};
constexpr milliseconds kReadAgain{10000};
constexpr milliseconds kTailsPause{1000};
constexpr milliseconds kDeclareTimeout{90000};

// --- the worker -------------------------------------------------------------------------------------

class Worker;

// On its latch, on which others wake us for urgent duties.
class WorkerLatch : public pg::LatchWaiter {
public:
	explicit WorkerLatch(Worker &worker) : worker_(worker) {}

protected:
	void OnLatch() override;

private:
	Worker &worker_;
};

// Waits no longer than the deadline in all, whatever it is asked for, and looks about for a
// DROP DATABASE meanwhile.
class BoundedWaiter : public remote::Waiter {
public:
	explicit BoundedWaiter(Worker &worker) : latch_(worker) {}
	void AllowUntil(Clock::time_point deadline) { deadline_ = deadline; }

	bool Wait(int socket, bool for_read, bool for_write, milliseconds timeout) override
	{
		const auto asked = timeout.count() < 0 ? Clock::time_point::max() : Clock::now() + timeout;
		for (;;) {
			const auto now = Clock::now();
			if (now >= asked)
				return false;
			if (now >= deadline_)
				throw remote::ConnectionLost("no answer in time");
			const auto left =
				std::chrono::duration_cast<milliseconds>(std::min(asked, deadline_) - now);
			if (latch_.Wait(socket, for_read, for_write, std::min(left + milliseconds(1), kSlice)))
				return true;
			if (pg::PgCall([] { return DatabaseIsWanted(); }))
				throw Leave();
		}
	}

private:
	WorkerLatch latch_;
	Clock::time_point deadline_ = Clock::time_point::max();
};

struct Peer {
	std::string name;
	bool lost = false;
	bool witness = false;
	remote::ConnectionOptions options;  // those of `connection`
	pg::RegionConnection connection;
	Clock::time_point due;  // from the start; not min(), from which nothing can be subtracted
	std::string trouble;    // last failure logged; empty: it answers
	std::string applied;    // how far it has applied each region, as jsonb; empty: not heard yet
	std::string other_fencing;  // its setting, where it is not ours; empty: it is
};

struct Answer {
	core::RegionId region;
	core::MapSummary summary;
	bool fenced = false;
	std::string fencing;  // its setting
	std::string applied;
	std::string map;  // empty: not newer than ours
};

class Worker {
public:
	// Returns when the database is no region any more.
	void Run();
	// What cannot wait for the next round. Called while no transaction is open.
	void DoUrgentDuties();

private:
	void FollowOwnState();
	bool NothingHasChanged() const;
	void ReadOwnState();
	void Meet(const RawState &state);
	// Runs one duty; a failure is logged when it is news.
	void Do(const char *duty, void (Worker::*body)());
	void Sleep();

	// --- duties
	void AcceptHomes();
	void PruneLog();
	void ExchangeMaps();
	void EndPrepared();
	void FindDeadlocks();
	void ForgetOutcomes();
	void KeepTails();
	void RemoveLostStreams();
	void SeeToLosses();

	core::WaitGraph LookAtWaits();
	void CancelDeadlocked(const core::Victim &victim);

	void Ask(core::RegionId id, Peer &peer);
	void Connect(Peer &peer);
	std::optional<Answer> Exchange(Peer &peer);
	void Decide(Peer &peer, const Answer &answer);
	void TellLost(core::RegionId id, Peer &peer, const Answer &answer);
	void CompareFencing(Peer &peer, const Answer &answer);

	std::map<core::RegionId, Peer> peers_;
	BoundedWaiter waiter_{*this};
	bool region_ = true;  // until we know better
	std::string cluster_;
	core::RegionId here_;
	core::MapSummary mine_;
	bool fenced_ = false;
	bool missing_ = false;  // we lack the end of a lost region's stream
	bool copying_ = false;  // what is being done about losses is to copy, since
	core::Epoch copying_since_;
	core::Electorate electorate_;
	bool witness_ = false;  // this is no region, and votes only
	bool losses_ = false;
	bool map_changed_ = false;  // ours was written since it was read
	bool settled_ = false;      // read, and homes accepted, when the tables were at
	pg::CatalogVersion seen_{};
	Clock::time_point read_again_due_ = Clock::time_point::min();
	Oid administrator_ = InvalidOid;
	bool lost_streams_ = false;
	Clock::time_point clean_up_due_ = Clock::time_point::min();
	Clock::time_point forget_due_ = Clock::time_point::min();
	SecondPhase second_phase_;
	LossDuty loss_duty_;
	TimestampTz latest_wait_ = 0;  // that was looked at
	Clock::time_point look_again_due_ = Clock::time_point::min();
	Clock::time_point tails_due_ = Clock::time_point::min();
	Clock::time_point prune_due_ = Clock::time_point::min();
	std::map<std::string, std::string> troubles_;  // by duty: the failure logged last
};

void WorkerLatch::OnLatch()
{
	worker_.DoUrgentDuties();
}

milliseconds Interval()
{
	return milliseconds(pg::settings.probe_interval_ms);
}

// What a round reads of this region follows from the tables that announce their changes, except for what a lost
// region has left, and for time.
bool Worker::NothingHasChanged() const
{
	return settled_ && pg::CatalogIsCurrent() && pg::CurrentVersion() == seen_ && !map_changed_ &&
	       !losses_ && !missing_ && !lost_streams_ && pg::settings.auto_declare_lost_s == 0 &&
	       Clock::now() < read_again_due_;
}

void Worker::FollowOwnState()
{
	if (NothingHasChanged())
		return;
	seen_ = pg::CurrentVersion();
	read_again_due_ = Clock::now() + kReadAgain;
	settled_ = false;
	Do("read the cluster map", &Worker::ReadOwnState);
	if (region_)
		Do("accept homes that were handed over", &Worker::AcceptHomes);
}

void Worker::ReadOwnState()
{
	RawState state;
	MemoryContext context = CurrentMemoryContext;
	InTransaction([&] { pg::PgCall([&] { ReadState(&state, context); }); });
	region_ = state.region;
	map_changed_ = false;
	if (!region_)
		return;
	ConfirmRegion();
	cluster_ = state.cluster;
	here_ = core::RegionId(state.here);
	mine_.epoch = core::Epoch(state.epoch);
	mine_.digest = state.digest;
	fenced_ = state.fenced;
	missing_ = state.missing;
	losses_ = state.losses && state.votes;
	witness_ = state.witness;
	electorate_ = {};
	for (int i = 0; i < state.peer_count; ++i) {
		electorate_.size += state.peers[i].lost ? 0 : 1;
		if (!state.peers[i].lost && !state.peers[i].witness)
			electorate_.alone = false;
	}
	// It was the whole cluster: nobody can have declared it lost before the first one joins.
	if (electorate_.alone && !fenced_ && !witness_)
		pg::ConfirmServing();
	administrator_ = state.administrator;
	lost_streams_ = state.lost_streams;
	Meet(state);
}

// Takes over the list of peers, keeping the connections.
void Worker::Meet(const RawState &state)
{
	std::map<core::RegionId, Peer> met;
	for (int i = 0; i < state.peer_count; ++i) {
		const RawPeer &raw = state.peers[i];
		const core::RegionId id(raw.id);
		auto known = peers_.find(id);
		Peer &peer = met[id];
		if (known != peers_.end())
			peer = std::move(known->second);
		peer.name = raw.name;
		peer.witness = raw.witness;
		if (raw.lost && !peer.lost)
			peer.due = {};  // tell it at once
		peer.lost = raw.lost;
	}
	peers_ = std::move(met);
}

// Connects unless there is a good connection with the present options.
void Worker::Connect(Peer &peer)
{
	remote::ConnectionOptions options;
	InTransaction([&] {
		const Oid server =
			pg::PgCall([&] { return get_foreign_server_oid(peer.name.c_str(), true); });
		if (!OidIsValid(server))
			throw Failure("server \"" + peer.name + "\" does not exist");
		if (!OidIsValid(administrator_))
			throw Failure("the role that made the cluster does not exist");
		options = pg::OptionsFor(server, administrator_);
	});
	if (peer.connection != nullptr && !peer.connection->Broken() && options == peer.options)
		return;
	peer.connection.reset();
	peer.connection = pg::Connect(options, waiter_);
	peer.connection->Execute(
		"SELECT set_config('search_path', 'pg_catalog, pg_temp', false), set_config('jit', 'off', false)");
	peer.options = std::move(options);
}

std::optional<Answer> Worker::Exchange(Peer &peer)
{
	const remote::Result result = peer.connection->Execute(
		"SELECT region_id, epoch, digest, fenced, lost, applied, map, current_setting('homing.fencing') "
		"FROM homing._exchange($1::uuid, $2::int2, $3::bigint)",
		{{cluster_}, {std::to_string(here_.value)}, {std::to_string(mine_.epoch.value)}});
	peer.connection->TakeNotices();
	if (PQntuples(result.get()) != 1 || PQnfields(result.get()) != 8)
		return std::nullopt;

	const auto text = [&](int column) { return std::string(PQgetvalue(result.get(), 0, column)); };
	Answer answer;
	answer.region = core::RegionId(static_cast<std::int16_t>(std::stoi(text(0))));
	answer.summary.epoch = core::Epoch(std::stoll(text(1)));
	answer.summary.digest = static_cast<std::uint64_t>(std::stoll(text(2)));
	answer.fenced = text(3) == "t";
	answer.summary.receiver_lost = text(4) == "t";
	answer.applied = text(5);
	answer.map = text(6);
	answer.fencing = text(7);
	return answer;
}

// Does what the peer's map asks for.
void Worker::Decide(Peer &peer, const Answer &answer)
{
	if (core::OnPeerMap(mine_, answer.summary) == core::MapAction::kKeep)
		return;
	MemoryContext context = CurrentMemoryContext;
	if (mine_.epoch < answer.summary.epoch) {
		// Such a map comes along, and brings the fence when it says that we are lost.
		InTransaction([&] {
			pg::PgCall([&] {
				Call("SELECT homing._adopt_map($1::pg_catalog.jsonb)", {answer.map.c_str()},
				     context);
			});
		});
		pg::PgCall([&] {
			ereport(LOG,
			        (errmsg("took the cluster map of epoch %lld from region \"%s\"",
			                static_cast<long long>(answer.summary.epoch.value), peer.name.c_str())));
		});
	} else if (!fenced_) {
		const std::string reason = "region \"" + peer.name + "\" has another cluster map of epoch " +
		                           std::to_string(answer.summary.epoch.value);
		InTransaction([&] {
			pg::PgCall([&] { Call("SELECT homing._fence($1)", {reason.c_str()}, context); });
		});
		pg::PgCall([&] {
			ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED),
			                  errmsg("this region refuses writes: %s", reason.c_str())));
		});
	}
	map_changed_ = true;
}

// Tells a lost region that still runs our map, with which it fences itself.
void Worker::TellLost(core::RegionId id, Peer &peer, const Answer &answer)
{
	if (!(answer.summary.epoch < mine_.epoch))
		return;
	MemoryContext context = CurrentMemoryContext;
	const char *map = nullptr;
	InTransaction([&] {
		const std::string to = std::to_string(id.value),
						  since = std::to_string(answer.summary.epoch.value);
		map = pg::PgCall([&] {
			return Call(
				"SELECT map FROM homing._exchange($1::pg_catalog.uuid, $2::pg_catalog.int2, $3::pg_catalog.int8)",
				{cluster_.c_str(), to.c_str(), since.c_str()}, context);
		});
	});
	if (map == nullptr)
		return;
	peer.connection->Execute("SELECT homing._adopt_map($1::jsonb)", {{map}});
	pg::PgCall(
		[&] { ereport(LOG, (errmsg("told region \"%s\" that it is lost", peer.name.c_str()))); });
}

// One that serves by the operator's word can be outvoted by others that go by leases, and go on serving.
void Worker::CompareFencing(Peer &peer, const Answer &answer)
{
	const std::string ours =
		pg::PgCall([] { return GetConfigOption("homing.fencing", false, false); });
	const std::string other = answer.fencing == ours ? "" : answer.fencing;
	if (other == peer.other_fencing)
		return;
	peer.other_fencing = other;
	if (other.empty())
		return;
	const std::string reason = "it has homing.fencing = " + other + ", this region " + ours +
	                           ": both could serve the same homes after a loss";
	MemoryContext context = CurrentMemoryContext;
	InTransaction([&] {
		pg::PgCall([&] {
			Call("SELECT homing._record_event('fencing_differs', $1, session_user::pg_catalog.text, $2)",
			     {peer.name.c_str(), reason.c_str()}, context);
		});
	});
	pg::PgCall([&] {
		ereport(WARNING, (errcode(ERRCODE_CONFIG_FILE_ERROR),
		                  errmsg("region \"%s\" has another homing.fencing", peer.name.c_str()),
		                  errdetail_internal("%s", reason.c_str()),
		                  errhint("Set it to the same in all regions.")));
	});
}

// One exchange with one peer. Takes no longer than homing.connect_timeout to connect, and as long again to
// get the answer.
void Worker::Ask(core::RegionId id, Peer &peer)
{
	std::string trouble;
	try {
		waiter_.AllowUntil(Clock::time_point::max());
		Connect(peer);
		waiter_.AllowUntil(Clock::now() + milliseconds(pg::settings.connect_timeout_ms));
		const std::optional<Answer> answer = Exchange(peer);
		if (!answer)
			throw Failure("server \"" + peer.name +
			              "\" leads to a database that is no region of this cluster");
		if (answer->region != id)
			throw Failure("server \"" + peer.name + "\" leads to another region of this cluster");
		RecordPeer({id.value, answer->fenced, GetCurrentTimestamp(), answer->summary.epoch.value});
		peer.applied = answer->applied;
		if (!peer.lost)
			CompareFencing(peer, *answer);
		Decide(peer, *answer);
		if (peer.lost)
			TellLost(id, peer, *answer);
	} catch (const pg::ServerError &) {
		throw;  // outside a transaction of ours: this process is not to go on
	} catch (const std::exception &failure) {
		trouble = failure.what();
	}
	// From the end, so that a peer that takes long does not take the time of the others.
	peer.due = Clock::now() + Interval() * (peer.lost ? kLostPause : 1);
	if (!trouble.empty())
		peer.connection.reset();
	if (trouble == peer.trouble)
		return;
	peer.trouble = trouble;
	pg::PgCall([&] {
		if (trouble.empty())
			ereport(LOG, (errmsg("region \"%s\" answers again", peer.name.c_str())));
		else
			ereport(LOG, (errmsg("could not exchange the cluster map with region \"%s\"",
			                     peer.name.c_str()),
			              errdetail_internal("%s", trouble.c_str())));
	});
}

// The living first: of the lost, many may be unreachable.
void Worker::ExchangeMaps()
{
	for (const bool lost : {false, true}) {
		// By id: an adopted map changes the list of peers.
		std::vector<core::RegionId> due;
		for (const auto &[id, peer] : peers_) {
			if (peer.lost == lost && peer.due <= Clock::now())
				due.push_back(id);
		}
		for (const core::RegionId id : due) {
			auto peer = peers_.find(id);
			if (peer != peers_.end())
				Ask(id, peer->second);
			if (map_changed_)
				ReadOwnState();
		}
	}
}

void Worker::EndPrepared()
{
	// What is copied meanwhile would have to be copied again.
	if (copying_ && loss_duty_.Busy())
		return;
	waiter_.AllowUntil(Clock::time_point::max());
	try {
		second_phase_.Round(waiter_, administrator_);
	} catch (const std::runtime_error &failure) {
		throw Failure(failure.what());
	}
}

// Of all regions that answer: the other ones have nothing to cancel or to wait for just now.
core::WaitGraph Worker::LookAtWaits()
{
	core::WaitGraph graph;
	MemoryContext context = CurrentMemoryContext;
	const char *own = nullptr;
	InTransaction([&] {
		own = pg::PgCall([&] { return Call("SELECT homing._wait_graph()", {}, context); });
	});
	if (own == nullptr || !graph.Add(here_, own))
		throw Failure("could not read the locks that are waited for");
	for (auto &[id, peer] : peers_) {
		if (peer.lost || peer.witness || !peer.trouble.empty())
			continue;
		try {
			waiter_.AllowUntil(Clock::time_point::max());
			Connect(peer);
			waiter_.AllowUntil(Clock::now() + milliseconds(pg::settings.connect_timeout_ms));
			const remote::Result result = peer.connection->Execute("SELECT homing._wait_graph()");
			(void) graph.Add(id, PQgetvalue(result.get(), 0, 0));
		} catch (const remote::Error &) {
			peer.connection.reset();
		}
	}
	return graph;
}

void Worker::CancelDeadlocked(const core::Victim &victim)
{
	const std::string pid = std::to_string(victim.waiter.pid), since = std::to_string(victim.since);
	MemoryContext context = CurrentMemoryContext;
	std::string circle;
	for (const core::Backend &backend : victim.circle)
		circle += (circle.empty() ? "" : ", ") + std::string("process ") +
		          std::to_string(backend.pid) + " of region " + std::to_string(backend.region.value);
	if (victim.waiter.region == here_) {
		InTransaction([&] {
			pg::PgCall([&] {
				Call("SELECT homing._cancel_deadlocked($1::pg_catalog.int4, $2::pg_catalog.int8)",
				     {pid.c_str(), since.c_str()}, context);
			});
		});
	} else {
		auto peer = peers_.find(victim.waiter.region);
		if (peer == peers_.end() || peer->second.connection == nullptr)
			return;
		waiter_.AllowUntil(Clock::now() + milliseconds(pg::settings.connect_timeout_ms));
		peer->second.connection->Execute("SELECT homing._cancel_deadlocked($1::int4, $2::int8)",
		                                 {{pid}, {since}});
	}
	pg::PgCall([&] {
		ereport(LOG, (errmsg("deadlock over several regions detected"),
		              errdetail_log("Transactions that wait for each other: %s; cancelled process %s "
		                            "of region %d.",
		                            circle.c_str(), pid.c_str(), victim.waiter.region.value)));
	});
}

// The last wait of a circle is a new one somewhere: that region finds the circle. Should it not reach the others
// at that moment, it looks again.
void Worker::FindDeadlocks()
{
	const TimestampTz latest = pg::LatestLongWait();
	if (latest == 0 || (latest <= latest_wait_ && Clock::now() < look_again_due_))
		return;
	latest_wait_ = std::max(latest, latest_wait_);
	look_again_due_ = Clock::now() + kDeadlockPause;
	try {
		const core::WaitGraph before = LookAtWaits();
		if (before.waits.size() < 2 || before.branches.empty())
			return;
		for (const core::Victim &victim : core::FindVictims(Lasting(before, LookAtWaits())))
			CancelDeadlocked(victim);
	} catch (const remote::Error &error) {
		throw Failure(error.what());
	}
}

void Worker::ForgetOutcomes()
{
	if (Clock::now() < forget_due_)
		return;
	forget_due_ = Clock::now() + kForgetPause;
	MemoryContext context = CurrentMemoryContext;
	InTransaction(
		[&] { pg::PgCall([&] { Call("SELECT homing._forget_outcomes()", {}, context); }); });
}

// Those that have been released to this region, or to a lost one whose heir it is.
void Worker::AcceptHomes()
{
	if (fenced_ || missing_ || witness_ || !pg::MayServe(electorate_))
		return;
	MemoryContext context = CurrentMemoryContext;
	InTransaction([&] { pg::PgCall([&] { Call("SELECT homing._accept_homes()", {}, context); }); });
	InTransaction([&] { pg::PgCall([&] { Call("SELECT homing._accept_keys()", {}, context); }); });
	settled_ = true;
}

// Marked as foreign, the deletions are not sent on.
void Worker::PruneLog()
{
	if (Clock::now() < prune_due_)
		return;
	prune_due_ = Clock::now() + kPrunePause;
	MemoryContext context = CurrentMemoryContext;
	replorigin_session_origin = DoNotReplicateId;
	try {
		InTransaction([&] { pg::PgCall([&] { Call("SELECT homing._prune_log()", {}, context); }); });
	} catch (...) {
		replorigin_session_origin = InvalidRepOriginId;
		throw;
	}
	replorigin_session_origin = InvalidRepOriginId;
}

void Worker::KeepTails()
{
	if (fenced_ || Clock::now() < tails_due_)
		return;
	tails_due_ = Clock::now() + kTailsPause;
	std::string heard;
	for (const auto &[id, peer] : peers_) {
		if (!peer.applied.empty())
			heard +=
				(heard.empty() ? "\"" : ",\"") + std::to_string(id.value) + "\":" + peer.applied;
	}
	heard = "{" + heard + "}";
	MemoryContext context = CurrentMemoryContext;
	InTransaction([&] {
		pg::PgCall([&] {
			Call("SELECT homing._keep_tails($1::pg_catalog.jsonb)", {heard.c_str()}, context);
		});
	});
}

void Worker::DoUrgentDuties()
{
	if (TakeHandedOver())
		Do("accept homes that were handed over", &Worker::AcceptHomes);
}

void Worker::RemoveLostStreams()
{
	if (!lost_streams_ || Clock::now() < clean_up_due_)
		return;
	clean_up_due_ = Clock::now() + kCleanUpPause;
	MemoryContext context = CurrentMemoryContext;
	InTransaction([&] { pg::PgCall([&] { Call("SELECT homing._clean_up_lost()", {}, context); }); });
}

void Worker::SeeToLosses()
{
	const auto before = std::count_if(peers_.begin(), peers_.end(), [this](const auto &entry) {
		return !entry.second.lost && !entry.second.witness && entry.first < here_ &&
		       entry.second.trouble.empty();
	});
	if (!loss_duty_.Busy()) {
		copying_ = missing_;
		copying_since_ = mine_.epoch;
	} else if (copying_ && !(copying_since_ == mine_.epoch)) {
		// Whoever it waits for may be the one that has been lost since.
		const std::string pid = std::to_string(loss_duty_.Leave());
		MemoryContext context = CurrentMemoryContext;
		InTransaction([&] {
			pg::PgCall([&] {
				Call("SELECT pg_catalog.pg_terminate_backend($1::pg_catalog.int4)", {pid.c_str()},
				     context);
			});
		});
	}
	waiter_.AllowUntil(Clock::now() + milliseconds(pg::settings.connect_timeout_ms));
	try {
		if (missing_)
			loss_duty_.Round(!fenced_, milliseconds(0), std::nullopt, waiter_, administrator_);
		else
			loss_duty_.Round(losses_ && !fenced_,
			                 milliseconds(core::DeclareAfter(static_cast<int>(before)).us / 1000),
			                 kDeclareTimeout, waiter_, administrator_);
	} catch (const remote::Error &error) {
		throw Failure(error.what());
	}
}

void Worker::Do(const char *duty, void (Worker::*body)())
{
	std::string trouble;
	try {
		(this->*body)();
	} catch (const Failure &failure) {
		trouble = failure.what();
	}
	std::string &logged = troubles_[duty];
	if (trouble == logged)
		return;
	logged = trouble;
	if (!trouble.empty())
		pg::PgCall([&] {
			ereport(LOG, (errmsg("could not %s", duty), errdetail_internal("%s", trouble.c_str())));
		});
}

// Until the next peer is due, at most an interval. Throws Leave.
void Worker::Sleep()
{
	auto until = Clock::now() + Interval();
	for (const auto &entry : peers_)
		until = std::min(until, entry.second.due);
	for (;;) {
		if (pg::PgCall([] { return DatabaseIsWanted(); }))
			throw Leave();
		const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
		if (left.count() <= 0)
			return;
		const milliseconds half(std::max(DeadlockTimeout / 2, 50));
		const long timeout = static_cast<long>(std::min({left, kSlice, half}).count());
		pg::PgCall([&] { Nap(timeout); });
		DoUrgentDuties();
		Do("look for deadlocks", &Worker::FindDeadlocks);
	}
}

void Worker::Run()
{
	MemoryContext round = pg::PgCall([] {
		return AllocSetContextCreate(TopMemoryContext, "homing worker", ALLOCSET_DEFAULT_SIZES);
	});
	MemoryContextSwitchTo(round);
	while (region_) {
		pg::PgCall([&] { MemoryContextReset(round); });
		FollowOwnState();
		if (!region_)
			return;
		if (!witness_)
			pg::PgCall([] {
				StartLeaseKeeper();
				StartDeclarer();
			});
		// First: a region that cannot be reached can take long, and may be the one.
		Do("see to the loss of regions", &Worker::SeeToLosses);
		Do("exchange cluster maps", &Worker::ExchangeMaps);
		Do("end prepared transactions", &Worker::EndPrepared);
		Do("look for deadlocks", &Worker::FindDeadlocks);
		Do("forget old outcomes", &Worker::ForgetOutcomes);
		Do("keep what other regions may lack of a lost one", &Worker::KeepTails);
		Do("remove what lost regions left", &Worker::RemoveLostStreams);
		Do("forget old hand-overs", &Worker::PruneLog);
		Sleep();
	}
}

}  // namespace

// A worker has the server's defaults, which a database can change: none of them may change what we do.
void SettleIn()
{
	static const char *const kSettings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"row_security", "off"},
		// The tables are small, but their statistics may say otherwise, and writers may be waiting.
		{"jit", "off"},
		{"session_replication_role", "origin"},
		// A map must be taken although a region whose confirmation is asked for is gone.
		{"synchronous_commit", "local"},
	};
	for (const auto &setting : kSettings)
		SetConfigOption(setting[0], setting[1], PGC_SUSET, PGC_S_OVERRIDE);
}

void RunWorker()
{
	bool forget = false;
	try {
		Worker worker;
		worker.Run();
		forget = true;
	} catch (const Leave &) {
	}
	ReleaseDatabase(forget);
}

extern "C" {

PGDLLEXPORT void homing_worker_main(Datum database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	SettleIn();
	if (ClaimDatabase(MyDatabaseId))
		pg::PgEntry([] { RunWorker(); });
}

}  // extern "C"

}  // namespace homing::rehome
