#include "core/lease.hpp"
#include "rehome/lease_keeper.hpp"
#include "rehome/own_transaction.hpp"
#include "rehome/process.hpp"
#include "rehome/worker_state.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pg/credentials.hpp"
#include "pg/lease.hpp"
#include "pg/settings.hpp"
#include "pg/waiter.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "foreign/foreign.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kSlice{250};  // between two looks whether somebody wants something

struct Voter {
	std::string name;
	remote::ConnectionOptions options;  // those of `connection`
	pg::RegionConnection connection;
	std::string trouble;  // last one logged; empty: it answers
	bool witness = false;
};

struct Answer {
	std::string refusal;  // empty: the lease is given
	std::uint64_t applied = 0;
};

std::uint64_t Position(const char *text)
{
	unsigned high = 0, low = 0;
	return std::sscanf(text, "%X/%X", &high, &low) == 2
	           ? (static_cast<std::uint64_t>(high) << 32) | low
	           : 0;
}

class Keeper {
public:
	// Returns when the database is no region any more, or is wanted by somebody who needs it empty.
	void Run();

private:
	bool ReadOwnState(MemoryContext context);
	void Round();
	bool Ask(core::RegionId id, Voter &voter);
	Answer AskHere();
	void Connect(Voter &voter);
	void Take(core::RegionId id, const std::string &name, const Answer &answer, core::Instant sent);
	bool Sleep();

	milliseconds Share() const
	{
		return std::max(milliseconds(pg::settings.lease_duration_ms) /
		                    (2 * static_cast<int>(voters_.size() + 1)),
		                milliseconds(100));
	}

	pg::LatchWaiter waiter_;
	std::map<core::RegionId, Voter> voters_;  // the others
	std::vector<core::RegionId> electorate_;
	std::string cluster_;
	core::RegionId here_;
	std::int64_t epoch_ = 0;
	bool fenced_ = false;
	bool changed_ = true;  // the voters, since the lease was published
	Oid administrator_ = InvalidOid;
	int lease_ms_ = 0;
	std::optional<core::LeaseHolder> holder_;
	std::string own_trouble_;
};

// False: this database is no region.
bool Keeper::ReadOwnState(MemoryContext context)
{
	RawState state;
	InTransaction([&] { pg::PgCall([&] { ReadState(&state, context); }); });
	if (!state.region)
		return false;
	cluster_ = state.cluster;
	here_ = core::RegionId(state.here);
	epoch_ = state.epoch;
	fenced_ = state.fenced;
	administrator_ = state.administrator;

	std::map<core::RegionId, Voter> voters;
	std::vector<core::RegionId> electorate, leaving;
	if (state.votes)
		electorate.push_back(here_);
	for (int i = 0; i < state.peer_count; ++i) {
		const RawPeer &raw = state.peers[i];
		if (!raw.votes)
			continue;
		const core::RegionId id(raw.id);
		electorate.push_back(id);
		if (raw.pending)
			leaving.push_back(id);
		const auto known = voters_.find(id);
		if (known != voters_.end())
			voters[id] = std::move(known->second);
		voters[id].name = raw.name;
		voters[id].witness = raw.witness;
	}
	voters_ = std::move(voters);
	if (lease_ms_ != pg::settings.lease_duration_ms || !holder_) {
		core::LeaseTerms terms;
		terms.lease = core::Milliseconds(pg::settings.lease_duration_ms);
		holder_.emplace(terms, electorate);
		lease_ms_ = pg::settings.lease_duration_ms;
	}
	changed_ = changed_ || electorate != electorate_ || !leaving.empty();
	electorate_ = electorate;
	holder_->ChangeVoters(std::move(electorate), std::move(leaving));
	return true;
}

void Keeper::Connect(Voter &voter)
{
	remote::ConnectionOptions options;
	InTransaction([&] {
		const Oid server =
			pg::PgCall([&] { return get_foreign_server_oid(voter.name.c_str(), true); });
		if (!OidIsValid(server) || !OidIsValid(administrator_))
			throw Failure("there is no server or no role to connect to it");
		options = pg::OptionsFor(server, administrator_);
	});
	if (voter.connection != nullptr && !voter.connection->Broken() && options == voter.options)
		return;
	voter.connection.reset();
	voter.connection = pg::Connect(options, waiter_);
	voter.connection->SetDeadline(Clock::now() + Share());
	voter.connection->Execute(
		"SELECT set_config('search_path', 'pg_catalog, pg_temp', false), set_config('jit', 'off', false), "
		"set_config('synchronous_commit', 'local', false)");
	voter.options = std::move(options);
}

Answer Keeper::AskHere()
{
	const std::string here = std::to_string(here_.value), epoch = std::to_string(epoch_),
					  lease = std::to_string(lease_ms_);
	MemoryContext context = CurrentMemoryContext;
	const char *refusal = nullptr;
	InTransaction([&] {
		pg::PgCall([&] {
			refusal =
				Call("SELECT refusal FROM homing._renew_lease($1::pg_catalog.uuid, $2::pg_catalog.int2, "
			         "$3::pg_catalog.int8, $4::pg_catalog.int4)",
			         {cluster_.c_str(), here.c_str(), epoch.c_str(), lease.c_str()}, context);
		});
	});
	return {refusal != nullptr ? refusal : "", 0};
}

void Keeper::Take(core::RegionId id, const std::string &name, const Answer &answer,
                  core::Instant sent)
{
	if (core::WentBackInTime(pg::PgCall([] { return GetXLogInsertRecPtr(); }), answer.applied)) {
		const std::string reason = "this region went back in time: region \"" + name +
		                           "\" has applied more of it than it has written";
		MemoryContext context = CurrentMemoryContext;
		InTransaction([&] {
			pg::PgCall([&] { Call("SELECT homing._fence($1)", {reason.c_str()}, context); });
		});
		fenced_ = true;
		throw Failure(reason);
	}
	if (!answer.refusal.empty())
		throw Failure(answer.refusal);
	holder_->Renew(id, sent);
}

// Whether it gives a lease.
bool Keeper::Ask(core::RegionId id, Voter &voter)
{
	std::string trouble;
	try {
		Connect(voter);
		voter.connection->SetDeadline(Clock::now() + Share());
		const core::Instant sent = pg::BootTime();
		const remote::Result result = voter.connection->Execute(
			"SELECT refusal, applied FROM homing._renew_lease($1::uuid, $2::int2, $3::bigint, $4::int4)",
			{{cluster_},
		     {std::to_string(here_.value)},
		     {std::to_string(epoch_)},
		     {std::to_string(lease_ms_)}});
		voter.connection->TakeNotices();
		if (PQntuples(result.get()) != 1 || PQnfields(result.get()) != 2)
			throw Failure("its answer is not understood");
		Take(id, voter.name,
		     {PQgetvalue(result.get(), 0, 0), Position(PQgetvalue(result.get(), 0, 1))}, sent);
		// A loss by the operator's word is not a witness's to know.
		if (!voter.witness)
			pg::ConfirmServing();
	} catch (const pg::ServerError &) {
		throw;
	} catch (const Failure &failure) {
		trouble = failure.what();
	} catch (const std::exception &failure) {
		trouble = failure.what();
		voter.connection.reset();
	}
	if (trouble != voter.trouble) {
		voter.trouble = trouble;
		pg::PgCall([&] {
			if (trouble.empty())
				ereport(LOG, (errmsg("region \"%s\" votes for our lease", voter.name.c_str())));
			else
				ereport(LOG, (errmsg("no vote for our lease from region \"%s\"", voter.name.c_str()),
				              errdetail_internal("%s", trouble.c_str())));
		});
	}
	return trouble.empty();
}

void Keeper::Round()
{
	if (fenced_)
		return;
	const core::Instant begin = pg::BootTime();
	// By the voters of the map as it is now; somebody may wait for that. New voters are asked before a lease ends that
	// the voters before them gave, or each commit of this moment would fail.
	if (holder_->MayServe(begin))
		pg::PublishLease(holder_->ValidUntil(), epoch_);
	try {
		if (std::find(electorate_.begin(), electorate_.end(), here_) != electorate_.end())
			Take(here_, "", AskHere(), begin);
		own_trouble_.clear();
	} catch (const Failure &failure) {
		if (own_trouble_ != failure.what()) {
			own_trouble_ = failure.what();
			pg::PgCall([&] {
				ereport(LOG, (errmsg("this region does not vote for its own lease"),
				              errdetail_internal("%s", own_trouble_.c_str())));
			});
		}
	}
	// Those that answered last time first.
	for (const bool troubled : {false, true}) {
		for (auto &[id, voter] : voters_) {
			if (voter.trouble.empty() == troubled || fenced_)
				continue;
			if (Ask(id, voter))
				changed_ = true;
			if (changed_ && !fenced_ && holder_->MayServe(pg::BootTime()))
				pg::PublishLease(holder_->ValidUntil(), epoch_);
		}
	}
	pg::PublishLease(fenced_ ? core::Instant{} : holder_->ValidUntil(), epoch_);
	changed_ = false;
}

// Until the next renewal is due. False: leave.
bool Keeper::Sleep()
{
	const bool stands = holder_->MayServe(pg::BootTime());
	const auto interval =
		std::min(milliseconds(lease_ms_ / 3),
	             stands ? milliseconds(lease_ms_) : milliseconds(pg::settings.probe_interval_ms));
	const auto until = Clock::now() + interval;
	for (;;) {
		if (pg::PgCall([] { return DatabaseIsWanted(); }))
			return false;
		const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
		if (left.count() <= 0 || pg::RecountIsWanted())
			return true;
		const long timeout = static_cast<long>(std::min(left, kSlice).count());
		pg::PgCall([&] { Nap(timeout); });
	}
}

void Keeper::Run()
{
	MemoryContext round = pg::PgCall([] {
		return AllocSetContextCreate(TopMemoryContext, "homing lease", ALLOCSET_DEFAULT_SIZES);
	});
	MemoryContextSwitchTo(round);
	do {
		pg::PgCall([&] { MemoryContextReset(round); });
		try {
			if (!ReadOwnState(round))
				return;
			const std::string share = std::to_string(Share().count());
			pg::PgCall([&] {
				SetConfigOption("homing.connect_timeout", share.c_str(), PGC_SUSET, PGC_S_OVERRIDE);
			});
			Round();
		} catch (const Failure &failure) {
			pg::PgCall([&] {
				ereport(LOG, (errmsg("could not renew the lease of this region"),
				              errdetail_internal("%s", failure.what())));
			});
		}
	} while (Sleep());
}

}  // namespace

void StartLeaseKeeper()
{
	if (pg::LeaseIsKept())
		return;
	BackgroundWorker keeper = ProcessIn(MyDatabaseId, "lease keeper", "homing_lease_keeper_main");
	if (!RegisterDynamicBackgroundWorker(&keeper, nullptr))
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		                  errmsg("out of background worker slots"),
		                  errdetail("Without the keeper of its lease, a region does not serve."),
		                  errhint("You might need to increase max_worker_processes.")));
}

extern "C" {

PGDLLEXPORT void homing_lease_keeper_main(Datum database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	SettleIn();
	if (pg::ClaimLease())
		pg::PgEntry([] { Keeper().Run(); });
}

}  // extern "C"

}  // namespace homing::rehome
