#include "remote/connection.hpp"

#include <algorithm>

namespace homing::remote {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kForEver{-1};

milliseconds Left(Clock::time_point deadline)
{
	auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
	return std::max(left, milliseconds{0});
}

std::string Trimmed(const char *text)
{
	std::string message = text;
	while (!message.empty() && message.back() == '\n')
		message.pop_back();
	return message;
}

int Count(const std::vector<Argument> &arguments)
{
	return static_cast<int>(arguments.size());
}

std::vector<Oid> Types(const std::vector<Argument> &arguments)
{
	std::vector<Oid> types;
	types.reserve(arguments.size());
	for (const Argument &argument : arguments)
		types.push_back(argument.type);
	return types;
}

std::vector<const char *> Values(const std::vector<Argument> &arguments)
{
	std::vector<const char *> values;
	values.reserve(arguments.size());
	for (const Argument &argument : arguments)
		values.push_back(argument.text ? argument.text->c_str() : nullptr);
	return values;
}

// Marks the conversation as unfinished while an exception may leave it.
class Conversation {
public:
	explicit Conversation(bool &busy) : busy_(busy) { busy_ = true; }
	void Finished() { busy_ = false; }

private:
	bool &busy_;
};

// Waits until it is done.
Connecting Complete(Connecting connecting, Waiter &waiter, milliseconds timeout)
{
	const auto deadline = Clock::now() + timeout;
	while (!connecting.Done()) {
		const bool reading = connecting.ForRead();
		if (!waiter.Wait(connecting.Socket(), reading, !reading, Left(deadline)))
			throw CannotConnect("connection timed out after " + std::to_string(timeout.count()) +
			                    " ms");
		connecting.Step();
	}
	return connecting;
}

}  // namespace

Connection::Connection(const ConnectionOptions &options, Waiter &waiter, milliseconds timeout)
	: Connection(Connecting(options), waiter, timeout)
{
}

Connection::Connection(Connecting begun, Waiter &waiter, milliseconds timeout)
	: Connection(Complete(std::move(begun), waiter, timeout), waiter)
{
}

Connection::Connection(Connecting made, Waiter &waiter) : conn_(made.Release()), waiter_(waiter)
{
	try {
		if (PQsetnonblocking(conn_, 1) != 0)
			throw CannotConnect(Trimmed(PQerrorMessage(conn_)));
		PQsetNoticeReceiver(conn_, &Connection::OnNotice, this);
		waiter_.Opened(PQsocket(conn_));
		socket_ = PQsocket(conn_);
	} catch (...) {
		PQfinish(conn_);
		throw;
	}
}

Connection::~Connection()
{
	waiter_.Closed(socket_);
	PQfinish(conn_);
}

void Connection::OnNotice(void *self, const PGresult *result)
{
	try {
		static_cast<Connection *>(self)->notices_.push_back(Error::FromResult(result));
	} catch (...) {
		// A notice that does not fit into memory is dropped; libpq's C frames cannot carry the failure.
	}
}

std::vector<Error> Connection::TakeNotices()
{
	return std::exchange(notices_, {});
}

bool Connection::Broken() const
{
	return busy_ || PQstatus(conn_) != CONNECTION_OK;
}

void Connection::GiveUp()
{
	lost_ = busy_ = true;
	throw ConnectionLost(Trimmed(PQerrorMessage(conn_)));
}

void Connection::WaitFor(bool for_read, bool for_write)
{
	const milliseconds timeout = deadline_ ? Left(*deadline_) : kForEver;
	// libpq closes the socket of a connection that fails.
	const int socket = PQsocket(conn_);
	const bool happened = socket == socket_ ? waiter_.WaitAgain(socket, for_read, for_write, timeout)
	                                        : waiter_.Wait(socket, for_read, for_write, timeout);
	if (!happened) {
		if (patient_)
			throw NotYet();
		lost_ = busy_ = true;
		throw ConnectionLost("no answer in time");
	}
}

bool Connection::StillThere()
{
	// What a server says before it leaves is read first, and only then the end.
	return !Lost() && PQconsumeInput(conn_) != 0 && PQconsumeInput(conn_) != 0 && !Lost();
}

void Connection::EnterPipeline()
{
	if (copy_abandoned_) {
		busy_ = true;
		Flush();
		try {
			(void) ReceiveCopyEnd();
		} catch (const ConnectionLost &) {
			throw;
		} catch (const Error &) {
			// As we wanted.
		}
		copy_abandoned_ = false;
	}
	if (PQpipelineStatus(conn_) == PQ_PIPELINE_OFF && PQenterPipelineMode(conn_) == 0)
		GiveUp();
}

void Connection::LeavePipeline()
{
	if (PQpipelineStatus(conn_) != PQ_PIPELINE_OFF && PQexitPipelineMode(conn_) == 0)
		GiveUp();
}

void Connection::Send(const std::string &sql, const std::vector<Argument> &arguments,
                      bool binary_result)
{
	EnterPipeline();
	busy_ = true;
	if (PQsendQueryParams(conn_, sql.c_str(), Count(arguments), Types(arguments).data(),
	                      Values(arguments).data(), nullptr, nullptr, binary_result ? 1 : 0) == 0)
		GiveUp();
}

void Connection::Prepare(const std::string &name, const std::string &sql,
                         const std::vector<Argument> &arguments)
{
	EnterPipeline();
	busy_ = true;
	if (PQsendPrepare(conn_, name.c_str(), sql.c_str(), Count(arguments),
	                  Types(arguments).data()) == 0)
		GiveUp();
}

void Connection::SendPrepared(const std::string &name, const std::vector<Argument> &arguments,
                              bool binary_result)
{
	EnterPipeline();
	busy_ = true;
	if (PQsendQueryPrepared(conn_, name.c_str(), Count(arguments), Values(arguments).data(),
	                        nullptr, nullptr, binary_result ? 1 : 0) == 0)
		GiveUp();
}

void Connection::Sync()
{
	EnterPipeline();
	busy_ = true;
	if (PQpipelineSync(conn_) == 0)
		GiveUp();
	++syncs_pending_;
	Flush();
}

void Connection::SyncLater()
{
	EnterPipeline();
	busy_ = true;
	if (PQpipelineSync(conn_) == 0)
		GiveUp();
	++syncs_pending_;
	if (PQflush(conn_) < 0)
		GiveUp();
}

void Connection::Flush()
{
	for (;;) {
		const int state = PQflush(conn_);
		if (state == 0)
			return;
		if (state < 0)
			GiveUp();
		// The server may be unable to take more until we have read what it sent.
		WaitFor(true, true);
		if (PQconsumeInput(conn_) == 0)
			GiveUp();
	}
}

void Connection::AwaitInput()
{
	while (PQisBusy(conn_) != 0) {
		const int unsent = PQflush(conn_);
		if (unsent < 0)
			GiveUp();
		WaitFor(true, unsent > 0);
		if (PQconsumeInput(conn_) == 0)
			GiveUp();
	}
}

Result Connection::Receive()
{
	AwaitInput();
	Result result(PQgetResult(conn_));
	if (result && PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC) {
		if (--syncs_pending_ == 0)
			busy_ = false;
	}
	// libpq reports a broken connection as one more error result, of its own making.
	if (PQstatus(conn_) != CONNECTION_OK)
		GiveUp();
	return result;
}

void Connection::Drain()
{
	while (syncs_pending_ > 0)
		Receive();
}

Result Connection::Execute(const std::string &sql, const std::vector<Argument> &arguments)
{
	Send(sql, arguments);
	Sync();
	Result answer;
	std::optional<Error> error;
	while (syncs_pending_ > 0) {
		Result result = Receive();
		switch (result ? PQresultStatus(result.get()) : PGRES_PIPELINE_SYNC) {
		case PGRES_PIPELINE_SYNC:
			break;
		case PGRES_FATAL_ERROR:
			if (!error)
				error = Error::FromResult(result.get());
			break;
		default:
			answer = std::move(result);
		}
	}
	if (error)
		throw *error;
	return answer;
}

Result Connection::ExecuteSimple(const std::string &sql)
{
	LeavePipeline();
	Conversation conversation(busy_);
	if (PQsendQuery(conn_, sql.c_str()) == 0)
		GiveUp();
	Flush();
	Result answer;
	std::optional<Error> error;
	for (;;) {
		AwaitInput();
		Result result(PQgetResult(conn_));
		if (PQstatus(conn_) != CONNECTION_OK)
			GiveUp();
		if (!result)
			break;
		switch (PQresultStatus(result.get())) {
		case PGRES_FATAL_ERROR:
			if (!error)
				error = Error::FromResult(result.get());
			break;
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
		case PGRES_COPY_BOTH:
			// Nobody here reads or feeds it, so the conversation cannot be finished.
			throw Error("0A000", "a COPY cannot be run as a statement");
		default:
			answer = std::move(result);
		}
	}
	conversation.Finished();
	if (error)
		throw *error;
	return answer;
}

void Connection::BeginCopy(const std::string &copy_statement)
{
	LeavePipeline();
	Conversation conversation(busy_);
	if (PQsendQuery(conn_, copy_statement.c_str()) == 0)
		GiveUp();
	Flush();
	AwaitInput();
	Result result(PQgetResult(conn_));
	const ExecStatusType status = PQresultStatus(result.get());
	if (status == PGRES_COPY_OUT || status == PGRES_COPY_IN) {
		conversation.Finished();
		return;
	}
	if (PQstatus(conn_) != CONNECTION_OK)
		GiveUp();
	Error error = Error::FromResult(result.get());
	while (Result(PQgetResult(conn_)))
		AwaitInput();
	conversation.Finished();
	throw error;
}

std::optional<std::string> Connection::ReceiveCopyData()
{
	Conversation conversation(busy_);
	for (;;) {
		char *data = nullptr;
		const int size = PQgetCopyData(conn_, &data, 1);
		if (size > 0) {
			std::string row(data, static_cast<std::size_t>(size));
			PQfreemem(data);
			conversation.Finished();
			return row;
		}
		if (size == 0) {
			WaitFor(true, false);
			if (PQconsumeInput(conn_) == 0)
				GiveUp();
			continue;
		}
		break;
	}
	EndCopyIn();
	return std::nullopt;
}

void Connection::SendCopyData(const char *data, std::size_t size)
{
	Conversation conversation(busy_);
	for (;;) {
		const int sent = PQputCopyData(conn_, data, static_cast<int>(size));
		if (sent == 1)
			break;
		if (sent < 0)
			GiveUp();
		Flush();
	}
	Flush();
	conversation.Finished();
}

void Connection::EndCopyIn()
{
	Conversation conversation(busy_);
	// After COPY TO there is nothing to end; libpq says so and the results follow all the same.
	while (PQputCopyEnd(conn_, nullptr) == 0)
		Flush();
	Flush();
	std::optional<Error> error;
	for (;;) {
		AwaitInput();
		Result result(PQgetResult(conn_));
		if (PQstatus(conn_) != CONNECTION_OK)
			GiveUp();
		if (!result)
			break;
		if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR && !error)
			error = Error::FromResult(result.get());
	}
	conversation.Finished();
	if (error)
		throw *error;
}

// libpq keeps an error to itself until we end the COPY. So we end it when something arrived that is no notice
// and nothing has followed for a while. Should the COPY turn out well then, it was cut short by us: that is an
// error too.
void Connection::WatchCopy(std::size_t notices_before)
{
	constexpr auto kQuiet = std::chrono::seconds(1);
	if (waiter_.Wait(PQsocket(conn_), true, false, milliseconds{0})) {
		copy_answered_ = Clock::now();
		if (PQconsumeInput(conn_) == 0)
			GiveUp();
	} else if (notices_.size() != notices_before) {
		copy_answered_.reset();
	} else if (copy_answered_ && Clock::now() - *copy_answered_ > kQuiet) {
		OfferCopyEnd();
		(void) ReceiveCopyEnd();
		busy_ = true;
		throw ConnectionLost("the connection stalled while the server was sending a message");
	}
}

bool Connection::OfferCopyData(const char *data, std::size_t size)
{
	busy_ = true;
	const std::size_t notices_before = notices_.size();
	// Takes in what has arrived of notices, too.
	if (PQputCopyData(conn_, data, static_cast<int>(size)) != 1)
		GiveUp();
	WatchCopy(notices_before);
	const int state = PQflush(conn_);
	if (state < 0)
		GiveUp();
	return state == 0;
}

void Connection::SendOffered()
{
	busy_ = true;
	Flush();
}

void Connection::OfferCopyEnd()
{
	busy_ = true;
	Flush();
	if (PQputCopyEnd(conn_, nullptr) != 1)
		GiveUp();
	Flush();
}

bool Connection::AbandonCopy() noexcept
{
	// If its end was sent already, there is only the answer left to be read.
	if (PQputCopyEnd(conn_, "the statement failed elsewhere") == 0 || PQflush(conn_) < 0)
		return false;
	copy_abandoned_ = true;
	busy_ = false;
	return true;
}

Result Connection::ReceiveCopyEnd()
{
	busy_ = true;
	Result answer;
	std::optional<Error> error;
	for (;;) {
		AwaitInput();
		Result result(PQgetResult(conn_));
		if (PQstatus(conn_) != CONNECTION_OK)
			GiveUp();
		if (!result)
			break;
		if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR) {
			if (!error)
				error = Error::FromResult(result.get());
		} else {
			answer = std::move(result);
		}
	}
	busy_ = false;
	copy_answered_.reset();
	if (error)
		throw *error;
	return answer;
}

}  // namespace homing::remote
