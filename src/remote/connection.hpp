// One libpq connection to a region, never blocking in libpq.
//
// Waiting is injected: a backend waits on its latch and may throw out of Wait when it is cancelled;
// tests poll. A connection from which an exception escaped in the middle of a conversation is
// Broken() and is only good for closing, or for calling Receive again: nothing that has arrived is lost.
// PQcancel is never used, because it can hang on a link that went silent.
#pragma once

#include "remote/connecting.hpp"
#include "remote/error.hpp"

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace homing::remote {

class Waiter {
public:
	virtual ~Waiter() = default;
	// Returns false when `timeout` passed (negative: waits for ever). May throw to give up.
	virtual bool Wait(int socket, bool for_read, bool for_write,
	                  std::chrono::milliseconds timeout) = 0;
	// The same for a socket that was announced by Opened and is still open: cheaper, as it is waited for often.
	virtual bool WaitAgain(int socket, bool for_read, bool for_write,
	                       std::chrono::milliseconds timeout)
	{
		return Wait(socket, for_read, for_write, timeout);
	}
	virtual void Opened(int) {}
	virtual void Closed(int) noexcept {}  // perhaps long ago
};

struct FreeResult {
	void operator()(PGresult *result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, FreeResult>;

// One text argument of a statement; nothing: NULL. `type` 0 leaves the type to the remote parser.
struct Argument {
	std::optional<std::string> text;
	unsigned int type = 0;
};

// Thrown when a pause has come, see SetPause.
struct NotYet {};

class Connection {
public:
	// Throws CannotConnect when the server cannot be reached or refuses within `timeout`.
	Connection(const ConnectionOptions &options, Waiter &waiter, std::chrono::milliseconds timeout);
	// Requires: it is done.
	Connection(Connecting made, Waiter &waiter);
	// The same of one that is not done yet.
	Connection(Connecting begun, Waiter &waiter, std::chrono::milliseconds timeout);
	~Connection();
	Connection(const Connection &) = delete;
	Connection &operator=(const Connection &) = delete;

	// --- statements, pipelined: everything sent up to Sync travels in one flush -----------------
	void Send(const std::string &sql, const std::vector<Argument> &arguments = {},
	          bool binary_result = false);
	// Prepares a statement under the name, with the types of these arguments; answers with a result of its own.
	void Prepare(const std::string &name, const std::string &sql,
	             const std::vector<Argument> &arguments);
	void SendPrepared(const std::string &name, const std::vector<Argument> &arguments,
	                  bool binary_result = false);
	// Ends the group: the server commits here when no transaction block is open. Flushes.
	void Sync();
	// The same without waiting: what does not go out now does so with the next Receive.
	void SyncLater();
	// The next result: one or more per Send, then an empty one, and a PGRES_PIPELINE_SYNC for a Sync.
	// Errors of the server come as results. Throws ConnectionLost.
	Result Receive();
	// Whether a Sync was sent whose answer has not been received.
	bool AwaitsSync() const { return syncs_pending_ > 0; }
	// Reads and drops everything up to the last Sync sent.
	void Drain();

	// --- the simple way: Send, Sync, everything received; throws the server's Error -------------
	Result Execute(const std::string &sql, const std::vector<Argument> &arguments = {});
	// The same over the simple protocol, the only one that a replication connection speaks.
	Result ExecuteSimple(const std::string &sql);

	// --- COPY, outside the pipeline ---------------------------------------------------------------
	void BeginCopy(const std::string &copy_statement);  // COPY … TO STDOUT or FROM STDIN
	std::optional<std::string> ReceiveCopyData();       // nothing: the end, and the server agreed
	void SendCopyData(const char *data, std::size_t size);
	void EndCopyIn();  // throws the server's Error
	// For several COPYs at a time. The connection is Broken() from the first to the last of these calls.
	// Never waits; false: not all of it has been sent. Throws the error that ended the COPY over there, soon
	// after it did.
	bool OfferCopyData(const char *data, std::size_t size);
	void SendOffered();       // waits until all of it has been sent
	void OfferCopyEnd();      // waits until it has been sent
	Result ReceiveCopyEnd();  // throws the server's Error
	// Ends a COPY so that it fails. Does not wait: its answer is read before the next thing is sent. False: it
	// cannot be ended without waiting.
	bool AbandonCopy() noexcept;
	bool HasAbandonedCopy() const { return copy_abandoned_; }

	// From now on waiting beyond this moment throws ConnectionLost, and the connection is given up. Nothing:
	// waits for ever.
	void SetDeadline(std::optional<std::chrono::steady_clock::time_point> deadline)
	{
		deadline_ = deadline;
		patient_ = false;
	}
	// From now on waiting beyond this moment throws NotYet, and can be taken up again.
	void SetPause(std::chrono::steady_clock::time_point pause)
	{
		deadline_ = pause;
		patient_ = true;
	}

	// Notices since the last call, in order of arrival.
	std::vector<Error> TakeNotices();

	bool Broken() const;  // lost, or left in the middle of a conversation
	// Lost, or given up after the deadline: no answer will come any more.
	bool Lost() const { return lost_ || PQstatus(conn_) != CONNECTION_OK; }
	// Looks, without waiting, whether the server has closed the idle connection meanwhile.
	bool StillThere();
	bool UsedPassword() const { return PQconnectionUsedPassword(conn_) != 0; }
	std::string User() const { return PQuser(conn_); }
	int BackendPid() const { return PQbackendPID(conn_); }
	// What the server reported last of a parameter; empty: nothing.
	std::string Parameter(const char *name) const
	{
		const char *value = PQparameterStatus(conn_, name);
		return value != nullptr ? value : "";
	}
	PGTransactionStatusType TransactionStatus() const { return PQtransactionStatus(conn_); }
	const PGconn *get() const { return conn_; }

private:
	void EnterPipeline();
	void LeavePipeline();
	void WatchCopy(std::size_t notices_before);
	void Flush();
	void AwaitInput();
	void WaitFor(bool for_read, bool for_write);
	[[noreturn]] void GiveUp();
	static void OnNotice(void *self, const PGresult *result);

	PGconn *conn_ = nullptr;
	Waiter &waiter_;
	int socket_ = -1;  // that the waiter knows of
	std::optional<std::chrono::steady_clock::time_point> deadline_;
	bool patient_ = false;  // the deadline only ends a wait, not the connection
	std::vector<Error> notices_;
	int syncs_pending_ = 0;  // Syncs sent whose PGRES_PIPELINE_SYNC has not been received
	bool lost_ = false;
	// Since when the server has said something in a COPY that libpq does not understand yet: the end of a
	// notice is on its way, or it is the error that ended the COPY.
	std::optional<std::chrono::steady_clock::time_point> copy_answered_;
	bool copy_abandoned_ = false;
	bool busy_ = false;  // set while a call is inside a conversation; stays set when it throws
};

}  // namespace homing::remote
