// A session at another region in which this session's forwarded statements run.
//
// The remote transaction follows ours: it begins with the first forwarded statement, has a savepoint for
// every subtransaction of ours in which something was forwarded, and its commands travel with the next
// statement, in one flush, never in a round trip of their own.
//
// A cancel here (statement_timeout too) is passed on over a second connection, and then the answer is
// waited for, for homing.outcome_timeout: a statement that was cancelled there has failed in a transaction
// that is still known, and a commit that was past cancelling is a commit.
#pragma once

#include "core/ids.hpp"
#include "core/outcome_token.hpp"
#include "core/statement_cache.hpp"
#include "remote/connection.hpp"

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pg/credentials.hpp"
#include "pg/forward_stats.hpp"
#include "pg/session_slots.hpp"
#include "pg/waiter.hpp"

namespace homing::write {

// Where a session is, and who is there.
struct Place {
	core::RegionId region;
	std::string name;
	core::Epoch epoch;  // of the map that the connection was made under
	Oid server = InvalidOid;
	Oid user = InvalidOid;
};

struct RemoteStatement {
	std::string sql;
	std::vector<remote::Argument> arguments;
	bool binary_result = false;
	bool reads = false;  // homed rows, besides those that it writes
};

// A transaction that has committed at a region.
struct CommitPoint {
	core::OutcomeToken token;
	std::uint64_t position = 0;  // end of its commit record in that region's WAL
	std::uint64_t rows = 0;      // of RunAlone when the answer was lost
};

class RegionSession {
public:
	RegionSession(Place place, pg::SessionSlot slot, pg::RegionConnection connection,
	              pg::LatchWaiter &waiter);

	// Sends the statement into the remote transaction, which is begun or brought to our nesting level first.
	// Its answer is received with Receive, before anything else is sent.
	void Post(const RemoteStatement &statement, int nest_level);
	// Throws the remote error, or ConnectionLost: then nothing of the transaction is committed.
	remote::Result Receive();

	// Runs the statement as a transaction of its own: one round trip, and it is committed on return. The
	// result is empty when the connection was lost and the commit was learned of in another way.
	// Throws the remote error or NotCommitted (not committed), or OutcomeUnknown.
	remote::Result RunAlone(const RemoteStatement &statement, CommitPoint *commit);
	// Commits the remote transaction; throws as RunAlone does.
	void Commit(CommitPoint *commit);

	// As whom it runs at the region.
	std::string User() const { return connection_->User(); }

	// Sends PREPARE TRANSACTION; `part` names the remote transaction. Receive takes the answer: then the part
	// waits for the decision, or for Rollback.
	void PostPrepare(const std::string &gid, const core::OutcomeToken &part);
	// Lets the region commit the prepared part once the decision has arrived there. Waits for nothing.
	void Finish() noexcept;
	// Whether the region has done it, as far as it says so before `deadline`. A cancel ends the wait too.
	bool AwaitFinished(std::chrono::steady_clock::time_point deadline) noexcept;

	// COPY … FROM STDIN in the remote transaction: Begin, any number of Offer, End, Finish. An exception that
	// leaves a COPY unfinished leaves the session Lost.
	void BeginCopy(const std::string &sql, int nest_level);
	bool OfferCopy(const std::string &data);  // never waits; false: the connection is full
	void SendOffered();
	void EndCopy();  // sent, not answered yet
	remote::Result FinishCopy();

	void Rollback() noexcept;  // never waits for an answer
	void EndSubtransaction(bool commit, int nest_level);

	bool InTransaction() const { return level_ > 0 || !prepared_.empty(); }
	// Whether a write was forwarded in the remote transaction that is not undone.
	bool Wrote() const { return written_level_ > 0; }
	void MarkWritten(int nest_level);
	// max_prepared_transactions there; -1 before the first answer.
	int PreparedLimit() const { return prepared_limit_; }
	// The remote transaction was lost while ours goes on: it can only be rolled back.
	bool Lost() const { return InTransaction() && Dead(); }
	// Good for closing only.
	bool Dead() const { return copying_ || connection_->Lost(); }
	// Outside a transaction: a further one can run here. Does not wait.
	bool Usable() { return !Dead() && (!expected_.empty() || connection_->StillThere()); }
	// Whether it is to be closed between two transactions: somebody waits for its place.
	bool Wanted() const { return slot_.Wanted(); }
	// When something was last sent.
	std::chrono::steady_clock::time_point LastUse() const { return meter_.LastSent(); }
	const Place &place() const { return place_; }
	const std::string &name() const { return place_.name; }
	int RemotePid() const { return connection_->BackendPid(); }

private:
	// What an answer that is still to come is for.
	enum class Answer {
		kCommand,    // counts as failed when it fails
		kStatement,  // its result is wanted
		kGreeting,
		kFinish,   // of committing a prepared part; if it fails, the region's worker does it
		kDropped,  // nobody cares
		kSync,     // an error here is that of the commit which a Sync outside a block is
		kDroppedSync
	};
	struct Expected {
		Answer purpose;
		int prepares = 0, executes = 0, drops = 0;  // number of a prepared statement; 0: none
	};
	static bool IsSync(Answer answer)
	{
		return answer == Answer::kSync || answer == Answer::kDroppedSync;
	}

	void CheckSize(const std::string &sql, const std::vector<remote::Argument> &arguments) const;
	void Send(Answer purpose, const std::string &sql,
	          const std::vector<remote::Argument> &arguments = {}, bool binary_result = false);
	// For what may come again: it is prepared over there when it does.
	void SendReusable(Answer purpose, const std::string &sql,
	                  const std::vector<remote::Argument> &arguments, bool binary_result = false);
	void Sync(pg::Forwarded time = pg::Forwarded::kExecuteTime);
	void TakeEarly();
	void SyncLater(Answer purpose = Answer::kSync);
	void QueueGreeting();
	void QueueSettings();
	void QueueBegin();
	void QueuePending();
	void QueueConstraints();
	void QueueOutcome(const core::OutcomeToken &token);
	remote::Result RunOnce(const RemoteStatement &statement, CommitPoint *commit);
	remote::Result Settle(CommitPoint *commit, pg::Forwarded time);
	std::uint64_t AskPosition();
	// What answers brought so far.
	struct Taken {
		remote::Result wanted;
		std::optional<remote::Error> error;
	};

	void Take(remote::Result result, Taken *taken);
	void TakePrepared(const Expected &expected, const PGresult *result);
	remote::Result Collect();
	remote::Result CollectAll();
	void DropAnswers(int nest_level = 0) noexcept;
	void Ended()
	{
		level_ = written_level_ = 0;
		slot_.Idle();
	}
	remote::Result NextAnswer(pg::CancelMode &mode);
	void PassOnCancel(pg::CancelMode &mode);
	void RaiseCancel();
	void ReportNotices();
	void EnterTransaction(int nest_level);
	std::string NeedsOf() const;
	void QueueNeeds(const RemoteStatement &statement);
	void AwaitNeeds();
	template <typename Body>
	auto InCopy(const Body &body) -> decltype(body());
	void AddContext(remote::Error &error) const;

	Place place_;
	pg::SessionSlot slot_;  // freed after the connection is closed
	pg::RegionConnection connection_;
	pg::ForwardMeter meter_;
	pg::LatchWaiter &waiter_;
	int level_ = 0;          // nesting level of the remote transaction; 0: none
	int written_level_ = 0;  // lowest nesting level of a write in it; 0: none
	std::string prepared_;   // name of the part that we have asked to prepare; empty: none
	int prepared_limit_ = -1;
	bool finish_failed_ = false;  // of the last Finish
	int awaited_ = 0;  // nesting level of a statement whose answer is still to be received; 0: none
	// Answers that came before they were asked for, with the statement's level, the newest last.
	std::vector<std::pair<int, remote::Result>> early_;
	bool copying_ = false;           // between the begin and the end of a COPY
	bool cancelled_ = false;         // while answers are awaited: our user cancelled, and they know
	std::deque<Expected> expected_;  // answers to what was sent, in order
	core::StatementCache prepared_statements_;
	bool stale_ = false;  // the failed statement was prepared, and cannot be used any more
	std::vector<std::string> pending_;  // transaction commands that go out with the next statement
	std::map<std::string, std::string> settings_;  // values the remote session has
	std::size_t constraints_set_ = 0;     // of SetConstraintsText, in the remote transaction
	std::uint64_t settings_version_ = 0;  // of CurrentSettings, when it had all of them
};

}  // namespace homing::write
