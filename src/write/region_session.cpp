#include "write/region_session.hpp"

#include <deque>
#include <optional>
#include <utility>

#include "pg/boundary.hpp"
#include "pg/settings.hpp"
#include "write/session_settings.hpp"

namespace homing::write {

namespace {

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

OutcomeUnknown::OutcomeUnknown(const std::string &region, const std::string &reason)
	: Error("08007", "the outcome of the transaction at region \"" + region + "\" is unknown")
{
	detail = "The connection was lost while it was committing: " + reason + ".";
	hint = "Look at the rows at region \"" + region + "\" before you try again.";
}

RegionSession::RegionSession(core::RegionId region, std::string name, core::Epoch epoch,
                             pg::RegionConnection connection)
	: region_(region), name_(std::move(name)), epoch_(epoch), connection_(std::move(connection))
{
}

void RegionSession::ReportNotices()
{
	for (const remote::Error &notice : connection_->TakeNotices())
		RaiseNotice(notice);
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
		connection_->Send(sql, arguments);
}

void RegionSession::QueueBegin()
{
	connection_->Send(std::string("BEGIN ISOLATION LEVEL ") + IsolationLevel());
	level_ = 1;
}

void RegionSession::QueuePending()
{
	for (const std::string &command : std::exchange(pending_, {}))
		connection_->Send(command);
}

// Receives everything that was sent; returns the last result but `skipped`.
remote::Result RegionSession::Collect(int skipped)
{
	std::deque<remote::Result> answers;
	std::optional<remote::Error> error;
	while (connection_->AwaitsSync()) {
		remote::Result result = connection_->Receive();
		if (!result)
			continue;
		switch (PQresultStatus(result.get())) {
		case PGRES_PIPELINE_SYNC:
		case PGRES_PIPELINE_ABORTED:
			break;
		case PGRES_FATAL_ERROR:
			if (!error)
				error = remote::Error::FromResult(result.get());
			break;
		default:
			answers.push_back(std::move(result));
			if (answers.size() > static_cast<std::size_t>(skipped) + 1)
				answers.pop_front();
		}
	}
	ReportNotices();
	if (error) {
		settings_.clear();  // what was set inside the failed transaction is gone
		AddContext(*error, name_);
		throw *error;
	}
	return answers.empty() ? remote::Result() : std::move(answers.front());
}

void RegionSession::EnterTransaction(int nest_level)
{
	QueuePending();
	if (level_ == 0)
		QueueBegin();
	while (level_ < nest_level)
		connection_->Send("SAVEPOINT " + Savepoint(++level_));
	QueueSettings();
}

void RegionSession::Post(const RemoteStatement &statement, int nest_level)
{
	EnterTransaction(nest_level);
	connection_->Send(statement.sql, statement.arguments, statement.binary_result);
	connection_->Sync();
}

template <typename Body>
auto RegionSession::AtHome(const Body &body) -> decltype(body())
{
	try {
		return body();
	} catch (remote::Error &error) {
		settings_.clear();
		AddContext(error, name_);
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

// An implicit transaction, which the server commits at the Sync. Its level is the default of the remote
// session, which a new session has not been told yet.
remote::Result RegionSession::RunAlone(const RemoteStatement &statement)
{
	const bool implicit = !settings_.empty() && IsReadCommitted();
	if (!implicit)
		QueueBegin();
	QueueSettings();
	connection_->Send(statement.sql, statement.arguments, statement.binary_result);
	remote::Result result = Settle(!implicit, true);
	return result;
}

void RegionSession::Commit()
{
	QueuePending();
	Settle(true, false);
}

// Sends the end of the transaction and learns how it went.
remote::Result RegionSession::Settle(bool explicitly, bool wants_result)
{
	if (explicitly)
		connection_->Send("COMMIT");
	try {
		connection_->Sync();
		remote::Result result = Collect(wants_result && explicitly ? 1 : 0);
		level_ = 0;
		return result;
	} catch (const remote::ConnectionLost &lost) {
		level_ = 0;
		throw OutcomeUnknown(name_, lost.what());
	} catch (const remote::Error &) {
		if (connection_->TransactionStatus() == PQTRANS_IDLE)
			level_ = 0;  // COMMIT itself failed
		Rollback();
		throw;
	} catch (...) {
		level_ = 0;
		throw OutcomeUnknown(name_, "interrupted here");
	}
}

void RegionSession::Rollback() noexcept
{
	pending_.clear();
	if (level_ == 0 || connection_->Broken()) {
		level_ = 0;
		return;
	}
	level_ = 0;
	settings_.clear();
	try {
		// The answer is read with that of the next statement.
		connection_->Send("ROLLBACK");
		connection_->Sync();
	} catch (...) {
		// The connection is broken now, and the server ends the transaction with it.
	}
}

void RegionSession::EndSubtransaction(bool commit, int nest_level)
{
	if (level_ < nest_level)
		return;
	// Deeper savepoints are gone with this one; so are commands that end them.
	if (!commit)
		pending_.push_back("ROLLBACK TO SAVEPOINT " + Savepoint(nest_level));
	pending_.push_back("RELEASE SAVEPOINT " + Savepoint(nest_level));
	if (!commit)
		settings_.clear();
	level_ = nest_level - 1;
}

}  // namespace homing::write
