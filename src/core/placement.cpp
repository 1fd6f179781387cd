#include "core/placement.hpp"

namespace homing::core {

std::vector<RegionId> SpreadEvenly(std::int32_t homes, const std::vector<RegionId> &regions)
{
	std::vector<RegionId> owners;
	owners.reserve(static_cast<std::size_t>(homes));
	const auto count = static_cast<std::int64_t>(regions.size());
	for (std::int64_t home = 0; home < homes; ++home)
		owners.push_back(regions[static_cast<std::size_t>(home * count / homes)]);
	return owners;
}

std::optional<HomeId> HomeOwnedBy(const HomeMap &map, KeyspaceId keyspace, RegionId region,
                                  std::uint64_t key_hash)
{
	const Keyspace *known = map.FindKeyspace(keyspace);
	if (known == nullptr)
		return std::nullopt;
	std::vector<HomeId> owned;
	for (std::size_t home = 0; home < known->recorded_owners.size(); ++home) {
		const HomeId id(static_cast<std::int32_t>(home));
		if (map.Owner(keyspace, id) == region)
			owned.push_back(id);
	}
	if (owned.empty())
		return std::nullopt;
	return owned[key_hash % owned.size()];
}

}  // namespace homing::core
