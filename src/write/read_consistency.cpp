#include "write/read_consistency.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

#include "pg/apply_progress.hpp"
#include "pg/catalog.hpp"
#include "pg/deadlock_victim.hpp"
#include "pg/forward_stats.hpp"
#include "pg/settings.hpp"
#include "write/outcome_table.hpp"
#include "write/beside_key.hpp"
#include "write/causal_token.hpp"
#include "write/execute_here.hpp"
#include "write/modify_node.hpp"
#include "write/read_node.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace homing::write {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// A loss of the region is noticed this late while we wait for it.
constexpr long kLookAgain = 1000;  // ms

core::CausalState *needed = nullptr;
ExecutorStart_hook_type next_start = nullptr;
ProcessUtility_hook_type next_utility = nullptr;

bool AnythingNeeded()
{
	return needed != nullptr && !needed->Empty() &&
	       pg::settings.read_consistency != pg::kReadEventual;
}

// --- whether it has arrived -----------------------------------------------------------------------------

// Where the stream of a lost region ended; 0: not known.
uint64 FinalPosition(int16 region)
{
	Oid types[] = {INT2OID};
	Datum values[] = {Int16GetDatum(region)};
	bool isnull = true;
	uint64 position = 0;
	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT homing._final_position($1)", 1, types, values, nullptr, false,
	                          1) == SPI_OK_SELECT &&
	    SPI_processed == 1) {
		const Datum lsn = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
			position = DatumGetLSN(lsn);
	}
	PopActiveSnapshot();
	SPI_finish();
	return position;
}

[[noreturn]] void RefuseLost(const std::string &region)
{
	remote::Error error("55000", "cannot read what was committed at region \"" + region +
	                                 "\": it was lost with the region");
	error.hint = "The session forgets it with this error. Read again to see what survived.";
	throw error;
}

// Nothing: it was lost with the region.
std::optional<bool> HasArrived(core::RegionId region, const core::CausalState::Needed &what)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr || region == catalog->map.here())
		return true;
	const core::Region *known = catalog->map.FindRegion(region);
	const bool lost = (known == nullptr || known->status == core::RegionStatus::kLost) &&
	                  catalog->HasEndOf(region);
	for (const core::OutcomeToken &part : what.parts) {
		if (!PartHasArrived(part))
			return lost ? std::nullopt : std::optional<bool>(false);
	}
	if (what.position == 0)
		return true;
	if (lost) {
		const std::uint64_t end = pg::PgCall([&] { return FinalPosition(region.value); });
		return what.position <= end ? std::optional<bool>(true) : std::nullopt;
	}
	const Oid subscription = StreamFrom(region);
	return OidIsValid(subscription) &&
	       pg::PgCall([&] { return pg::IsApplied(subscription, what.position); });
}

std::string RegionName(core::RegionId region)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	return catalog != nullptr ? catalog->RegionName(region) : "unknown";
}

// Waits until all of it has arrived; what has is taken out of `state`. False: the time is over.
bool AwaitArrival(core::CausalState &state, milliseconds patience)
{
	const auto deadline = Clock::now() + patience;
	while (!state.Empty()) {
		const std::uint64_t since = pg::AppliedCount();
		const core::RegionId region = state.needed().begin()->first;
		const std::optional<bool> arrived = HasArrived(region, state.needed().begin()->second);
		if (!arrived) {
			state.Forget(region);
			ForgetTold(region);
			RefuseLost(RegionName(region));
		}
		if (*arrived) {
			state.Forget(region);
			continue;
		}
		const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
		if (left <= 0)
			return false;
		pg::PgCall([&] { pg::AwaitApply(since, std::min(static_cast<long>(left), kLookAgain)); });
	}
	return true;
}

// Of several regions, the first one gets the time.
void CountWait(core::RegionId region, Clock::time_point begin, bool timed_out)
{
	pg::ForwardCounters *counters = pg::CountersOf(region);
	pg::Count(counters, pg::Forwarded::kReadWaits);
	pg::CountSince(counters, pg::Forwarded::kReadWaitTime, begin);
	if (timed_out)
		pg::Count(counters, pg::Forwarded::kReadTimeouts);
}

void AwaitNeeded()
{
	const core::RegionId awaited = needed->needed().begin()->first;
	const auto begin = Clock::now();
	if (AwaitArrival(*needed, milliseconds(pg::settings.read_timeout_ms))) {
		CountWait(awaited, begin, false);
		return;
	}
	CountWait(awaited, begin, true);
	remote::Error error("55P03", "could not read what the session has committed at region \"" +
	                                 RegionName(needed->needed().begin()->first) + "\" in time");
	error.detail = "It has not been applied in this region within homing.read_timeout.";
	error.hint =
		"Try again, raise homing.read_timeout, or set homing.read_consistency to 'eventual' to read what is here.";
	throw error;
}

// --- reads: plain server code ------------------------------------------------------------------------------

// The transaction's one snapshot was taken before we could wait. It will do if all had arrived by then, which
// only tokens can tell.
[[noreturn]] void RefuseOldSnapshot()
{
	ereport(ERROR,
	        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
	         errmsg("could not read what the session has committed at another region"),
	         errdetail(
				 "The transaction's snapshot was taken before that had arrived in this region."),
	         errhint("Try the transaction again.")));
	pg_unreachable();
}

bool ReadsHomedTable(const PlannedStmt *statement)
{
	return pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr || catalog->tables.empty())
			return false;
		int index = 0;
		ListCell *cell;
		foreach (cell, statement->rtable) {
			++index;
			auto *entry = lfirst_node(RangeTblEntry, cell);
			// What a write changes is read where it is at home. The row in ON CONFLICT that is not inserted
			// looks like a relation, too.
			if (entry->rtekind != RTE_RELATION || entry->relkind == RELKIND_COMPOSITE_TYPE ||
			    list_member_int(statement->resultRelations, index))
				continue;
			if (catalog->Find(entry->relid) != nullptr)
				return true;
		}
		return false;
	});
}

void RenewSnapshot(QueryDesc *query)
{
	if (query->snapshot == nullptr || query->snapshot == InvalidSnapshot)
		return;
	const CommandId command = query->snapshot->curcid;
	Snapshot fresh = RegisterSnapshot(GetLatestSnapshot());
	fresh->curcid = command;
	UnregisterSnapshot(query->snapshot);
	query->snapshot = fresh;
}

void WaitBeforeRead(QueryDesc *query)
{
	if (IsolationUsesXactSnapshot() && FirstSnapshotSet)
		RefuseOldSnapshot();
	pg::PgEntry([] { AwaitNeeded(); });
	RenewSnapshot(query);
}

// The regions that have rows of this transaction which are not yet here. None, when what it reads does not
// depend on it.
WritePlaces HiddenWrites()
{
	if (pg::settings.read_consistency == pg::kReadEventual ||
	    pg::settings.forwarded_from[0] != '\0' || InsideServedWrite())
		return {0, {}, false};
	return WhereWritten();
}

constexpr const char *kReadsHere =
	"The transaction has written at another region, and the statement writes a table that has no homes.";

constexpr const char *kReadsAtHome =
	"With homing.read_consistency = home, rows are read at their home.";

bool ReadsAtHome()
{
	return pg::settings.read_consistency == pg::kReadHome && !InsideServedWrite();
}

// A write of tables that have no home is executed here, and reads here.
void CheckReadsOfPlainWrite(const PlannedStmt *statement)
{
	const bool writes = statement->commandType != CMD_SELECT || statement->hasModifyingCTE;
	if (!writes || WritesByHome(statement))
		return;
	const bool at_home = ReadsAtHome();
	if ((at_home || HiddenWrites().elsewhere > 0) && ReadsHomedTable(statement))
		RefusePlace(at_home ? kReadsAtHome : kReadsHere, "It would read homed tables here as well.");
}

// A read that must not be answered from what is here runs elsewhere. Returns whether its place is settled.
//
// For another region, a read at the home looks again whether that is here: it may have moved.
bool SettlePlace(QueryDesc *query)
{
	const bool at_home = ReadsAtHome();
	if (pg::settings.read_consistency == pg::kReadEventual || query->operation != CMD_SELECT ||
	    (pg::settings.forwarded_from[0] != '\0' && !at_home) || InsideServedWrite())
		return false;
	const WritePlaces written = WhereWritten();
	if (written.elsewhere == 0 && !at_home)
		return false;
	Query *attached = AttachedQuery(query->plannedstmt);
	if (attached == nullptr)
		return false;
	ReadPlace place{false, written.region, false};
	if (at_home)
		place = PlaceOfRead(attached, query->params, kReadsAtHome, true);
	else if (written.elsewhere > 1 || written.here)
		place = PlaceOfRead(attached, query->params,
		                    "The transaction has written at several regions.", false);
	if (!place.here)
		ReadAt(place.region, query);
	else if (place.outdated)
		RenewSnapshot(query);
	return at_home || !place.here;
}

[[gnu::noinline]] void LookAtReads(QueryDesc *query, int flags)
{
	if ((flags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
		CheckReadsOfPlainWrite(query->plannedstmt);
	if (!SettlePlace(query) && AnythingNeeded() && (flags & EXEC_FLAG_EXPLAIN_ONLY) == 0 &&
	    ReadsHomedTable(query->plannedstmt))
		WaitBeforeRead(query);
}

[[gnu::hot]] void StartAfterWaiting(QueryDesc *query, int flags)
{
	pg::WatchForDeadlock();
	// What all statements run past is short.
	if (pg::settings.read_consistency == pg::kReadHome || AnythingNeeded() || WroteElsewhere())
		LookAtReads(query, flags);
	if (next_start != nullptr)
		next_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

bool CopiesFromHomedTable(const Node *statement)
{
	if (!IsA(statement, CopyStmt))
		return false;
	auto *copy = reinterpret_cast<const CopyStmt *>(statement);
	if (copy->is_from || copy->relation == nullptr)
		return false;
	const Oid relid = RangeVarGetRelid(copy->relation, NoLock, true);
	return OidIsValid(relid) && pg::PgEntry([&] {
			   const pg::Catalog *catalog = pg::CurrentCatalog();
			   return catalog != nullptr && catalog->Find(relid) != nullptr;
		   });
}

void UtilityAfterWaiting(PlannedStmt *statement, const char *text, bool read_only_tree,
                         ProcessUtilityContext context, ParamListInfo params,
                         QueryEnvironment *environment, DestReceiver *receiver,
                         QueryCompletion *completion)
{
	pg::WatchForDeadlock();
	const bool needed_now = AnythingNeeded();
	const bool copies = CopiesFromHomedTable(statement->utilityStmt);
	bool pushed = false;
	const bool at_home = copies && ReadsAtHome();
	if (copies && (at_home || HiddenWrites().elsewhere > 0))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("cannot copy from a homed table now"),
		                errdetail("%s", at_home ? kReadsAtHome
		                                        : "The transaction has written at another region."),
		                errhint("Use COPY (SELECT ...) TO, or commit before.")));
	if (needed_now && copies) {
		if (IsolationUsesXactSnapshot() && FirstSnapshotSet)
			RefuseOldSnapshot();
		pg::PgEntry([] { AwaitNeeded(); });
		PushActiveSnapshot(GetLatestSnapshot());
		pushed = true;
	}
	const bool begins = IsA(statement->utilityStmt, TransactionStmt) ||
	                    IsA(statement->utilityStmt, VariableSetStmt);
	if (next_utility != nullptr)
		next_utility(statement, text, read_only_tree, context, params, environment, receiver,
		             completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params, environment,
		                        receiver, completion);
	if (pushed)
		PopActiveSnapshot();
	// BEGIN or SET TRANSACTION has chosen one snapshot for all: it is not taken before all has arrived.
	if (needed_now && begins && IsTransactionState() && IsolationUsesXactSnapshot() &&
	    !FirstSnapshotSet)
		pg::PgEntry([] { AwaitNeeded(); });
}

}  // namespace

Oid StreamFrom(core::RegionId region)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const std::string stream = "homing_" + catalog->cluster.substr(0, 8) + "_" +
	                           std::to_string(region.value) + "_" +
	                           std::to_string(catalog->map.here().value);
	return pg::PgCall([&] { return pg::SubscriptionOfThisDatabase(stream.c_str()); });
}

bool PartHasArrived(const core::OutcomeToken &part)
{
	const KeptOutcome kept = pg::PgCall([&] { return FindOutcome(part.bytes.data()); });
	const auto now = static_cast<std::int64_t>(timestamptz_to_time_t(GetCurrentTimestamp()));
	return kept.known || core::IsForgettable(part, now);
}

bool AwaitTold(const core::CausalState &state, std::chrono::milliseconds patience)
{
	core::CausalState awaited = state;
	const bool arrived = AwaitArrival(awaited, patience);
	// A snapshot that the transaction has taken may be older than what has arrived.
	if (!arrived || IsolationUsesXactSnapshot()) {
		if (needed == nullptr)
			needed = new core::CausalState;
		needed->Merge(state);
	}
	return arrived;
}

bool AwaitOwnCommits()
{
	return AnythingNeeded() && AwaitArrival(*needed, milliseconds(pg::settings.read_timeout_ms));
}

void NeedCommit(core::RegionId region, std::uint64_t position)
{
	if (position == 0)
		return;
	if (needed == nullptr)
		needed = new core::CausalState;
	needed->NeedPosition(region, position);
	TellPosition(region, position);
	if (DefaultXactIsoLevel < XACT_REPEATABLE_READ ||
	    pg::settings.read_consistency == pg::kReadEventual)
		return;
	try {
		(void) AwaitArrival(*needed, milliseconds(pg::settings.read_timeout_ms));
	} catch (const remote::Error &) {
		// The next read says so.
	}
}

// A session that writes and never reads has nobody who finds out what has arrived. Those that cannot arrive now
// are not asked for each time.
void NeedPart(core::RegionId region, const core::OutcomeToken &part)
{
	constexpr std::size_t kMany = 64;
	static std::size_t many = kMany;
	if (needed == nullptr)
		needed = new core::CausalState;
	auto known = needed->needed().find(region);
	if (known != needed->needed().end() && known->second.parts.size() >= many) {
		needed->ForgetParts(region, PartHasArrived);
		known = needed->needed().find(region);
		const std::size_t left = known == needed->needed().end() ? 0 : known->second.parts.size();
		many = std::max(kMany, 2 * left);
	}
	needed->NeedPart(region, part);
	TellPart(region, part);
}

void ForgetPart(core::RegionId region, const core::OutcomeToken &part) noexcept
{
	if (needed != nullptr)
		needed->ForgetPart(region, part);
	TakeBackPart(region, part);
}

void CheckSeesOwnWrites(Query *query, ParamListInfo params, const Decision *decision)
{
	const WritePlaces written = HiddenWrites();
	const bool whole = decision->part_count == 0, here = whole && decision->serve;
	if (written.elsewhere == 0 && (here || !written.here))
		return;
	if (whole && !here && !written.here && written.elsewhere == 1 &&
	    written.region == decision->region)
		return;
	const bool owned = decision->sharing == Sharing::kOwned;
	const bool takes_rows = !whole && (decision->sharing == Sharing::kSelect ||
	                                   decision->sharing == Sharing::kSelectThere ||
	                                   decision->sharing == Sharing::kMove);
	if (takes_rows || !pg::PgEntry([&] { return ReadsOtherHomedTables(query); }))
		return;  // the query that gives the rows is looked at by itself
	// What the transaction has written of such rows, it has written where they are read.
	if ((whole || owned) && query->resultRelation > 0 &&
	    pg::PgEntry([&] { return ReadsBesideKey(query, query->resultRelation); }))
		return;
	const char *purpose = written.elsewhere + (written.here ? 1 : 0) > 1
	                          ? "The transaction has written at several regions."
	                          : "The transaction has written at another region.";
	if (!whole)
		RefusePlace(purpose, "The statement runs at several regions, and reads homed tables there.");
	const ReadPlace place = PlaceOfRead(query, params, purpose, false);
	if (place.here != decision->serve || (!place.here && place.region != decision->region))
		RefusePlace(purpose, "What is read has its home elsewhere than what is written.");
}

void RegisterReadConsistency()
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = StartAfterWaiting;
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = UtilityAfterWaiting;
}

}  // namespace homing::write
