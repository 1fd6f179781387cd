#include "write/region_session.hpp"

#include <chrono>
#include <cstdlib>
#include <utility>

#include "pg/boundary.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"
#include "write/causal_token.hpp"
#include "write/outcome.hpp"
#include "write/session_settings.hpp"
#include "write/set_constraints.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/pg_type.h"
}

namespace homing::write {

namespace {

// Numbers of types, for arguments.
constexpr unsigned int kInt2 = INT2OID, kInt4 = INT4OID, kUuid = UUIDOID;

// A session at another region keeps so many statements prepared, of this many bytes in all.
constexpr std::size_t kPreparedStatements = 128, kPreparedBytes = 1024 * 1024;

std::string StatementName(int number)
{
	return "homing_" + std::to_string(number);
}

std::string StatementKey(const std::string &sql, const std::vector<remote::Argument> &arguments)
{
	std::string key = sql;
	for (const remote::Argument &argument : arguments)
		key += '\1' + std::to_string(argument.type);
	return key;
}

std::string Savepoint(int level)
{
	return "homing_" + std::to_string(level);
}

std::uint64_t RowsOf(const remote::Result &result)
{
	return std::strtoull(PQcmdTuples(result.get()), nullptr, 10);
}

// The statement was dropped, or a column of its result has another type now.
bool CannotBeReused(const PGresult *error)
{
	const char *state = PQresultErrorField(error, PG_DIAG_SQLSTATE);
	const char *function = PQresultErrorField(error, PG_DIAG_SOURCE_FUNCTION);
	const std::string sqlstate = state != nullptr ? state : "";
	return sqlstate == "26000" || (sqlstate == "0A000" && function != nullptr &&
	                               std::string(function) == "RevalidateCachedQuery");
}

// Raises a remote notice here, at its own level.
void RaiseNotice(const remote::Error &notice)
{
	const struct {
		int level, code;
		const char *message, *detail, *hint, *context;
	} plain{pg::NoticeLevel(notice.severity.c_str()),
	        pg::SqlStateCode(notice.sqlstate.c_str()),
	        notice.what(),
	        notice.detail.c_str(),
	        notice.hint.c_str(),
	        notice.context.c_str()};
	pg::PgCall([&] {
		ereport(plain.level, (errcode(plain.code), errmsg_internal("%s", plain.message),
		                      plain.detail[0] != '\0' ? errdetail_internal("%s", plain.detail) : 0,
		                      plain.hint[0] != '\0' ? errhint("%s", plain.hint) : 0,
		                      plain.context[0] != '\0' ? errcontext("%s", plain.context) : 0));
	});
}

}  // namespace

RegionSession::RegionSession(Place place, pg::SessionSlot slot, pg::RegionConnection connection,
                             pg::LatchWaiter &waiter)
	: place_(std::move(place)), slot_(std::move(slot)), connection_(std::move(connection)),
	  meter_(place_.region), waiter_(waiter),
	  prepared_statements_(kPreparedStatements, kPreparedBytes)
{
	slot_.Connected(connection_->BackendPid());
}

void RegionSession::AddContext(remote::Error &error) const
{
	error.context += error.context.empty() ? "" : "\n";
	error.context += "while writing at home region \"" + place_.name + "\"";
}

void RegionSession::ReportNotices()
{
	for (const remote::Error &notice : connection_->TakeNotices()) {
		// A ROLLBACK that was sent to be on the safe side.
		if (notice.sqlstate != "25P01")
			RaiseNotice(notice);
	}
}

// --- sending ----------------------------------------------------------------------------------------------

// A server closes the connection when a message is longer than it takes.
void RegionSession::CheckSize(const std::string &sql,
                              const std::vector<remote::Argument> &arguments) const
{
	constexpr std::size_t kLongestMessage = 0x3fffffff - 4096;  // bytes
	std::size_t size = sql.size();
	for (const remote::Argument &argument : arguments)
		size += 16 + (argument.text ? argument.text->size() : 0);
	if (size <= kLongestMessage)
		return;
	remote::Error error("54000",
	                    "statement is too large to be sent to region \"" + place_.name + "\"");
	error.detail = "With its values it has " + std::to_string(size) + " bytes, at most " +
	               std::to_string(kLongestMessage) + " can be sent.";
	error.hint = "Write at the home region of the rows, or fewer values at a time.";
	throw error;
}

void RegionSession::Send(Answer purpose, const std::string &sql,
                         const std::vector<remote::Argument> &arguments, bool binary_result)
{
	expected_.push_back({purpose});
	connection_->Send(sql, arguments, binary_result);
}

void RegionSession::SendReusable(Answer purpose, const std::string &sql,
                                 const std::vector<remote::Argument> &arguments, bool binary_result)
{
	const core::StatementCache::Use use = prepared_statements_.Plan(StatementKey(sql, arguments));
	for (const int number : prepared_statements_.TakeEvicted()) {
		expected_.push_back({Answer::kCommand, 0, 0, number});
		connection_->Send("DEALLOCATE " + StatementName(number));
	}
	if (use.number == 0) {
		Send(purpose, sql, arguments, binary_result);
		return;
	}
	const std::string name = StatementName(use.number);
	if (use.prepare) {
		expected_.push_back({Answer::kCommand, use.number});
		connection_->Prepare(name, sql, arguments);
	}
	expected_.push_back({purpose, 0, use.number});
	connection_->SendPrepared(name, arguments, binary_result);
}

void RegionSession::Sync(pg::Forwarded time)
{
	expected_.push_back({Answer::kSync});
	slot_.Active();
	meter_.Sent(time);
	connection_->Sync();
}

void RegionSession::SyncLater(Answer purpose)
{
	expected_.push_back({purpose});
	connection_->SyncLater();
}

// The first thing a session is asked: it refuses when it is not where we think it is.
void RegionSession::QueueGreeting()
{
	if (prepared_limit_ < 0)
		Send(Answer::kGreeting, "SELECT homing._greet($1)",
		     {{std::to_string(place_.region.value), kInt2}});
}

// In the transaction of the statement: if one fails, so does the other.
void RegionSession::QueueSettings()
{
	const SessionSettings &current = CurrentSettings();
	if (!settings_.empty() && settings_version_ == current.version)
		return;
	settings_version_ = current.version;
	std::string sql;
	std::vector<remote::Argument> arguments;
	for (const auto &[setting, value] : current.values) {
		std::string &known = settings_[setting];
		if (known == value)
			continue;
		sql += sql.empty() ? "SELECT " : ", ";
		sql += "pg_catalog.set_config($" + std::to_string(arguments.size() + 1) + ", $" +
		       std::to_string(arguments.size() + 2) + ", false)";
		arguments.push_back({setting});
		arguments.push_back({value});
		known = value;
	}
	if (!sql.empty())
		Send(Answer::kCommand, sql, arguments);
}

void RegionSession::QueueBegin()
{
	// Whatever that database's default is.
	Send(Answer::kCommand, std::string("BEGIN ISOLATION LEVEL ") + IsolationLevel() +
	                           (XactReadOnly ? " READ ONLY" : " READ WRITE"));
	level_ = 1;
	constraints_set_ = 0;
}

void RegionSession::QueueConstraints()
{
	for (; constraints_set_ < SetConstraintsCount(); ++constraints_set_)
		Send(Answer::kCommand, SetConstraintsText(constraints_set_));
}

void RegionSession::QueuePending()
{
	for (const std::string &command : std::exchange(pending_, {}))
		Send(Answer::kCommand, command);
}

// Keeps, in the transaction itself, that it has committed (PROTOCOL 2f).
void RegionSession::QueueOutcome(const core::OutcomeToken &token)
{
	SendReusable(Answer::kCommand, "SELECT homing._keep_outcome($1)", {{token.Text(), kUuid}});
}

std::string RegionSession::NeedsOf() const
{
	return pg::settings.read_consistency == pg::kReadSession ? ToldBeyond(place_.region)
	                                                         : std::string();
}

// What the session has committed in third regions. The server there waits for it when it executes the statement, as
// it does for what its own sessions have committed elsewhere (read_consistency).
void RegionSession::QueueNeeds(const RemoteStatement &statement)
{
	if (!statement.reads || !IsReadCommitted())
		return;
	if (const std::string needs = NeedsOf(); !needs.empty())
		Send(Answer::kCommand, "SELECT homing.wait_for($1, '0')", {{needs}});
}

// A snapshot that lasts for the transaction must be taken afterwards.
void RegionSession::AwaitNeeds()
{
	if (level_ > 0 || IsReadCommitted())
		return;
	const std::string needs = NeedsOf();
	if (needs.empty())
		return;
	QueueGreeting();
	Send(Answer::kStatement,
	     "SELECT homing.wait_for($1, pg_catalog.make_interval(secs => $2 / 1000.0))",
	     {{needs}, {std::to_string(pg::settings.read_timeout_ms), kInt4}});
	Sync();
	const remote::Result arrived = CollectAll();
	if (PQgetvalue(arrived.get(), 0, 0)[0] == 't')
		return;
	remote::Error error("55P03",
	                    "could not read what the session has committed at another region in time");
	error.detail =
		"It has not been applied at region \"" + place_.name + "\" within homing.read_timeout.";
	error.hint = "Try the transaction again, or raise homing.read_timeout.";
	throw error;
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
	QueueConstraints();
}

// Something that runs here as a part of a statement, a trigger for example, uses the session while the other
// part runs over there: that one comes first.
void RegionSession::TakeEarly()
{
	if (const int level = std::exchange(awaited_, 0); level > 0)
		early_.emplace_back(level, Collect());
}

remote::Result RegionSession::Receive()
{
	if (std::exchange(awaited_, 0) > 0 || early_.empty())
		return Collect();
	remote::Result result = std::move(early_.back().second);
	early_.pop_back();
	return result;
}

void RegionSession::Post(const RemoteStatement &statement, int nest_level)
{
	CheckSize(statement.sql, statement.arguments);
	TakeEarly();
	AwaitNeeds();
	EnterTransaction(nest_level);
	QueueNeeds(statement);
	SendReusable(Answer::kStatement, statement.sql, statement.arguments, statement.binary_result);
	meter_.Count(pg::Forwarded::kStatements);
	Sync();
	awaited_ = nest_level;
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

// Keeps account of what the server has prepared. A statement that it cannot execute as it was prepared is
// prepared anew.
void RegionSession::TakePrepared(const Expected &expected, const PGresult *result)
{
	const ExecStatusType status = PQresultStatus(result);
	const bool failed = status == PGRES_FATAL_ERROR || status == PGRES_PIPELINE_ABORTED;
	if (!failed)
		return;
	if (expected.prepares > 0)
		prepared_statements_.Forget(expected.prepares);
	if (expected.drops > 0 && status == PGRES_PIPELINE_ABORTED)
		prepared_statements_.GiveBack(expected.drops);
	if (expected.executes > 0 && status == PGRES_FATAL_ERROR && CannotBeReused(result)) {
		prepared_statements_.Forget(expected.executes);
		stale_ = true;
	}
}

void RegionSession::Take(remote::Result result, Taken *taken)
{
	const Expected expected = expected_.empty() ? Expected{Answer::kDropped} : expected_.front();
	const Answer purpose = expected.purpose;
	if (result)
		TakePrepared(expected, result.get());
	if (!result) {
		if (!expected_.empty() && !IsSync(purpose))
			expected_.pop_front();
		return;
	}
	switch (PQresultStatus(result.get())) {
	case PGRES_PIPELINE_SYNC:
		if (IsSync(purpose))
			expected_.pop_front();
		return;
	case PGRES_PIPELINE_ABORTED:
		return;
	case PGRES_FATAL_ERROR:
		if (purpose == Answer::kFinish)
			finish_failed_ = true;
		else if (!taken->error && purpose != Answer::kDropped && purpose != Answer::kDroppedSync)
			taken->error = remote::Error::FromResult(result.get());
		return;
	default:
		if (purpose == Answer::kStatement)
			taken->wanted = std::move(result);
		else if (purpose == Answer::kGreeting)
			prepared_limit_ = std::atoi(PQgetvalue(result.get(), 0, 0));
	}
}

// Receives everything that was sent; returns the statement's result.
remote::Result RegionSession::CollectAll()
{
	pg::CancelMode mode(waiter_, cancelled_ ? pg::OnCancel::kHold : pg::OnCancel::kTell);
	Taken taken;
	while (connection_->AwaitsSync())
		Take(NextAnswer(mode), &taken);
	ReportNotices();
	if (taken.error) {
		settings_.clear();  // what was set inside the failed transaction is gone
		AddContext(*taken.error);
		throw *taken.error;
	}
	slot_.Answered();
	meter_.Answered();
	if (taken.wanted)
		meter_.Count(pg::Forwarded::kRows, RowsOf(taken.wanted));
	return std::move(taken.wanted);
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
	} catch (const remote::Error &error) {
		meter_.Failed(error.sqlstate);
		RaiseCancel();
		throw;
	}
	RaiseCancel();
	return result;
}

// --- ends -------------------------------------------------------------------------------------------------

// A statement that failed because it had been prepared before its table changed has done nothing.
remote::Result RegionSession::RunAlone(const RemoteStatement &statement, CommitPoint *commit)
{
	CheckSize(statement.sql, statement.arguments);
	stale_ = false;
	try {
		return RunOnce(statement, commit);
	} catch (const remote::Error &) {
		if (!std::exchange(stale_, false))
			throw;
	}
	return RunOnce(statement, commit);
}

// An implicit transaction, which the server commits at the Sync. Its level is the default of the remote
// session, which a new session has not been told yet.
remote::Result RegionSession::RunOnce(const RemoteStatement &statement, CommitPoint *commit)
{
	const bool implicit = !settings_.empty() && IsReadCommitted();
	AwaitNeeds();
	if (!implicit)
		QueueBegin();
	QueueGreeting();
	QueueSettings();
	QueueNeeds(statement);
	SendReusable(Answer::kStatement, statement.sql, statement.arguments, statement.binary_result);
	QueueOutcome(commit->token);
	if (!implicit)
		Send(Answer::kCommand, "COMMIT");
	meter_.Count(pg::Forwarded::kStatements);
	return Settle(commit, pg::Forwarded::kExecuteTime);
}

void RegionSession::Commit(CommitPoint *commit)
{
	QueuePending();
	QueueOutcome(commit->token);
	Send(Answer::kCommand, "COMMIT");
	Settle(commit, pg::Forwarded::kCommitTime);
}

// The commit is known, whatever comes of this: 0 when the region does not say.
std::uint64_t RegionSession::AskPosition()
{
	try {
		Send(Answer::kStatement, "SELECT homing._last_commit()");
		Sync();
		const remote::Result answer = CollectAll();
		return std::strtoull(PQgetvalue(answer.get(), 0, 0), nullptr, 10);
	} catch (const remote::ConnectionLost &) {
		throw;
	} catch (const remote::Error &) {
		return 0;
	}
}

// Learns how the transaction ended whose end has been queued. When the connection is lost meanwhile, the
// region is asked over a new one.
remote::Result RegionSession::Settle(CommitPoint *commit, pg::Forwarded time)
{
	remote::Result result;
	std::string reason;
	try {
		const std::string before = connection_->Parameter(pg::kLastCommitSetting);
		pg::CancelMode mode(waiter_, pg::OnCancel::kTell);
		try {
			Sync(time);
		} catch (const pg::CancelRequested &) {
			PassOnCancel(mode);
		}
		pg::DebugPoint("forward-sent");
		result = CollectAll();
		Ended();
		cancelled_ = false;
		connection_->SetDeadline(std::nullopt);
		const std::string position = connection_->Parameter(pg::kLastCommitSetting);
		commit->position =
			position != before ? std::strtoull(position.c_str(), nullptr, 10) : AskPosition();
		meter_.Count(pg::Forwarded::kCommits);
		return result;
	} catch (const remote::ConnectionLost &lost) {
		meter_.Failed(lost.sqlstate);
		reason = lost.what();
	} catch (const remote::Error &error) {
		meter_.Failed(error.sqlstate);
		if (connection_->TransactionStatus() == PQTRANS_IDLE)
			Ended();  // COMMIT itself failed
		Rollback();
		RaiseCancel();
		throw;
	} catch (const pg::ServerError &failure) {
		reason = failure.what();
	}
	Ended();
	const bool cancelled = std::exchange(cancelled_, false);
	Learn(place_, waiter_, reason, cancelled, commit);
	return result;
}

// What is still to be answered failed, or does not count any more.
void RegionSession::DropAnswers(int nest_level) noexcept
{
	if (awaited_ >= nest_level)
		awaited_ = 0;
	while (!early_.empty() && early_.back().first >= nest_level)
		early_.pop_back();
	for (Expected &expected : expected_) {
		Answer &answer = expected.purpose;
		if (answer != Answer::kFinish)
			answer = IsSync(answer) ? Answer::kDroppedSync : Answer::kDropped;
	}
}

// The answers are read with that of the next statement. When the connection is lost, the server ends the
// transaction by itself, and its worker a prepared one.
void RegionSession::Rollback() noexcept
{
	pending_.clear();
	cancelled_ = false;
	connection_->SetDeadline(std::nullopt);
	const bool any = InTransaction();
	Ended();
	if (!any)
		return;
	DropAnswers();
	// Nothing is waited for here: a new connection is made.
	copying_ = copying_ || connection_->HasAbandonedCopy();
	if (Dead()) {
		prepared_.clear();
		return;
	}
	settings_.clear();
	try {
		// Also when PREPARE was sent: it may have failed.
		Send(Answer::kDropped, "ROLLBACK");
		SyncLater(Answer::kDroppedSync);
		if (!prepared_.empty()) {
			meter_.Count(pg::Forwarded::kRolledBack);
			Send(Answer::kDropped, "ROLLBACK PREPARED '" + prepared_ + "'");
			SyncLater(Answer::kDroppedSync);
		}
	} catch (...) {
		// Lost now.
	}
	prepared_.clear();
}

void RegionSession::PostPrepare(const std::string &gid, const core::OutcomeToken &part)
{
	QueuePending();
	QueueOutcome(part);
	Send(Answer::kCommand, "PREPARE TRANSACTION '" + gid + "'");
	prepared_ = gid;
	meter_.Count(pg::Forwarded::kPrepared);
	Sync(pg::Forwarded::kCommitTime);
}

// Over there, COMMIT PREPARED waits until the decision has arrived, and fails without it (prepared_guard.hpp).
// What follows for the same session waits behind it.
void RegionSession::Finish() noexcept
{
	Ended();
	meter_.Count(pg::Forwarded::kDecided);
	finish_failed_ = false;
	try {
		Send(Answer::kFinish, "COMMIT PREPARED '" + prepared_ + "'");
		SyncLater(Answer::kDroppedSync);
	} catch (...) {
		// The region's worker commits it.
	}
	prepared_.clear();
}

bool RegionSession::AwaitFinished(std::chrono::steady_clock::time_point deadline) noexcept
{
	bool finished = false;
	try {
		pg::CancelMode mode(waiter_, pg::OnCancel::kTell);
		connection_->SetPause(deadline);
		Taken taken;
		while (connection_->AwaitsSync())
			Take(connection_->Receive(), &taken);
		finished = !finish_failed_;
	} catch (...) {
		// The answer comes later, or never.
	}
	connection_->SetDeadline(std::nullopt);
	return finished;
}

void RegionSession::MarkWritten(int nest_level)
{
	if (written_level_ == 0 || nest_level < written_level_)
		written_level_ = nest_level;
}

void RegionSession::EndSubtransaction(bool commit, int nest_level)
{
	if (written_level_ >= nest_level)
		written_level_ = commit ? nest_level - 1 : 0;
	if (level_ < nest_level)
		return;
	// Deeper savepoints are gone with this one; so are commands that end them.
	if (!commit) {
		if (copying_ && !connection_->Lost())
			copying_ = !connection_->AbandonCopy();
		DropAnswers(nest_level);
		pending_.push_back("ROLLBACK TO SAVEPOINT " + Savepoint(nest_level));
		settings_.clear();
		constraints_set_ = 0;
	}
	pending_.push_back("RELEASE SAVEPOINT " + Savepoint(nest_level));
	level_ = nest_level - 1;
}

}  // namespace homing::write
