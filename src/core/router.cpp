#include "core/router.hpp"

namespace homing::core {

namespace {

Route Refuse(Refusal refusal, RegionId region = {})
{
	return {Route::Kind::kRefuse, region, refusal};
}

}  // namespace

Route RouteStatement(const HomeMap &map, KeyspaceId keyspace, const std::vector<HomeId> &homes,
                     bool fenced, bool forwarded)
{
	if (fenced)
		return Refuse(Refusal::kFenced);
	if (map.FindKeyspace(keyspace) == nullptr)
		return Refuse(Refusal::kUnknownKeyspace);

	std::optional<RegionId> owner;
	for (HomeId home : homes) {
		const std::optional<RegionId> of_home = map.Owner(keyspace, home);
		if (!of_home)
			return Refuse(Refusal::kNoOwner);
		if (owner && *owner != *of_home)
			return Refuse(Refusal::kSeveralHomes);
		owner = of_home;
	}
	if (*owner == map.here()) {
		for (HomeId home : homes) {
			if (!map.LastHandover(keyspace, home).accepted)
				return Refuse(Refusal::kInTransit, *owner);
		}
		return {Route::Kind::kServe, *owner};
	}
	if (forwarded)
		return Refuse(Refusal::kNotHome, *owner);
	return {Route::Kind::kForward, *owner};
}

}  // namespace homing::core
