#include "core/gid.hpp"
#include "write/prepared_guard.hpp"

#include <algorithm>

#include "pg/apply_progress.hpp"
#include "pg/catalog.hpp"
#include "pg/debug_point.hpp"
#include "pg/settings.hpp"
#include "write/outcome_table.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
}

namespace homing::write {

namespace {

constexpr long kPatience = 10000;  // ms; then it is left to the region's worker

ProcessUtility_hook_type next_utility = nullptr;

// Whether the name is that of a part of this cluster; then `token` is that of the whole.
bool IsPart(const char *name, uint8 *token)
{
	return pg::PgEntry([&] {
		const std::optional<core::Gid> gid = core::ParseGid(name);
		const pg::Catalog *catalog = gid ? pg::CurrentCatalog() : nullptr;
		if (catalog == nullptr || catalog->cluster.compare(0, 8, gid->cluster) != 0)
			return false;
		std::copy(gid->token.bytes.begin(), gid->token.bytes.end(), token);
		return true;
	});
}

[[noreturn]] void Refuse(const char *command, const char *name, const char *why)
{
	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("cannot %s \"%s\": it is a part of a transaction over several regions", command,
	                name),
	         errdetail("%s", why),
	         errhint("It ends by itself when its coordinator can be reached; see homing.in_doubt. To decide "
	                 "about it by hand, use homing.resolve.")));
	pg_unreachable();
}

// Waits until the outcome is known here, at most `patience` ms.
KeptOutcome AwaitOutcome(const uint8 *token, long patience)
{
	const TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), patience);
	for (;;) {
		const uint64 since = pg::AppliedCount();
		const KeptOutcome kept = FindOutcome(token);
		const long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (kept.known || left <= 0)
			return kept;
		pg::AwaitApply(since, left);
	}
}

void CheckCommit(const char *name, uint8 *token)
{
	// The session that the coordinator uses comes with the decision on its heels.
	const bool forwarded = pg::settings.forwarded_from[0] != '\0';
	const KeptOutcome kept = AwaitOutcome(token, forwarded ? kPatience : 0);
	if (!kept.known)
		Refuse("COMMIT PREPARED", name, "The decision to commit it has not arrived in this region.");
	if (!kept.committed)
		Refuse("COMMIT PREPARED", name, "Its coordinator has decided to abort it.");
	pg::DebugPoint("finish-decision-arrived");
}

void CheckRollback(const char *name, uint8 *token)
{
	const KeptOutcome kept = FindOutcome(token);
	if (kept.known && kept.committed)
		Refuse("ROLLBACK PREPARED", name, "Its coordinator has decided to commit it.");
	// The coordinator aborts what it has not decided yet.
	if (!kept.known && pg::settings.forwarded_from[0] == '\0')
		Refuse("ROLLBACK PREPARED", name, "Its coordinator may still commit it.");
}

// The worker ends what bears such a name, by what the coordinator says of it.
void CheckPrepare(const char *name)
{
	if (pg::settings.forwarded_from[0] != '\0')
		return;
	ereport(ERROR, (errcode(ERRCODE_RESERVED_NAME),
	                errmsg("cannot PREPARE TRANSACTION \"%s\": the name is reserved", name),
	                errdetail("It is that of a part of a transaction over several regions."),
	                errhint("Choose a name that does not begin with \"homing:\".")));
}

void Guard(PlannedStmt *statement, const char *text, bool read_only_tree,
           ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
           DestReceiver *receiver, QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, TransactionStmt)) {
		auto *transaction = reinterpret_cast<TransactionStmt *>(statement->utilityStmt);
		const bool commit = transaction->kind == TRANS_STMT_COMMIT_PREPARED;
		uint8 token[sizeof(core::OutcomeToken)];
		const bool named = commit || transaction->kind == TRANS_STMT_ROLLBACK_PREPARED ||
		                   transaction->kind == TRANS_STMT_PREPARE;
		if (named && IsPart(transaction->gid, token)) {
			if (commit)
				CheckCommit(transaction->gid, token);
			else if (transaction->kind == TRANS_STMT_PREPARE)
				CheckPrepare(transaction->gid);
			else
				CheckRollback(transaction->gid, token);
		}
	}
	if (next_utility != nullptr)
		next_utility(statement, text, read_only_tree, context, params, environment, receiver,
		             completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params, environment,
		                        receiver, completion);
}

}  // namespace

void RegisterPreparedGuard()
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = Guard;
}

}  // namespace homing::write
