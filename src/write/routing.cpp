#include "write/routing.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/key_hash.hpp"

#include "pg/boundary.hpp"
#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/key_home.hpp"
#include "pg/lease.hpp"
#include "pg/settings.hpp"
#include "write/claims.hpp"
#include "write/everywhere.hpp"
#include "write/read_consistency.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
}

namespace homing::write {

namespace {

std::string Quoted(const std::string &name)
{
	return "\"" + name + "\"";
}

std::string TableName(Oid relid)
{
	const char *name = pg::PgCall([&] { return get_rel_name(relid); });
	return name != nullptr ? name : std::to_string(relid);
}

[[noreturn]] void RefuseUnproved(const pg::Catalog &catalog, const WrittenTarget &target)
{
	remote::Error error("0A000", "cannot tell the home of the rows of " +
	                                 Quoted(TableName(target.relid)) +
	                                 " that the statement writes or locks");
	error.detail = target.unproved;
	const std::string key = pg::PgCall([&] {
		return get_attname(target.homed, catalog.tables.at(target.homed).key_attnum, true);
	});
	error.hint =
		"Give the key: a condition \"" + key +
		" = value\", or VALUES with the key of every row; or run it where all its homes are.";
	throw error;
}

[[noreturn]] void Refuse(const pg::Catalog &catalog, const WrittenTarget &target,
                         const core::Route &route)
{
	const std::string table = Quoted(TableName(target.relid));
	switch (route.refusal) {
	case core::Refusal::kFenced: {
		remote::Error error("25006",
		                    "cannot write to homed table " + table + ": this region is fenced");
		error.detail = catalog.fenced;
		error.hint = "Write at another region.";
		throw error;
	}
	case core::Refusal::kNotHome: {
		remote::Error error(kNotHomeState,
		                    "the home of the rows of " + table + " is not in this region");
		error.detail = catalog.RegionName(route.region);
		throw error;
	}
	case core::Refusal::kNoOwner:
		throw remote::Error("08001", "the home of the rows of " + table +
		                                 " is lost, and so are all its heirs");
	case core::Refusal::kUnknownKeyspace:
		throw remote::Error("40001",
		                    "homed table " + table + " changed while the statement was running");
	case core::Refusal::kSeveralHomes:
	case core::Refusal::kInTransit:
	case core::Refusal::kNone:
		break;
	}
	remote::Error error("0A000", "cannot write rows of several home regions in one statement");
	error.detail = "The keys written to " + table + " live at different regions.";
	error.hint = "Write the rows of each region in a statement of its own.";
	throw error;
}

using Homes = std::vector<core::HomeId>;

// The home of every key, in their order; a NULL key has none.
std::vector<std::optional<pg::KeyHome>> HomeOfEachKey(const core::Keyspace &keyspace,
                                                      const WrittenTarget &target)
{
	std::vector<std::optional<pg::KeyHome>> homes;
	homes.reserve(static_cast<std::size_t>(target.key_count));
	for (int i = 0; i < target.key_count; ++i) {
		const KeyValue &key = target.keys[i];
		homes.push_back(key.data != nullptr
		                    ? std::optional(pg::FindKeyHome(keyspace, key.data, key.size))
		                    : std::nullopt);
	}
	return homes;
}

Homes ConcernedHomes(const core::Keyspace &keyspace, const WrittenTarget &target,
                     const std::vector<std::optional<pg::KeyHome>> &of_keys)
{
	Homes homes;
	if (target.homes != nullptr) {
		for (int i = 0; i < target.home_count; ++i)
			homes.emplace_back(target.homes[i]);
		return homes;
	}
	if (target.unproved != nullptr) {
		for (std::size_t i = 0; i < keyspace.recorded_owners.size(); ++i)
			homes.emplace_back(static_cast<std::int32_t>(i));
		return homes;
	}
	for (const auto &home : of_keys) {
		if (home)
			homes.push_back(home->home);
	}
	std::sort(homes.begin(), homes.end());
	homes.erase(std::unique(homes.begin(), homes.end()), homes.end());
	return homes;
}

bool IsUnassigned(const std::optional<pg::KeyHome> &key)
{
	return key && !key->assigned;
}

void LockHomes(const pg::HomedTable &table, const Homes &homes)
{
	constexpr std::size_t kManyHomes = 64;
	if (homes.size() > kManyHomes) {
		pg::PgCall([&] { pg::LockKeyspaceForWrite(table.keyspace); });
		return;
	}
	for (core::HomeId home : homes)
		pg::PgCall([&] { pg::LockHomeForWrite(table.keyspace, home); });
}

// A statement with one target, taken apart by region.
class Sharer {
public:
	Sharer(const pg::Catalog &catalog, const WrittenTarget &target, const pg::HomedTable &table)
		: catalog_(catalog), target_(target), table_(table)
	{
	}

	// Requires: every home has an owner.
	void Share(const Homes &homes, const std::vector<std::optional<pg::KeyHome>> &of_rows)
	{
		for (core::HomeId home : homes)
			homes_[*catalog_.map.Owner(table_.keyspace, home)].push_back(home);
		if (target_.sharing != Sharing::kValues)
			return;
		for (std::size_t row = 0; row < of_rows.size(); ++row) {
			// A row without a key is for this region's NOT NULL constraint.
			const core::RegionId region =
				of_rows[row] ? *catalog_.map.Owner(table_.keyspace, of_rows[row]->home)
							 : catalog_.map.here();
			rows_[region].push_back(static_cast<int>(row));
			homes_[region];
		}
	}

	const Homes &HomesHere() { return homes_[catalog_.map.here()]; }

	void Store(Decision *decision)
	{
		std::vector<core::RegionId> regions;
		for (const auto &[region, homes] : homes_) {
			if (region != catalog_.map.here())
				regions.push_back(region);
			else if (!homes.empty() || !rows_[region].empty())
				regions.insert(regions.begin(), region);
		}
		decision->part_count = static_cast<int>(regions.size());
		decision->parts = Allocate<RegionPart>(regions.size());
		for (std::size_t i = 0; i < regions.size(); ++i) {
			RegionPart &part = decision->parts[i];
			const Homes &homes = homes_[regions[i]];
			const std::vector<int> &rows = rows_[regions[i]];
			const std::string &name = catalog_.RegionName(regions[i]);
			part.region = regions[i];
			part.name = pg::PgCall([&] { return pstrdup(name.c_str()); });
			part.home_count = static_cast<int>(homes.size());
			part.homes = Allocate<int32>(homes.size());
			for (std::size_t j = 0; j < homes.size(); ++j)
				part.homes[j] = homes[j].value;
			part.row_count = static_cast<int>(rows.size());
			part.rows = Allocate<int>(rows.size());
			std::copy(rows.begin(), rows.end(), part.rows);
		}
	}

private:
	template <typename T>
	static T *Allocate(std::size_t count)
	{
		return static_cast<T *>(pg::PgCall([&] { return palloc0(sizeof(T) * (count + 1)); }));
	}

	const pg::Catalog &catalog_;
	const WrittenTarget &target_;
	const pg::HomedTable &table_;
	std::map<core::RegionId, Homes> homes_;
	std::map<core::RegionId, std::vector<int>> rows_;
};

// Thrown by a look that may turn out differently in a moment.
struct NotYet {
	remote::Error error;  // raised if it does not
	long patience;        // how long to look again, in ms
};

void CheckReady(const WrittenTarget &target, const pg::HomedTable &table)
{
	if (table.active)
		return;
	if (table.closing) {
		remote::Error error("55000",
		                    "table " + Quoted(TableName(target.relid)) + " is being unhomed");
		error.hint = "Try again. If homing.unhome_table failed, call it again.";
		throw error;
	}
	remote::Error error("55000",
	                    "homed table " + Quoted(TableName(target.relid)) + " is not ready yet");
	error.hint =
		"Not every region has it. Try again, or call homing.home_table again if that failed.";
	throw NotYet{error, kSettlingTime};
}

remote::Error ArrivesLate()
{
	remote::Error error("40001",
	                    "a home is being handed over to this region and has not arrived in time");
	error.hint =
		"Try again. homing.moves shows the hand-over, homing.handover_timeout says how long a write waits.";
	return error;
}

// Only a region that holds a lease serves. After its server was started it gets one in a moment.
void CheckLease(const pg::Catalog &catalog, const WrittenTarget &target)
{
	if (pg::MayServe(catalog.electorate))
		return;
	remote::Error error("25006", "cannot write to homed table " + Quoted(TableName(target.relid)) +
	                                 ": this region is fenced");
	error.detail = pg::PgCall([] { return pg::WhyNotServing(); });
	error.hint = "Write at another region, or again when this one reaches the others.";
	throw NotYet{error, pg::FirstLeasePatience()};
}

// A home that was handed over to this region waits for the last writes of its old owner.
void CheckArrived(const pg::Catalog &catalog, const pg::HomedTable &table, core::HomeId home)
{
	if (!catalog.map.LastHandover(table.keyspace, home).accepted)
		throw NotYet{ArrivesLate(), pg::settings.handover_timeout_ms};
}

// One look at the catalog.
class Look {
public:
	Look(const WrittenKeys &keys, bool lock)
		: keys_(keys), lock_(lock), assignments_(pg::AssignmentGeneration()),
		  catalog_(pg::CurrentCatalog())
	{
	}

	// Nothing: the catalog changed meanwhile.
	std::optional<Decision> Decide()
	{
		for (int i = 0; catalog_ != nullptr && i < keys_.target_count; ++i) {
			if (!LookAt(keys_.targets[i]))
				return std::nullopt;
		}
		decision_.serve = decision_.part_count == 0 &&
		                  (catalog_ == nullptr || !region_ || *region_ == catalog_->map.here());
		if (catalog_ != nullptr)
			decision_.region = region_ ? *region_ : catalog_->map.here();
		return decision_;
	}

	// Of homes that are served here, to be taken away in a moment.
	const std::optional<pg::ComingMove> &coming_move() const { return coming_move_; }

private:
	bool LookAt(const WrittenTarget &target)
	{
		auto found = catalog_->tables.find(target.homed);
		if (found == catalog_->tables.end())
			return true;  // no homed table any more
		const pg::HomedTable table = found->second;
		CheckReady(target, table);
		const bool fenced = !catalog_->fenced.empty(),
				   forwarded = pg::settings.forwarded_from[0] != '\0';
		const core::Keyspace *keyspace = catalog_->map.FindKeyspace(table.keyspace);
		if (keyspace == nullptr)
			Refuse(*catalog_, target,
			       {core::Route::Kind::kRefuse, {}, core::Refusal::kUnknownKeyspace});
		auto of_keys = HomeOfEachKey(*keyspace, target);
		if (keyspace->first_write && lock_ && !forwarded &&
		    AwaitsOwnClaim(*keyspace, target, of_keys))
			return false;
		const Homes homes = ConcernedHomes(*keyspace, target, of_keys);
		if (homes.empty())
			return true;  // no row can match, or none has a key
		const core::Route route =
			core::RouteStatement(catalog_->map, table.keyspace, homes, fenced, forwarded);
		// Rows with keys that are not known before: where first writes claim them, one by one as they come.
		const bool selects =
			target.sharing == Sharing::kSelect || target.sharing == Sharing::kSelectThere;
		const bool by_row =
			(target.sharing == Sharing::kSelect && route.kind == core::Route::Kind::kForward) ||
			(selects && route.kind == core::Route::Kind::kServe && keyspace->first_write &&
		     target.unproved != nullptr && !forwarded);
		if (route.refusal == core::Refusal::kSeveralHomes || by_row)
			return Share(target, table, homes, of_keys, forwarded);
		if (route.kind == core::Route::Kind::kRefuse && route.refusal != core::Refusal::kInTransit)
			Refuse(*catalog_, target, route);
		if (region_ && *region_ != route.region)
			Refuse(*catalog_, target,
			       {core::Route::Kind::kRefuse, {}, core::Refusal::kSeveralHomes});
		region_ = route.region;
		decision_.claimable =
			decision_.claimable ||
			(keyspace->first_write && std::any_of(of_keys.begin(), of_keys.end(), IsUnassigned));
		return route.kind == core::Route::Kind::kForward || Hold(target, table, homes, of_keys);
	}

	// Keys that another region decides about: this session may have claimed them there a moment ago. True: it
	// has waited for what it has committed there.
	bool AwaitsOwnClaim(const core::Keyspace &keyspace, const WrittenTarget &target,
	                    const std::vector<std::optional<pg::KeyHome>> &of_keys)
	{
		for (std::size_t i = 0; i < of_keys.size(); ++i) {
			if (!of_keys[i] || of_keys[i]->assigned ||
			    catalog_->map.Owner(keyspace.id, of_keys[i]->home) == catalog_->map.here())
				continue;
			const KeyBytes key{target.keys[i].data, target.keys[i].size};
			if (own_claims.Has(keyspace.id, key)) {
				own_claims.Forget();
				(void) AwaitOwnCommits();
				return true;
			}
			if (target.claiming != Claiming::kNever)
				own_claims.Add(keyspace.id, key);
		}
		return false;
	}

	bool Share(const WrittenTarget &target, const pg::HomedTable &table, const Homes &homes,
	           const std::vector<std::optional<pg::KeyHome>> &of_keys, bool forwarded)
	{
		if (forwarded)
			Refuse(*catalog_, target, {core::Route::Kind::kRefuse, {}, core::Refusal::kNotHome});
		if (target.sharing == Sharing::kNone && target.unproved != nullptr)
			RefuseUnproved(*catalog_, target);
		if (target.sharing == Sharing::kNone || keys_.target_count > 1)
			Refuse(*catalog_, target,
			       {core::Route::Kind::kRefuse, {}, core::Refusal::kSeveralHomes});
		Sharer sharer(*catalog_, target, table);
		sharer.Share(homes, of_keys);
		if (!Hold(target, table, sharer.HomesHere(), of_keys, true))
			return false;
		sharer.Store(&decision_);
		decision_.sharing = target.sharing;
		decision_.claimable = target.sharing == Sharing::kValues &&
		                      catalog_->map.FindKeyspace(table.keyspace)->first_write &&
		                      std::any_of(of_keys.begin(), of_keys.end(), IsUnassigned);
		return true;
	}

	// Keeps what this region serves from being moved away. False: the catalog changed meanwhile.
	bool Hold(const WrittenTarget &target, const pg::HomedTable &table, const Homes &homes,
	          const std::vector<std::optional<pg::KeyHome>> &of_keys, bool shared = false)
	{
		if (!lock_)
			return true;
		for (core::HomeId home : homes)
			CheckArrived(*catalog_, table, home);
		LockHomes(table, homes);
		if (!homes.empty())
			CheckLease(*catalog_, target);
		NoteComingMoves(table, homes);
		if (!pg::CatalogIsCurrent() || pg::AssignmentGeneration() != assignments_)
			return false;
		if (!HoldClaims(target, table, homes, of_keys, shared))
			return false;
		decision_.outdated = decision_.outdated || !SnapshotIsEnough(target, table, homes, of_keys);
		return true;
	}

	void NoteComingMoves(const pg::HomedTable &table, const Homes &homes)
	{
		for (const pg::ComingMove &move : catalog_->coming_moves) {
			if (move.keyspace == table.keyspace &&
			    std::any_of(homes.begin(), homes.end(),
			                [&](core::HomeId home) { return move.Concerns(home); }))
				coming_move_ = move;
		}
	}

	// First-write keyspaces: claims the keys that are written here, or keeps them from being claimed. False: one has
	// been claimed meanwhile.
	bool HoldClaims(const WrittenTarget &target, const pg::HomedTable &table, const Homes &homes,
	                const std::vector<std::optional<pg::KeyHome>> &of_keys, bool shared)
	{
		if (!catalog_->map.FindKeyspace(table.keyspace)->first_write)
			return true;
		if (target.homes != nullptr || target.unproved != nullptr) {
			// Rows that are routed are claimed one by one (homing._routed).
			const bool routed =
				target.claiming == Claiming::kAll && (shared || target.homes != nullptr);
			if (!routed)
				pg::PgCall([&] { pg::KeepKeysOpen(table.keyspace); });
			return true;
		}
		std::vector<KeyBytes> unassigned;
		for (std::size_t i = 0; i < of_keys.size(); ++i) {
			if (of_keys[i] && !of_keys[i]->assigned &&
			    std::find(homes.begin(), homes.end(), of_keys[i]->home) != homes.end())
				unassigned.push_back({target.keys[i].data, target.keys[i].size});
		}
		const bool claims = target.claiming == Claiming::kAll ||
		                    (target.claiming == Claiming::kOneKey && target.key_count == 1);
		return unassigned.empty() ||
		       SettleClaims(catalog_->map, table.keyspace, unassigned, claims, false);
	}

	// Whether the statement's snapshot has all that earlier owners wrote to what it writes.
	bool SnapshotIsEnough(const WrittenTarget &target, const pg::HomedTable &table,
	                      const Homes &homes, const std::vector<std::optional<pg::KeyHome>> &of_keys)
	{
		const struct {
			Snapshot snapshot;
			bool kept;
		} now = pg::PgCall([] {
			const bool kept = IsolationUsesXactSnapshot();
			return decltype(now){kept                  ? GetTransactionSnapshot()
			                     : ActiveSnapshotSet() ? GetActiveSnapshot()
			                                           : nullptr,
			                     kept};
		});
		if (now.snapshot == nullptr)
			return true;
		bool enough = true;
		for (core::HomeId home : homes)
			enough = enough && pg::SnapshotHasHome(*catalog_, table.keyspace, home, now.snapshot);
		for (std::size_t i = 0; enough && i < of_keys.size(); ++i) {
			if (of_keys[i] && of_keys[i]->moved > 0 &&
			    std::find(homes.begin(), homes.end(), of_keys[i]->home) != homes.end())
				enough = pg::SnapshotHasKey(table.keyspace, target.keys[i].data,
				                            target.keys[i].size, of_keys[i]->moved, now.snapshot);
		}
		if (!enough && now.kept) {
			remote::Error error("40001", "could not serialize access: the home of rows of " +
			                                 Quoted(TableName(target.relid)) +
			                                 " came to this region after the snapshot");
			error.hint = "Run the transaction again.";
			throw error;
		}
		return enough;
	}

	const WrittenKeys &keys_;
	const bool lock_;
	const uint64 assignments_;
	const pg::Catalog *const catalog_;
	std::optional<core::RegionId> region_;
	std::optional<pg::ComingMove> coming_move_;
	Decision decision_{};
};

// Writes of these homes will soon be forwarded: connects to where they are about to go.
void WarmFor(const pg::ComingMove &move)
{
	if (move.Over())
		pg::WakeWaiters();
	else if (pg::settings.forwarded_from[0] == '\0')
		Warm(move.to, move.until);
}

}  // namespace

void AwaitArrivals(core::KeyspaceId keyspace)
{
	const auto start = std::chrono::steady_clock::now();
	for (;;) {
		const pg::CatalogVersion seen = pg::CurrentVersion();
		const pg::Catalog *catalog = pg::CurrentCatalog();
		if (catalog == nullptr || !catalog->map.AwaitsHomes(keyspace))
			return;
		const long waited = static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(
												  std::chrono::steady_clock::now() - start)
		                                          .count());
		if (waited >= pg::settings.handover_timeout_ms)
			throw ArrivesLate();
		const long left = pg::settings.handover_timeout_ms - waited;
		pg::PgCall([&] { return pg::AwaitChange(seen, left); });
	}
}

void PrepareManyClaims()
{
	if (pg::settings.forwarded_from[0] != '\0')
		return;
	(void) AwaitOwnCommits();
	own_claims.AddMany();
}

[[gnu::hot]] bool FindHomeHere(Oid homed, uint64 key_hash, HomeHere *here) noexcept
{
	here->seen =
		pg::CurrentVersion();  // before the look at the catalog: if that is newer, LockHomeHere says no
	const pg::Catalog *catalog = pg::LastCatalog();
	if (catalog == nullptr || !pg::CatalogIsCurrent() || !catalog->fenced.empty())
		return false;
	const pg::HomedTable *table = catalog->FindExactly(homed);
	if (table == nullptr || !table->active || table->unmoved_here == nullptr)
		return false;
	const std::vector<bool> &unmoved = *table->unmoved_here;
	here->catalog = catalog;
	here->keyspace = table->keyspace;
	here->home = core::HomeOfHash(key_hash, static_cast<std::int32_t>(unmoved.size()));
	return unmoved[static_cast<std::size_t>(here->home.value)];
}

[[gnu::hot]] bool LockHomeHere(const HomeHere &here)
{
	pg::LockHomeForWrite(here.keyspace, here.home);
	return pg::CurrentVersion() == here.seen && pg::MayServe(here.catalog->electorate);
}

Decision DecisionToServe(const HomeHere &here)
{
	Decision decision{};
	decision.serve = true;
	decision.region = here.catalog->map.here();
	decision.seen = here.seen;
	return decision;
}

namespace {

// The shortest way, for whoever did not take it by PlainWrite.
bool TryServeHere(const WrittenKeys &keys, Decision *decision)
{
	const WrittenTarget &target = keys.targets[0];
	if (keys.target_count != 1 || target.unproved != nullptr || target.homes != nullptr ||
	    target.key_count != 1 || target.keys[0].data == nullptr)
		return false;
	HomeHere here{};
	if (!FindHomeHere(target.homed, core::HashKey(target.keys[0].data, target.keys[0].size), &here) ||
	    !pg::PgCall([&] { return LockHomeHere(here); }))
		return false;
	*decision = DecisionToServe(here);
	return true;
}

}  // namespace

// The lock comes first, then the look at the catalog that counts: it is not older than the lock, so no
// move has passed in between (DESIGN §5.4). Locks of an outdated look are kept; they do no harm.
Decision Decide(const WrittenKeys &keys, bool lock)
{
	if (lock && HasChangedTables())
		pg::PgCall([] { CheckMayWriteRows(); });
	Decision served{};
	if (lock && TryServeHere(keys, &served))
		return served;

	const auto start = std::chrono::steady_clock::now();
	for (;;) {
		pg::PgCall([] { CHECK_FOR_INTERRUPTS(); });
		const pg::CatalogVersion seen = pg::CurrentVersion();
		std::optional<NotYet> not_yet;
		try {
			Look look(keys, lock);
			const std::optional<Decision> decision = look.Decide();
			if (decision) {
				Decision result = *decision;
				result.seen = seen;
				if (look.coming_move())
					WarmFor(*look.coming_move());
				return result;
			}
		} catch (const NotYet &thrown) {
			not_yet = thrown;
		}
		if (!not_yet)
			continue;
		const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(
								std::chrono::steady_clock::now() - start)
		                        .count();
		if (!lock || waited >= not_yet->patience)
			throw not_yet->error;
		const long left = not_yet->patience - static_cast<long>(waited);
		pg::PgCall([&] { return pg::AwaitChange(seen, left); });
	}
}

}  // namespace homing::write
