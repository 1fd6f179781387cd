#include "write/routing.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "pg/boundary.hpp"
#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "utils/lsyscache.h"
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
	remote::Error error("0A000", "cannot tell the home of the rows of " + Quoted(TableName(target.relid)) +
	                                 " that the statement writes");
	error.detail = target.unproved;
	const std::string key =
		pg::PgCall([&] { return get_attname(target.homed, catalog.tables.at(target.homed).key_attnum, true); });
	error.hint = "Give the key: a condition \"" + key +
				 " = value\", or VALUES with the key of every row; or run it where all its homes are.";
	throw error;
}

[[noreturn]] void Refuse(const pg::Catalog &catalog, const WrittenTarget &target, const core::Route &route)
{
	const std::string table = Quoted(TableName(target.relid));
	switch (route.refusal) {
	case core::Refusal::kFenced: {
		remote::Error error("25006", "cannot write to homed table " + table + ": this region is fenced");
		error.detail = catalog.fenced;
		error.hint = "Write at another region.";
		throw error;
	}
	case core::Refusal::kNotHome: {
		remote::Error error(kNotHomeState, "the home of the rows of " + table + " is not in this region");
		error.detail = catalog.RegionName(route.region);
		throw error;
	}
	case core::Refusal::kNoOwner:
		throw remote::Error("08001", "the home of the rows of " + table + " is lost, and so are all its heirs");
	case core::Refusal::kUnknownKeyspace:
		throw remote::Error("40001", "homed table " + table + " changed while the statement was running");
	case core::Refusal::kSeveralHomes:
	case core::Refusal::kNone:
		break;
	}
	remote::Error error("0A000", "cannot write rows of several home regions in one statement");
	error.detail = "The keys written to " + table + " live at different regions.";
	error.hint = "Write the rows of each region in a statement of its own.";
	throw error;
}

std::vector<core::HomeId> HomesOf(const core::Keyspace &keyspace, const WrittenTarget &target)
{
	std::vector<core::HomeId> homes;
	homes.reserve(static_cast<std::size_t>(target.key_count));
	for (int i = 0; i < target.key_count; ++i)
		homes.push_back(pg::HomeOfKey(keyspace, target.keys[i].data, target.keys[i].size));
	std::sort(homes.begin(), homes.end());
	homes.erase(std::unique(homes.begin(), homes.end()), homes.end());
	return homes;
}

std::vector<core::HomeId> AllHomes(const core::Keyspace &keyspace)
{
	std::vector<core::HomeId> homes;
	for (std::size_t i = 0; i < keyspace.recorded_owners.size(); ++i)
		homes.emplace_back(static_cast<std::int32_t>(i));
	return homes;
}

// Where one target's rows are written; `homes` are those to lock when that is here.
std::optional<core::Route> RouteTarget(const pg::Catalog &catalog, const WrittenTarget &target,
                                       const pg::HomedTable &table, std::vector<core::HomeId> *homes)
{
	const bool fenced = !catalog.fenced.empty(), forwarded = pg::settings.forwarded_from[0] != '\0';
	const core::Keyspace *keyspace = catalog.map.FindKeyspace(table.keyspace);
	if (keyspace != nullptr)
		*homes = target.unproved != nullptr ? AllHomes(*keyspace) : HomesOf(*keyspace, target);
	if (homes->empty())
		return std::nullopt;  // no row can match
	core::Route route = core::RouteStatement(catalog.map, table.keyspace, *homes, fenced, forwarded);
	const bool one_region = route.refusal != core::Refusal::kSeveralHomes;
	if (target.unproved != nullptr && !fenced && (!one_region || route.kind == core::Route::Kind::kForward))
		RefuseUnproved(catalog, target);
	if (route.kind == core::Route::Kind::kRefuse)
		Refuse(catalog, target, route);
	return route;
}

void LockHomes(const pg::HomedTable &table, const WrittenTarget &target, const std::vector<core::HomeId> &homes)
{
	constexpr std::size_t kManyHomes = 64;
	if (target.unproved != nullptr || homes.size() > kManyHomes) {
		pg::PgCall([&] { pg::LockKeyspaceForWrite(table.keyspace); });
		return;
	}
	for (core::HomeId home : homes)
		pg::PgCall([&] { pg::LockHomeForWrite(table.keyspace, home); });
}

// One look at the catalog. Nothing: it changed meanwhile.
std::optional<Decision> TryDecide(const WrittenKeys &keys, bool lock)
{
	const uint64 assignments = pg::AssignmentGeneration();
	const pg::Catalog *catalog = pg::CurrentCatalog();
	std::optional<core::RegionId> region;
	for (int i = 0; catalog != nullptr && i < keys.target_count; ++i) {
		const WrittenTarget &target = keys.targets[i];
		auto found = catalog->tables.find(target.homed);
		if (found == catalog->tables.end())
			continue;  // no homed table any more
		const pg::HomedTable table = found->second;
		if (!table.active) {
			remote::Error error("55000", "homed table " + Quoted(TableName(target.relid)) + " is not ready yet");
			error.hint = "Not every region has it. Try again, or call homing.home_table again if that failed.";
			throw error;
		}
		std::vector<core::HomeId> homes;
		const std::optional<core::Route> route = RouteTarget(*catalog, target, table, &homes);
		if (!route)
			continue;
		if (region && *region != route->region)
			Refuse(*catalog, target, {core::Route::Kind::kRefuse, {}, core::Refusal::kSeveralHomes});
		region = route->region;
		if (lock && route->kind == core::Route::Kind::kServe) {
			LockHomes(table, target, homes);
			if (!pg::CatalogIsCurrent() || pg::AssignmentGeneration() != assignments)
				return std::nullopt;
		}
	}
	Decision decision{};
	decision.serve = catalog == nullptr || !region || *region == catalog->map.here();
	if (catalog != nullptr) {
		decision.region = region ? *region : catalog->map.here();
		const std::string &name = catalog->RegionName(decision.region);
		decision.region_name = pg::PgCall([&] { return pstrdup(name.c_str()); });
	}
	return decision;
}

}  // namespace

// The lock comes first, then the look at the catalog that counts: it is not older than the lock, so no
// move has passed in between (DESIGN §5.4). Locks of an outdated look are kept; they do no harm.
Decision Decide(const WrittenKeys &keys, bool lock)
{
	for (;;) {
		pg::PgCall([] { CHECK_FOR_INTERRUPTS(); });
		const std::optional<Decision> decision = TryDecide(keys, lock);
		if (decision)
			return *decision;
	}
}

}  // namespace homing::write
