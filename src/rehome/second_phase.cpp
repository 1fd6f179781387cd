#include "core/gid.hpp"
#include "rehome/second_phase.hpp"
#include "rehome/worker_state.hpp"

#include <cstdlib>
#include <optional>
#include <set>
#include <vector>

#include "pg/credentials.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;

// The coordinator's own session commits a part within a round trip and the replication lag.
constexpr milliseconds kOverdue{3000};
constexpr milliseconds kAskAgain{5000};

// Runs the body in a transaction of its own, as plain server calls; the memory context is the same afterwards.
template <typename Body>
void Transact(const Body &body)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *failure = nullptr;
	try {
		pg::PgCall([&] {
			StartTransactionCommand();
			MemoryContextSwitchTo(context);
			body();
			CommitTransactionCommand();
			MemoryContextSwitchTo(context);
		});
		return;
	} catch (const pg::ServerError &error) {
		failure = error.data;
	}
	std::string message = failure->message;
	pg::PgCall([] { AbortCurrentTransaction(); });
	MemoryContextSwitchTo(context);
	throw std::runtime_error(message);
}

remote::ConnectionOptions OptionsOf(const std::string &region, Oid user)
{
	MemoryContext context = CurrentMemoryContext;
	std::optional<std::string> failure;
	remote::ConnectionOptions options;
	try {
		pg::PgCall([] { StartTransactionCommand(); });
		const Oid server =
			pg::PgCall([&] { return GetForeignServerByName(region.c_str(), false)->serverid; });
		options = pg::OptionsFor(server, user);
		pg::PgCall([] { CommitTransactionCommand(); });
	} catch (const pg::ServerError &error) {
		failure = error.what();
	}
	if (failure)
		pg::PgCall([] { AbortCurrentTransaction(); });
	MemoryContextSwitchTo(context);
	if (failure)
		throw std::runtime_error(*failure);
	return options;
}

// A row of homing._doubts, as text; nullptr: NULL.
struct RawDoubt {
	const char *fields[9];
};

struct RawDoubts {
	RawDoubt *rows;
	uint64 count;
};

void ReadDoubts(MemoryContext context, RawDoubts *doubts)
{
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Query(
		"SELECT gid, resolution, decision, coordinator, lost, complete, applied, age, lost_here FROM homing._doubts()");
	MemoryContext old = MemoryContextSwitchTo(context);
	doubts->count = SPI_processed;
	doubts->rows = static_cast<RawDoubt *>(palloc0(sizeof(RawDoubt) * (SPI_processed + 1)));
	for (uint64 row = 0; row < SPI_processed; ++row) {
		for (int i = 0; i < 9; ++i)
			doubts->rows[row].fields[i] =
				SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1);
	}
	// What SPI_getvalue returned is in `context`.
	MemoryContextSwitchTo(old);
	PopActiveSnapshot();
	SPI_finish();
}

std::optional<bool> Decided(const char *text)
{
	if (text == nullptr)
		return std::nullopt;
	return text[0] == 't';
}

void ForgetResolution(const char *gid)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(gid)};
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) SPI_execute_with_args("DELETE FROM homing.resolution WHERE gid = $1", 1, types, values,
	                             nullptr, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}

}  // namespace

void SecondPhase::End(const Part &part, bool commit)
{
	const char *gid = part.gid.c_str();
	pg::DebugPoint("second-phase-before-end");
	Transact([&] { FinishPreparedTransaction(gid, commit); });
	pg::DebugPoint("second-phase-after-end");
	if (part.state.operator_decision)
		Transact([&] { ForgetResolution(gid); });
	pg::PgCall([&] {
		ereport(LOG, (errmsg("%s a part of a transaction over several regions",
		                     commit ? "committed" : "rolled back"),
		              errdetail_internal("%s", gid)));
	});
}

// An answer is for good: it need not be asked for again.
void SecondPhase::Ask(remote::Waiter &waiter, Oid administrator, Part &part)
{
	const std::optional<core::Gid> gid = core::ParseGid(part.gid);
	Clock::time_point &not_before = not_before_[part.coordinator];
	if (!gid || Clock::now() < not_before)
		return;
	not_before = Clock::now() + kAskAgain;
	const remote::ConnectionOptions options = OptionsOf(part.coordinator, administrator);
	const milliseconds patience(pg::settings.connect_timeout_ms);
	pg::RegionConnection connection = pg::Connect(options, waiter);
	connection->SetDeadline(Clock::now() + patience);
	// Its transaction may still be running there. Then we ask again.
	connection->Execute("SET statement_timeout = '1s'");
	connection->Execute("SET default_transaction_read_only = off");
	const remote::Result said =
		connection->Execute("SELECT homing._rule_out($1)", {{gid->token.Text(), UUIDOID}});
	const remote::Result position = connection->Execute("SELECT homing._last_commit()");
	core::CoordinatorAnswer answer{core::CoordinatorAnswer::Kind::kForgotten, 0};
	const std::string word = PQgetvalue(said.get(), 0, 0);
	if (word == "committed")
		answer.kind = core::CoordinatorAnswer::Kind::kCommitted;
	else if (word == "never")
		answer.kind = core::CoordinatorAnswer::Kind::kNever;
	answer.position = std::strtoull(PQgetvalue(position.get(), 0, 0), nullptr, 10);
	answers_.emplace(part.gid, answer);
	part.state.answer = answer;
	not_before = Clock::now();
}

void SecondPhase::Round(remote::Waiter &waiter, Oid administrator)
{
	RawDoubts raw{};
	MemoryContext context = CurrentMemoryContext;
	Transact([&] { ReadDoubts(context, &raw); });

	std::set<std::string> living;
	std::string failure;
	for (uint64 i = 0; i < raw.count; ++i) {
		const auto &fields = raw.rows[i].fields;
		Part part;
		part.gid = fields[0];
		living.insert(part.gid);
		part.coordinator = fields[3] != nullptr ? fields[3] : "";
		part.age = milliseconds(std::strtoll(fields[7], nullptr, 10));
		part.state.operator_decision = Decided(fields[1]);
		part.state.decision = Decided(fields[2]);
		part.state.coordinator_lost = fields[4] != nullptr && fields[4][0] == 't';
		part.state.stream_complete = fields[5] != nullptr && fields[5][0] == 't';
		part.state.applied = std::strtoull(fields[6], nullptr, 10);
		part.state.lost_here = fields[8] != nullptr && fields[8][0] == 't';
		part.state.overdue = part.age >= kOverdue;
		auto answer = answers_.find(part.gid);
		if (answer != answers_.end())
			part.state.answer = answer->second;
		// Until then the session that prepared it is at it.
		if (part.state.decision && !part.state.overdue)
			continue;
		core::InDoubtStep step = core::ResolveInDoubt(part.state);
		if (step == core::InDoubtStep::kAsk && !part.coordinator.empty() &&
		    OidIsValid(administrator)) {
			try {
				Ask(waiter, administrator, part);
			} catch (const remote::Error &) {
				continue;  // it stays in doubt
			}
			step = core::ResolveInDoubt(part.state);
		}
		if (step == core::InDoubtStep::kCommit || step == core::InDoubtStep::kAbort) {
			try {
				End(part, step == core::InDoubtStep::kCommit);
			} catch (const std::runtime_error &error) {
				failure = error.what();  // the next round tries again
			}
		}
	}
	for (auto it = answers_.begin(); it != answers_.end();)
		it = living.count(it->first) == 0 ? answers_.erase(it) : std::next(it);
	if (!failure.empty())
		throw std::runtime_error(failure);
}

}  // namespace homing::rehome
