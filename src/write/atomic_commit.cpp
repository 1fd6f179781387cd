#include "core/gid.hpp"
#include "write/atomic_commit.hpp"

#include <chrono>
#include <string>

#include "pg/boundary.hpp"
#include "pg/catalog.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"
#include "write/outcome.hpp"
#include "write/outcome_table.hpp"
#include "write/read_consistency.hpp"

extern "C" {
#include "miscadmin.h"
}

namespace homing::write {

namespace {

// Of the transaction that is being committed. Kept across transactions, so that nothing is allocated after
// the commit record.
struct Part {
	RegionSession *session;
	core::OutcomeToken token;
};

std::vector<Part> *prepared = nullptr;

core::Gid NewGid()
{
	static std::uint64_t counter = 0;
	const pg::Catalog *catalog = pg::CurrentCatalog();
	core::Gid gid;
	gid.cluster = catalog->cluster.substr(0, 8);
	gid.coordinator = catalog->map.here();
	gid.epoch = catalog->map.epoch();
	gid.database = MyDatabaseId;
	gid.pid = MyProcPid;
	gid.counter = ++counter;
	const char *user = pg::PgCall([] { return GetUserNameFromId(GetSessionUserId(), false); });
	gid.token = NewToken(gid.coordinator, user);
	return gid;
}

// The decision names the parts, so that survivors know which of them a lost region took along.
void KeepDecisionOf(const core::OutcomeToken &decision)
{
	std::vector<std::uint8_t> tokens;
	for (const Part &part : *prepared)
		tokens.insert(tokens.end(), part.token.bytes.begin(), part.token.bytes.end());
	const std::uint8_t *token = decision.bytes.data(), *parts = tokens.data();
	const int count = static_cast<int>(prepared->size());
	pg::PgCall([&] { KeepDecision(token, parts, count); });
}

}  // namespace

void CheckCanPrepare(const RegionSession &session)
{
	if (session.PreparedLimit() != 0)
		return;
	remote::Error error("55000", "cannot write at region \"" + session.name() +
	                                 "\" and at another one in one transaction");
	error.detail = "To commit at both or at none, region \"" + session.name() +
	               "\" must prepare its part, but max_prepared_transactions is 0 there.";
	error.hint =
		"Set max_prepared_transactions there to a value as high as max_connections and restart it, or commit "
		"in between.";
	throw error;
}

void PrepareEverywhere(const std::vector<RegionSession *> &writers)
{
	if (prepared == nullptr)
		prepared = new std::vector<Part>;
	prepared->clear();
	prepared->reserve(writers.size());
	for (const RegionSession *session : writers)
		CheckCanPrepare(*session);

	core::Gid gid = NewGid();
	pg::DebugPoint("atomic-before-prepare");
	for (RegionSession *session : writers) {
		const core::RegionId region = session->place().region;
		gid.part = std::to_string(region.value) + "." + std::to_string(prepared->size());
		const core::OutcomeToken token = NewToken(region, session->User());
		prepared->push_back({session, token});
		NeedPart(region, token);
		session->PostPrepare(gid.Text(), token);
		pg::DebugPoint("atomic-between-prepares");
	}
	KeepDecisionOf(gid.token);
	for (RegionSession *session : writers)
		(void) session->Receive();
	pg::DebugPoint("atomic-before-decision");
	for (const RegionSession *session : writers) {
		// What a lost region had prepared is lost with it.
		if (IsLost(session->place().region))
			throw NotCommitted(session->name(), "the region was declared lost");
	}
}

void FinishEverywhere() noexcept
{
	if (prepared == nullptr || prepared->empty())
		return;
	pg::DebugPoint("atomic-after-decision");
	for (const Part &part : *prepared)
		part.session->Finish();
	pg::DebugPoint("atomic-finish-sent");
	if (pg::settings.wait_second_phase) {
		const auto deadline = std::chrono::steady_clock::now() +
		                      std::chrono::milliseconds(pg::settings.outcome_timeout_ms);
		for (const Part &part : *prepared) {
			if (!part.session->AwaitFinished(deadline))
				ereport(WARNING,
				        (errmsg("region \"%s\" has not committed its part of the transaction yet",
				                part.session->name().c_str()),
				         errdetail(
							 "The transaction is committed in this region and will be there.")));
		}
		// It was meant for the wait.
		QueryCancelPending = false;
	}
	prepared->clear();
}

void ForgetPrepared() noexcept
{
	if (prepared == nullptr)
		return;
	for (const Part &part : *prepared)
		ForgetPart(part.session->place().region, part.token);
	prepared->clear();
}

}  // namespace homing::write
