#include "write/outcome.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>

#include "pg/catalog.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"
#include "write/outcome_table.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/uuid.h"
}

namespace homing::write {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kFirstPause{50}, kLongestPause{1000};

milliseconds Left(Clock::time_point deadline)
{
	return std::max(std::chrono::duration_cast<milliseconds>(deadline - Clock::now()),
	                milliseconds(0));
}

// Asks the region itself. Returns whether it has committed.
bool Ask(const Place &place, pg::LatchWaiter &waiter, Clock::time_point deadline,
         CommitPoint *commit)
{
	pg::RegionConnection connection = pg::ConnectTo(place.server, place.user, waiter);
	connection->SetDeadline(deadline);
	// The transaction may still be running there: its end is waited for, but not longer than we wait.
	connection->Execute("SELECT pg_catalog.set_config('statement_timeout', $1, false)",
	                    {{std::to_string(std::max<milliseconds::rep>(Left(deadline).count(), 1))}});
	const remote::Result settled =
		connection->Execute("SELECT committed, rows FROM homing._settle_outcome($1)",
	                        {{commit->token.Text(), UUIDOID}});
	if (PQgetvalue(settled.get(), 0, 0)[0] != 't')
		return false;
	commit->rows = std::strtoull(PQgetvalue(settled.get(), 0, 1), nullptr, 10);
	const remote::Result position = connection->Execute("SELECT homing._last_commit()");
	commit->position = std::strtoull(PQgetvalue(position.get(), 0, 0), nullptr, 10);
	return true;
}

// For homing.outcome: what this region or the one of the token knows.
const char *Report(const core::OutcomeToken &token)
{
	const KeptOutcome kept = pg::PgCall([&] { return FindOutcome(token.bytes.data()); });
	if (kept.known)
		return kept.committed ? "committed" : "aborted";
	if (pg::CurrentCatalog() == nullptr)
		return "unknown";
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (IsLost(token.Region()))
		return catalog->HasEndOf(token.Region()) ? "aborted" : "unknown";
	Place place;
	place.region = token.Region();
	place.name = catalog->RegionName(place.region);
	place.server = pg::PgCall([&] { return pg::RegionServer(place.name.c_str()); });
	place.user = GetUserId();
	pg::LatchWaiter waiter;
	CommitPoint commit;
	commit.token = token;
	try {
		// Also in this region over a connection: what is answered is for good, even if we are rolled back.
		return Ask(place, waiter, Clock::now() + milliseconds(pg::settings.outcome_timeout_ms),
		           &commit)
		           ? "committed"
		           : "aborted";
	} catch (const remote::Error &error) {
		pg::PgCall([&] {
			ereport(NOTICE, (errmsg("region \"%s\" does not know how the transaction ended",
			                        place.name.c_str()),
			                 errdetail_internal("%s", error.what())));
		});
		return "unknown";
	}
}

}  // namespace

OutcomeUnknown::OutcomeUnknown(const Place &place, const core::OutcomeToken &token,
                               const std::string &reason)
	: Error("08007", "the outcome of the transaction at region \"" + place.name + "\" is unknown")
{
	detail = "The connection was lost while it was committing: " + reason + ".";
	hint = "Ask later: SELECT homing.outcome('" + token.Text() + "').";
}

NotCommitted::NotCommitted(const std::string &region, const std::string &reason)
	: Error("40001", "the transaction at region \"" + region + "\" was not committed")
{
	detail = "The connection was lost: " + reason + ".";
	hint = "Nothing of it remains. Try again.";
}

// Whether all that survives of a lost region is here.
bool HasEndOf(core::RegionId lost)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	return catalog == nullptr || catalog->HasEndOf(lost);
}

bool IsLost(core::RegionId region)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const core::Region *known = catalog != nullptr ? catalog->map.FindRegion(region) : nullptr;
	return known == nullptr || known->status == core::RegionStatus::kLost;
}

core::OutcomeToken NewToken(core::RegionId region, const std::string &role)
{
	core::OutcomeToken token;
	pg::PgCall([&] { FillToken(region.value, token.bytes.data()); });
	return core::MadeOutTo(token, role);
}

void Learn(const Place &place, pg::LatchWaiter &waiter, const std::string &reason, bool cancelled,
           CommitPoint *commit)
{
	const auto deadline = Clock::now() + milliseconds(pg::settings.outcome_timeout_ms);
	milliseconds pause = kFirstPause;
	try {
		pg::CancelMode mode(waiter, cancelled ? pg::OnCancel::kHold : pg::OnCancel::kTell);
		for (;;) {
			if (IsLost(place.region) && HasEndOf(place.region)) {
				// What survives of a lost region is here.
				const KeptOutcome kept =
					pg::PgCall([&] { return FindOutcome(commit->token.bytes.data()); });
				if (kept.known && kept.committed) {
					commit->rows = kept.rows;
					return;
				}
				throw NotCommitted(place.name, "the region was declared lost");
			}
			try {
				// One that is lost does not know what of it counts.
				if (!IsLost(place.region)) {
					if (Ask(place, waiter, deadline, commit))
						return;
					throw NotCommitted(place.name, reason);
				}
				if (Left(deadline).count() == 0)
					break;
			} catch (const NotCommitted &) {
				throw;
			} catch (const remote::Error &) {
				if (Left(deadline).count() == 0)
					break;
			}
			waiter.Pause(std::min(pause, Left(deadline)));
			pause = std::min(pause * 2, kLongestPause);
		}
	} catch (const pg::CancelRequested &) {
	}
	throw OutcomeUnknown(place, commit->token, reason);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_outcome);

PGDLLEXPORT Datum homing_outcome(PG_FUNCTION_ARGS)
{
	core::OutcomeToken token;
	const pg_uuid_t *id = PG_GETARG_UUID_P(0);
	memcpy(token.bytes.data(), id->data, UUID_LEN);
	if (!core::IsToken(token))
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid token of a transaction"),
		         errhint("It is in the hint of the error that reported the outcome as unknown.")));
	pg::RequireLoaded(pg::CatalogIsShared());
	const char *report = pg::PgEntry([&] { return Report(token); });
	PG_RETURN_TEXT_P(cstring_to_text(report));
}

}  // extern "C"

}  // namespace homing::write
