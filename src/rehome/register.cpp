// The register of the cluster map (core/register) over libpq: this region as a voter, and as a proposer.
//
// What a voter has promised or accepted is a row, changed under a lock that keeps votes and leases apart, and
// committed before the proposer hears of it: the answer counts when the statement's transaction is over.
#include "core/lease.hpp"
#include "core/register.hpp"
#include "rehome/peer.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pg/boundary.hpp"
#include "pg/debug_point.hpp"
#include "pg/waiter.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// --- the voter: plain server code around one decision -----------------------------------------------------------

struct RawAcceptor {
	int64 promised_round, accepted_round, epoch;
	int16 promised_to, accepted_from;
	const char *value;  // empty: none
};

Datum Column(int column)
{
	bool isnull;
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
}

// Requires: SPI.
RawAcceptor ReadAcceptor()
{
	if (SPI_execute("SELECT promised_round, promised_to, accepted_round, accepted_from, "
	                "coalesce((value->>'epoch')::pg_catalog.int8, 0), coalesce(value::pg_catalog.text, '') "
	                "FROM homing.acceptor FOR UPDATE",
	                false, 0) != SPI_OK_SELECT ||
	    SPI_processed != 1)
		ereport(ERROR,
		        (errcode(ERRCODE_DATA_CORRUPTED), errmsg("the tables of pg_homing are damaged")));
	return {DatumGetInt64(Column(1)), DatumGetInt64(Column(3)), DatumGetInt64(Column(5)),
	        DatumGetInt16(Column(2)), DatumGetInt16(Column(4)), TextDatumGetCString(Column(6))};
}

void WriteAcceptor(const RawAcceptor &acceptor)
{
	Oid types[] = {INT8OID, INT2OID, INT8OID, INT2OID, TEXTOID};
	Datum values[] = {Int64GetDatum(acceptor.promised_round), Int16GetDatum(acceptor.promised_to),
	                  Int64GetDatum(acceptor.accepted_round), Int16GetDatum(acceptor.accepted_from),
	                  CStringGetTextDatum(acceptor.value)};
	if (SPI_execute_with_args(
			"UPDATE homing.acceptor SET promised_round = $1, promised_to = $2, accepted_round = $3, "
			"accepted_from = $4, value = nullif($5, '')::pg_catalog.jsonb",
			5, types, values, nullptr, false, 0) != SPI_OK_UPDATE)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not record a vote")));
}

core::AcceptorState State(const RawAcceptor &raw)
{
	return {{raw.promised_round, core::RegionId(raw.promised_to)},
	        {raw.accepted_round, core::RegionId(raw.accepted_from)},
	        {core::Epoch(raw.epoch), raw.value}};
}

// --- the proposer --------------------------------------------------------------------------------------------------

std::vector<core::RegionId> Regions(const int16 *ids, int count)
{
	std::vector<core::RegionId> regions;
	for (int i = 0; i < count; ++i)
		regions.emplace_back(ids[i]);
	return regions;
}

struct Proposal {
	const char *cluster, *map;
	int64 first_round, base, epoch;
	int16 proposer;
	const int16 *voters, *reached;
	int voter_count, reached_count;
	int32 patience;
};

struct Outcome {
	std::string value;
	std::vector<core::RegionId> answered;
	std::string obstacle;
};

class Attempts {
public:
	explicit Attempts(const Proposal &proposal)
		: proposal_(proposal), voters_(Regions(proposal.voters, proposal.voter_count)),
		  reached_(Regions(proposal.reached, proposal.reached_count))
	{
	}

	Outcome Run();

private:
	using Answers = std::map<core::RegionId, remote::Result>;

	std::optional<core::RegisterValue> Change(const core::RegisterValue &present) const;
	void Prepare(core::Proposer *proposer);
	void Accept(core::Proposer *proposer);
	Answers AskAll(const std::string &sql, const std::vector<remote::Argument> &arguments);

	const Proposal &proposal_;
	const std::vector<core::RegionId> voters_, reached_;
	std::map<core::RegionId, std::string> obstacles_;
	long wait_ms_ = 0;
	std::int64_t present_epoch_ = 0;
	std::int64_t decided_epoch_ = 0;
};

// What a dead proposer left is decided first: a majority may have accepted it. Of a later epoch than the next the
// voters may be others than those we ask; then only who took part knows.
std::optional<core::RegisterValue> Attempts::Change(const core::RegisterValue &present) const
{
	if (present.epoch.value == proposal_.base + 1)
		return present;
	if (present.epoch.value > proposal_.base)
		return std::nullopt;
	return core::RegisterValue{core::Epoch(proposal_.epoch), proposal_.map};
}

// In one round trip of the slowest.
Attempts::Answers Attempts::AskAll(const std::string &sql,
                                   const std::vector<remote::Argument> &arguments)
{
	std::map<core::RegionId, remote::Connection *> asked;
	for (const core::RegionId voter : reached_) {
		try {
			remote::Connection &connection = PeerConnection("step " + std::to_string(voter.value));
			connection.Send(sql, arguments);
			connection.Sync();
			asked.emplace(voter, &connection);
		} catch (const remote::Error &error) {
			obstacles_[voter] = error.what();
		}
	}
	Answers answers;
	for (const auto &[voter, connection] : asked) {
		try {
			std::optional<remote::Error> refused;
			while (connection->AwaitsSync()) {
				remote::Result result = connection->Receive();
				if (!result || PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC)
					continue;
				if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR)
					refused = remote::Error::FromResult(result.get());
				else
					answers[voter] = std::move(result);
			}
			connection->TakeNotices();
			if (refused) {
				answers.erase(voter);  // its commit may have failed
				obstacles_[voter] = refused->what();
			} else {
				obstacles_.erase(voter);
			}
		} catch (const remote::Error &error) {
			answers.erase(voter);
			obstacles_[voter] = error.what();
		}
	}
	return answers;
}

void Attempts::Prepare(core::Proposer *proposer)
{
	const Answers answers =
		AskAll("SELECT promised, newest, newest_to, accepted, accepted_from, value, "
	           "coalesce((value::jsonb->>'epoch')::int8, 0) FROM homing._prepare($1, $2, $3)",
	           {{proposal_.cluster},
	            {std::to_string(proposer->ballot().round)},
	            {std::to_string(proposal_.proposer)}});
	for (const auto &[voter, result] : answers) {
		const auto text = [&, row = result.get()](int column) {
			return std::string(PQgetvalue(row, 0, column));
		};
		if (PQntuples(result.get()) != 1 || PQnfields(result.get()) != 7)
			continue;
		const auto region = [&](int column) {
			return core::RegionId(static_cast<std::int16_t>(std::stoi(text(column))));
		};
		core::PrepareAnswer answer;
		answer.promised = text(0) == "t";
		answer.newest = {std::stoll(text(1)), region(2)};
		answer.accepted = {std::stoll(text(3)), region(4)};
		answer.value = {core::Epoch(std::stoll(text(6))), text(5)};
		proposer->OnPrepareAnswer(voter, answer);
	}
}

void Attempts::Accept(core::Proposer *proposer)
{
	wait_ms_ = 0;
	const Answers answers = AskAll("SELECT accepted, wait_ms FROM homing._accept($1, $2, $3, $4)",
	                               {{proposal_.cluster},
	                                {std::to_string(proposer->ballot().round)},
	                                {std::to_string(proposal_.proposer)},
	                                {proposer->value().map}});
	for (const auto &[voter, result] : answers) {
		if (PQntuples(result.get()) != 1 || PQnfields(result.get()) != 2)
			continue;
		const bool accepted = PQgetvalue(result.get(), 0, 0)[0] == 't';
		const long wait = std::stol(PQgetvalue(result.get(), 0, 1));
		if (wait > 0)
			obstacles_[voter] = "it has promised the region to let it serve for " +
			                    std::to_string(wait) + " ms more";
		wait_ms_ = std::max(wait_ms_, wait);
		proposer->OnAcceptAnswer(voter, accepted);
	}
}

Outcome Attempts::Run()
{
	const auto until = Clock::now() + milliseconds(proposal_.patience);
	pg::LatchWaiter waiter;
	std::int64_t round = proposal_.first_round;
	Outcome outcome;
	for (;;) {
		core::Proposer proposer({round, core::RegionId(proposal_.proposer)}, voters_, {},
		                        [this](const core::RegisterValue &present) {
									return Change(present);
								});
		pg::DebugPoint("vote-before-prepare");
		Prepare(&proposer);
		pg::DebugPoint("vote-before-accept");
		// The ballot stays good while the voters wait for promises to end.
		while (proposer.phase() == core::Proposer::Phase::kAccepting) {
			core::Proposer trial = proposer;
			Accept(&trial);
			if (trial.phase() == core::Proposer::Phase::kDone || wait_ms_ == 0 ||
			    Clock::now() + milliseconds(wait_ms_) > until) {
				proposer = std::move(trial);
				break;
			}
			waiter.Pause(milliseconds(wait_ms_));
		}
		pg::DebugPoint("vote-after-accept");
		const core::Proposer::Phase phase = proposer.phase();
		if (phase == core::Proposer::Phase::kDone || phase == core::Proposer::Phase::kPointless) {
			outcome.value = proposer.value().map;
			break;
		}
		round = std::max(round, proposer.newest().round) + 1;
		if (Clock::now() + milliseconds(200) > until)
			break;
		waiter.Pause(milliseconds(200));
	}
	for (const core::RegionId voter : reached_) {
		const auto obstacle = obstacles_.find(voter);
		if (obstacle == obstacles_.end())
			outcome.answered.push_back(voter);
		else
			outcome.obstacle += (outcome.obstacle.empty() ? "" : "; ") + std::string("region ") +
			                    std::to_string(voter.value) + ": " + obstacle->second;
	}
	if (outcome.obstacle.empty() && outcome.value.empty())
		outcome.obstacle = std::to_string(reached_.size()) + " of " +
		                   std::to_string(voters_.size()) + " voters answer";
	return outcome;
}

struct IdArray {
	int16 *ids;
	int count;
};

IdArray Ids(ArrayType *array)
{
	Datum *elements;
	bool *nulls;
	IdArray result{nullptr, 0};
	deconstruct_array(array, INT2OID, sizeof(int16), true, TYPALIGN_SHORT, &elements, &nulls,
	                  &result.count);
	result.ids = static_cast<int16 *>(palloc(sizeof(int16) * (result.count + 1)));
	for (int i = 0; i < result.count; ++i)
		result.ids[i] = DatumGetInt16(elements[i]);
	return result;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_on_prepare);
PG_FUNCTION_INFO_V1(homing_on_accept);
PG_FUNCTION_INFO_V1(homing_propose);
PG_FUNCTION_INFO_V1(homing_majority_is_silent);

PGDLLEXPORT Datum homing_on_prepare(PG_FUNCTION_ARGS)
{
	TupleDesc desc;
	if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a record is needed")));
	MemoryContext context = CurrentMemoryContext;
	SPI_connect();
	RawAcceptor raw = ReadAcceptor();
	raw.value = MemoryContextStrdup(context, raw.value);
	const int64 round = PG_GETARG_INT64(0);
	const int16 proposer = PG_GETARG_INT16(1);
	struct {
		bool promised;
		int64 newest;
		int16 newest_to;
	} answer = pg::PgEntry([&] {
		core::AcceptorState state = State(raw);
		const core::PrepareAnswer given = core::OnPrepare(&state, {round, core::RegionId(proposer)});
		raw.promised_round = state.promised.round;
		raw.promised_to = state.promised.proposer.value;
		return decltype(answer){given.promised, given.newest.round, given.newest.proposer.value};
	});
	if (answer.promised)
		WriteAcceptor(raw);
	SPI_finish();
	Datum values[] = {BoolGetDatum(answer.promised),    Int64GetDatum(answer.newest),
	                  Int16GetDatum(answer.newest_to),  Int64GetDatum(raw.accepted_round),
	                  Int16GetDatum(raw.accepted_from), CStringGetTextDatum(raw.value)};
	bool nulls[] = {false, false, false, false, false, raw.value[0] == '\0'};
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PGDLLEXPORT Datum homing_on_accept(PG_FUNCTION_ARGS)
{
	SPI_connect();
	RawAcceptor raw = ReadAcceptor();
	const int64 round = PG_GETARG_INT64(0);
	const int16 proposer = PG_GETARG_INT16(1);
	const char *value = text_to_cstring(PG_GETARG_TEXT_PP(2));
	const bool accepted = pg::PgEntry([&] {
		core::AcceptorState state = State(raw);
		// The epoch is in the text.
		if (!core::OnAccept(&state, {round, core::RegionId(proposer)}, {{}, value}))
			return false;
		raw.promised_round = state.promised.round;
		raw.promised_to = state.promised.proposer.value;
		raw.accepted_round = state.accepted.round;
		raw.accepted_from = state.accepted.proposer.value;
		return true;
	});
	if (accepted) {
		raw.value = value;
		WriteAcceptor(raw);
	}
	SPI_finish();
	PG_RETURN_BOOL(accepted);
}

PGDLLEXPORT Datum homing_propose(PG_FUNCTION_ARGS)
{
	TupleDesc desc;
	if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a record is needed")));
	const IdArray voters = Ids(PG_GETARG_ARRAYTYPE_P(0)), reached = Ids(PG_GETARG_ARRAYTYPE_P(1));
	Proposal proposal{};
	proposal.voters = voters.ids;
	proposal.voter_count = voters.count;
	proposal.reached = reached.ids;
	proposal.reached_count = reached.count;
	proposal.proposer = PG_GETARG_INT16(2);
	proposal.first_round = PG_GETARG_INT64(3);
	proposal.base = PG_GETARG_INT64(4);
	proposal.epoch = proposal.base + 1;
	proposal.map = text_to_cstring(PG_GETARG_TEXT_PP(5));
	proposal.patience = PG_GETARG_INT32(6);
	MemoryContext context = CurrentMemoryContext;
	SPI_connect();
	if (SPI_execute("SELECT cluster_id::pg_catalog.text FROM homing.local_region", true, 0) !=
	        SPI_OK_SELECT ||
	    SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("this database is not a region of a cluster")));
	proposal.cluster = MemoryContextStrdup(context, TextDatumGetCString(Column(1)));
	SPI_finish();

	struct {
		const char *value, *obstacle;
		Datum *answered;
		int count;
	} plain = pg::PgEntry([&] {
		const Outcome outcome = Attempts(proposal).Run();
		return pg::PgCall([&] {
			decltype(plain) result{};
			result.value = outcome.value.empty() ? nullptr : pstrdup(outcome.value.c_str());
			result.obstacle = pstrdup(outcome.obstacle.c_str());
			result.answered =
				static_cast<Datum *>(palloc(sizeof(Datum) * (outcome.answered.size() + 1)));
			for (const core::RegionId voter : outcome.answered)
				result.answered[result.count++] = Int16GetDatum(voter.value);
			return result;
		});
	});
	Datum values[] = {plain.value != nullptr ? CStringGetTextDatum(plain.value) : (Datum) 0,
	                  PointerGetDatum(construct_array(plain.answered, plain.count, INT2OID,
	                                                  sizeof(int16), true, TYPALIGN_SHORT)),
	                  CStringGetTextDatum(plain.obstacle)};
	bool nulls[] = {plain.value == nullptr, false, false};
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PGDLLEXPORT Datum homing_majority_is_silent(PG_FUNCTION_ARGS)
{
	Datum *elements;
	bool *nulls;
	int count;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
	                  TYPALIGN_DOUBLE, &elements, &nulls, &count);
	const int32 voters = PG_GETARG_INT32(1);
	const core::Duration limit = core::Milliseconds(PG_GETARG_INT64(2));
	PG_RETURN_BOOL(pg::PgEntry([&] {
		std::vector<core::Duration> silences;
		for (int i = 0; i < count; ++i) {
			if (!nulls[i])
				silences.push_back(core::Milliseconds(DatumGetInt64(elements[i])));
		}
		return core::IsSilent(silences, voters, limit);
	}));
}

}  // extern "C"

}  // namespace homing::rehome
