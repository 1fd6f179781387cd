#include "core/claim.hpp"

#include "core/key_hash.hpp"
#include "core/placement.hpp"

namespace homing::core {

Claim ClaimFor(const HomeMap &map, KeyspaceId keyspace, std::uint64_t key_hash, RegionId writer,
               bool claims, bool claimed)
{
	const Keyspace *known = map.FindKeyspace(keyspace);
	if (known == nullptr || !known->first_write || claimed)
		return {};
	const HomeId by_hash =
		HomeOfHash(key_hash, static_cast<std::int32_t>(known->recorded_owners.size()));
	if (map.Owner(keyspace, by_hash) != map.here())
		return {};

	const Region *region = map.FindRegion(writer);
	if (!claims || region == nullptr || region->status != RegionStatus::kActive)
		return {ClaimStep::kKeepOpen, by_hash, false};
	if (writer == map.here())
		return {ClaimStep::kClaim, by_hash, false};
	const std::optional<HomeId> home = HomeOwnedBy(map, keyspace, writer, key_hash);
	if (!home)
		return {ClaimStep::kKeepOpen, by_hash, false};
	return {ClaimStep::kClaim, *home, true};
}

}  // namespace homing::core
