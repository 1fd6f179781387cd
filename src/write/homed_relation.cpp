#include "write/homed_relation.hpp"

#include <algorithm>

#include "pg/catalog.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/lsyscache.h"
}

namespace homing::write {

namespace {

bool OwnsAllHomes(const core::HomeMap &map, core::KeyspaceId id)
{
	const core::Keyspace *keyspace = map.FindKeyspace(id);
	if (keyspace == nullptr)
		return false;
	for (std::size_t home = 0; home < keyspace->recorded_owners.size(); ++home) {
		if (map.Owner(id, core::HomeId(static_cast<std::int32_t>(home))) != map.here())
			return false;
	}
	return true;
}

bool IsFirstWrite(const core::HomeMap &map, core::KeyspaceId id)
{
	const core::Keyspace *keyspace = map.FindKeyspace(id);
	return keyspace != nullptr && keyspace->first_write;
}

bool IsOnlyRegion(const core::HomeMap &map)
{
	const auto &regions = map.regions();
	return std::none_of(regions.begin(), regions.end(), [&](const core::Region &region) {
		return region.id != map.here() && region.status != core::RegionStatus::kLost;
	});
}

}  // namespace

bool AnyHomedTable()
{
	if (!IsTransactionState())
		return false;
	return pg::PgEntry([] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		return catalog != nullptr && !catalog->tables.empty();
	});
}

bool FindHomed(Oid relid, HomedRelation *found)
{
	return pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		const pg::HomedTable *table = catalog != nullptr ? catalog->Find(relid) : nullptr;
		if (table == nullptr)
			return false;
		*found = {relid,
		          table->relid,
		          table->key_attnum,
		          table->keyspace,
		          OwnsAllHomes(catalog->map, table->keyspace),
		          IsFirstWrite(catalog->map, table->keyspace),
		          IsOnlyRegion(catalog->map),
		          !catalog->fenced.empty(),
		          table->active};
		return true;
	});
}

Oid *HomedTables(int *count)
{
	*count = pg::PgEntry([] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		return catalog != nullptr ? static_cast<int>(catalog->tables.size()) : 0;
	});
	auto *relids = static_cast<Oid *>(palloc(sizeof(Oid) * (*count + 1)));
	// Nothing was called that could read the catalog anew.
	pg::PgEntry([&] {
		const pg::Catalog *catalog = pg::CurrentCatalog();
		int i = 0;
		if (catalog == nullptr)
			return;
		for (const auto &[relid, table] : catalog->tables) {
			if (i < *count)
				relids[i++] = relid;
		}
		*count = i;
	});
	return relids;
}

char *KeyColumn(const HomedRelation *table)
{
	return get_attname(table->homed, table->key_attnum, false);
}

}  // namespace homing::write
