#include "write/region_session.hpp"

#include <chrono>
#include <cstdlib>
#include <utility>

#include "pg/boundary.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"
#include "write/outcome.hpp"
#include "write/session_settings.hpp"

extern "C" {
#include "catalog/pg_type.h"
}

namespace homing::write {

namespace {

// Numbers of types, for arguments.
constexpr unsigned int kInt2 = INT2OID, kInt4 = INT4OID, kUuid = UUIDOID;

std::string Savepoint(int level)
{
	return "homing_" + std::to_string(level);
}

// Raises a remote notice here, at its own level.
void RaiseNotice(const remote::Error &notice)
{
	const struct {
		int level, code;
		const char *message, *detail, *hint, *context;
	} plain{pg::NoticeLevel(notice.severity.c_str()), pg::SqlStateCode(notice.sqlstate.c_str()), notice.what(),
	        notice.detail.c_str(), notice.hint.c_str(), notice.context.c_str()};
	pg::PgCall([&] {
		ereport(plain.level, (errcode(plain.code), errmsg_internal("%s", plain.message),
		                      plain.detail[0] != '\0' ? errdetail_internal("%s", plain.detail) : 0,
		                      plain.hint[0] != '\0' ? errhint("%s", plain.hint) : 0,
		                      plain.context[0] != '\0' ? errcontext("%s", plain.context) : 0));
	});
}

void AddContext(remote::Error &error, const std::string &region)
{
	error.context += error.context.empty() ? "" : "\n";
	error.context += "while writing at home region \"" + region + "\"";
}

}  // namespace

RegionSession::RegionSession(Place place, pg::RegionConnection connection, pg::LatchWaiter &waiter)
	: place_(std::move(place)), connection_(std::move(connection)), waiter_(waiter)
{
}

void RegionSession::ReportNotices()
{
	for (const remote::Error &notice : connection_->TakeNotices())
		RaiseNotice(notice);
}

// --- sending ----------------------------------------------------------------------------------------------

void RegionSession::Send(Answer purpose, const std::string &sql, const std::vector<remote::Argument> &arguments,
                         bool binary_result)
{
	expected_.push_back(purpose);
	connection_->Send(sql, arguments, binary_result);
}

// The first thing a session is asked: it refuses when it is not where we think it is.
void RegionSession::QueueGreeting()
{
	if (prepared_limit_ < 0)
		Send(Answer::kGreeting, "SELECT homing._greet($1)", {{std::to_string(place_.region.value), kInt2}});
}

// In the transaction of the statement: if one fails, so does the other.
void RegionSession::QueueSettings()
{
	std::string sql;
	std::vector<remote::Argument> arguments;
	for (auto &[setting, value] : CurrentSettings()) {
		std::string &known = settings_[setting];
		if (known == value)
			continue;
		sql += sql.empty() ? "SELECT " : ", ";
		sql += "pg_catalog.set_config($" + std::to_string(arguments.size() + 1) + ", $" +
			   std::to_string(arguments.size() + 2) + ", false)";
		arguments.push_back({setting});
		arguments.push_back({value});
		known = std::move(value);
	}
	if (!sql.empty())
		Send(Answer::kCommand, sql, arguments);
}

void RegionSession::QueueBegin()
{
	Send(Answer::kCommand, std::string("BEGIN ISOLATION LEVEL ") + IsolationLevel());
	level_ = 1;
}

void RegionSession::QueuePending()
{
	for (const std::string &command : std::exchange(pending_, {}))
		Send(Answer::kCommand, command);
}

// Keeps, in the transaction itself, that it has committed (PROTOCOL 2f).
void RegionSession::QueueOutcome(const core::OutcomeToken &token)
{
	Send(Answer::kCommand, "SELECT homing._keep_outcome($1)", {{token.Text(), kUuid}});
}

void RegionSession::QueuePosition()
{
	position_ = 0;
	Send(Answer::kPosition, "SELECT homing._last_commit()");
}

void RegionSession::EnterTransaction(int nest_level)
{
	QueuePending();
	if (level_ == 0)
		QueueBegin();
	while (level_ < nest_level)
		Send(Answer::kCommand, "SAVEPOINT " + Savepoint(++level_));
	QueueGreeting();
	QueueSettings();
}

void RegionSession::Post(const RemoteStatement &statement, int nest_level)
{
	EnterTransaction(nest_level);
	Send(Answer::kStatement, statement.sql, statement.arguments, statement.binary_result);
	connection_->Sync();
}

// --- receiving --------------------------------------------------------------------------------------------

// Asks the server, over another connection, to cancel what the session runs. Whether that was in time is
// known from the answer, which from now on is not waited for without limit.
void RegionSession::PassOnCancel(pg::CancelMode &mode)
{
	mode.Change(pg::OnCancel::kHold);
	cancelled_ = true;
	const auto patience = std::chrono::milliseconds(pg::settings.outcome_timeout_ms);
	try {
		const auto deadline = std::chrono::steady_clock::now() + patience;
		pg::RegionConnection messenger = pg::ConnectTo(place_.server, place_.user, waiter_);
		messenger->SetDeadline(deadline);
		messenger->Execute("SELECT pg_catalog.pg_cancel_backend($1)",
		                   {{std::to_string(connection_->BackendPid()), kInt4}});
	} catch (const remote::Error &) {
		// It cannot be told; perhaps it answers all the same.
	}
	connection_->SetDeadline(std::chrono::steady_clock::now() + patience);
}

remote::Result RegionSession::NextAnswer(pg::CancelMode &mode)
{
	for (;;) {
		try {
			return connection_->Receive();
		} catch (const pg::CancelRequested &) {
			PassOnCancel(mode);
		}
	}
}

// Receives everything that was sent; returns the statement's result.
remote::Result RegionSession::CollectAll()
{
	pg::CancelMode mode(waiter_, cancelled_ ? pg::OnCancel::kHold : pg::OnCancel::kTell);
	remote::Result wanted;
	std::optional<remote::Error> error;
	while (connection_->AwaitsSync()) {
		remote::Result result = NextAnswer(mode);
		const Answer purpose = expected_.empty() ? Answer::kDropped : expected_.front();
		if (!result) {
			if (!expected_.empty())
				expected_.pop_front();
			continue;
		}
		switch (PQresultStatus(result.get())) {
		case PGRES_PIPELINE_SYNC:
		case PGRES_PIPELINE_ABORTED:
			break;
		case PGRES_FATAL_ERROR:
			if (!error && purpose != Answer::kDropped && purpose != Answer::kPosition)
				error = remote::Error::FromResult(result.get());
			break;
		default:
			if (purpose == Answer::kStatement)
				wanted = std::move(result);
			else if (purpose == Answer::kGreeting)
				prepared_limit_ = std::atoi(PQgetvalue(result.get(), 0, 0));
			else if (purpose == Answer::kPosition)
				position_ = std::strtoull(PQgetvalue(result.get(), 0, 0), nullptr, 10);
		}
	}
	ReportNotices();
	if (error) {
		settings_.clear();  // what was set inside the failed transaction is gone
		AddContext(*error, place_.name);
		throw *error;
	}
	return wanted;
}

// Our user's cancel goes before whatever the region made of it.
void RegionSession::RaiseCancel()
{
	if (std::exchange(cancelled_, false)) {
		connection_->SetDeadline(std::nullopt);
		pg::PgCall([] { CHECK_FOR_INTERRUPTS(); });
	}
}

remote::Result RegionSession::Collect()
{
	remote::Result result;
	try {
		result = CollectAll();
	} catch (const remote::Error &) {
		RaiseCancel();
		throw;
	}
	RaiseCancel();
	return result;
}

// --- COPY ------------------------------------------------------------------------------------------------

template <typename Body>
auto RegionSession::AtHome(const Body &body) -> decltype(body())
{
	try {
		return body();
	} catch (remote::Error &error) {
		settings_.clear();
		AddContext(error, place_.name);
		throw;
	}
}

void RegionSession::BeginCopy(const std::string &sql, int nest_level)
{
	EnterTransaction(nest_level);
	connection_->Sync();
	(void) Collect();
	AtHome([&] { connection_->BeginCopy(sql); });
}

bool RegionSession::OfferCopy(const std::string &data)
{
	const bool sent = AtHome([&] { return connection_->OfferCopyData(data.data(), data.size()); });
	ReportNotices();
	return sent;
}

void RegionSession::SendOffered()
{
	AtHome([&] { connection_->SendOffered(); });
	ReportNotices();
}

void RegionSession::EndCopy()
{
	AtHome([&] { connection_->OfferCopyEnd(); });
}

remote::Result RegionSession::FinishCopy()
{
	remote::Result result = AtHome([&] { return connection_->ReceiveCopyEnd(); });
	ReportNotices();
	return result;
}

// --- ends -------------------------------------------------------------------------------------------------

// An implicit transaction, which the server commits at the Sync. Its level is the default of the remote
// session, which a new session has not been told yet.
remote::Result RegionSession::RunAlone(const RemoteStatement &statement, CommitPoint *commit)
{
	const bool implicit = !settings_.empty() && IsReadCommitted();
	if (!implicit)
		QueueBegin();
	QueueGreeting();
	QueueSettings();
	Send(Answer::kStatement, statement.sql, statement.arguments, statement.binary_result);
	QueueOutcome(commit->token);
	if (!implicit)
		Send(Answer::kCommand, "COMMIT");
	return Settle(commit);
}

void RegionSession::Commit(CommitPoint *commit)
{
	QueuePending();
	QueueOutcome(commit->token);
	Send(Answer::kCommand, "COMMIT");
	Settle(commit);
}

// Learns how the transaction ended whose end has been queued. When the connection is lost meanwhile, the
// region is asked over a new one.
remote::Result RegionSession::Settle(CommitPoint *commit)
{
	remote::Result result;
	std::string reason;
	try {
		pg::CancelMode mode(waiter_, pg::OnCancel::kTell);
		try {
			connection_->SyncLater();
			QueuePosition();
			connection_->Sync();
		} catch (const pg::CancelRequested &) {
			PassOnCancel(mode);
		}
		pg::DebugPoint("forward-sent");
		result = CollectAll();
		level_ = 0;
		cancelled_ = false;
		connection_->SetDeadline(std::nullopt);
		commit->position = position_;
		return result;
	} catch (const remote::ConnectionLost &lost) {
		reason = lost.what();
	} catch (const remote::Error &) {
		if (connection_->TransactionStatus() == PQTRANS_IDLE)
			level_ = 0;  // COMMIT itself failed
		Rollback();
		RaiseCancel();
		throw;
	} catch (const pg::ServerError &failure) {
		reason = failure.what();
	}
	level_ = 0;
	const bool cancelled = std::exchange(cancelled_, false);
	Learn(place_, waiter_, reason, cancelled, commit);
	return result;
}

void RegionSession::Rollback() noexcept
{
	pending_.clear();
	cancelled_ = false;
	connection_->SetDeadline(std::nullopt);
	for (Answer &answer : expected_)
		answer = Answer::kDropped;
	if (std::exchange(level_, 0) == 0 || connection_->Lost())
		return;
	settings_.clear();
	try {
		// The answer is read with that of the next statement.
		Send(Answer::kDropped, "ROLLBACK");
		connection_->SyncLater();
	} catch (...) {
		// The connection is lost now, and the server ends the transaction with it.
	}
}

void RegionSession::EndSubtransaction(bool commit, int nest_level)
{
	if (level_ < nest_level)
		return;
	// Deeper savepoints are gone with this one; so are commands that end them.
	if (!commit) {
		for (Answer &answer : expected_)
			answer = Answer::kDropped;
		pending_.push_back("ROLLBACK TO SAVEPOINT " + Savepoint(nest_level));
		settings_.clear();
	}
	pending_.push_back("RELEASE SAVEPOINT " + Savepoint(nest_level));
	level_ = nest_level - 1;
}

}  // namespace homing::write
