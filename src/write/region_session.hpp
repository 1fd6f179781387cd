// A session at another region in which this session's forwarded statements run.
//
// The remote transaction follows ours: it begins with the first forwarded statement, has a savepoint for
// every subtransaction of ours in which something was forwarded, and its commands travel with the next
// statement, in one flush, never in a round trip of their own.
#pragma once

#include "core/ids.hpp"
#include "remote/connection.hpp"

#include <map>
#include <string>
#include <vector>

#include "pg/credentials.hpp"

namespace homing::write {

struct RemoteStatement {
	std::string sql;
	std::vector<remote::Argument> arguments;
	bool binary_result = false;
};

class RegionSession {
public:
	RegionSession(core::RegionId region, std::string name, core::Epoch epoch, pg::RegionConnection connection);

	// Sends the statement into the remote transaction, which is begun or brought to our nesting level first.
	// Its answer is received with Receive, before anything else is sent.
	void Post(const RemoteStatement &statement, int nest_level);
	// Throws the remote error, or ConnectionLost: then nothing of the transaction is committed.
	remote::Result Receive() { return Collect(); }
	// Runs the statement as a transaction of its own: one round trip, and it is committed on return.
	// Throws the remote error (not committed); OutcomeUnknown when the connection was lost meanwhile.
	remote::Result RunAlone(const RemoteStatement &statement);

	// COPY … FROM STDIN in the remote transaction: Begin, any number of Offer, End, Finish. An exception that
	// leaves a COPY unfinished leaves the session Lost.
	void BeginCopy(const std::string &sql, int nest_level);
	bool OfferCopy(const std::string &data);  // never waits; false: the connection is full
	void SendOffered();
	void EndCopy();                           // sent, not answered yet
	remote::Result FinishCopy();

	void Commit();                        // throws as RunAlone does
	void Rollback() noexcept;             // never waits for an answer
	void EndSubtransaction(bool commit, int nest_level);

	bool InTransaction() const { return level_ > 0; }
	// The remote transaction was lost while ours goes on: it can only be rolled back.
	bool Lost() const { return level_ > 0 && connection_->Broken(); }
	bool Usable() const { return !connection_->Broken(); }
	core::RegionId region() const { return region_; }
	core::Epoch epoch() const { return epoch_; }
	const std::string &name() const { return name_; }
	int RemotePid() const { return connection_->BackendPid(); }

private:
	void QueueSettings();
	void QueueBegin();
	void QueuePending();
	remote::Result Settle(bool explicitly, bool wants_result);
	remote::Result Collect(int skipped = 0);
	void ReportNotices();
	void EnterTransaction(int nest_level);
	template <typename Body>
	auto AtHome(const Body &body) -> decltype(body());

	core::RegionId region_;
	std::string name_;
	core::Epoch epoch_;
	pg::RegionConnection connection_;
	int level_ = 0;                      // nesting level of the remote transaction; 0: none
	std::vector<std::string> pending_;   // transaction commands that go out with the next statement
	std::map<std::string, std::string> settings_;  // values the remote session has
};

// The connection went away while a commit was under way: 08007.
class OutcomeUnknown : public remote::Error {
public:
	OutcomeUnknown(const std::string &region, const std::string &reason);
};

}  // namespace homing::write
