// Short ways to write home maps in tests.
#pragma once

#include "core/home_map.hpp"

#include <vector>

namespace homing::core {

inline std::vector<RegionId> Ids(const std::vector<int> &values)
{
	std::vector<RegionId> ids;
	for (int value : values)
		ids.emplace_back(static_cast<std::int16_t>(value));
	return ids;
}

inline Region Active(int id, const std::string &name, const std::vector<int> &heirs = {})
{
	return {RegionId(static_cast<std::int16_t>(id)), name, RegionStatus::kActive, Ids(heirs), {}};
}

inline Region Lost(int id, const std::string &name, const std::vector<int> &heirs,
                   const std::vector<int> &spread)
{
	return {RegionId(static_cast<std::int16_t>(id)), name, RegionStatus::kLost, Ids(heirs),
	        Ids(spread)};
}

constexpr KeyspaceId kSpace{1};

inline HomeMap MapOf(const std::vector<Region> &regions, const std::vector<int> &recorded,
                     int here = 1)
{
	return HomeMap(Epoch(1), RegionId(static_cast<std::int16_t>(here)), regions,
	               {{kSpace, Ids(recorded), false}});
}

inline int OwnerOf(const HomeMap &map, int home)
{
	const auto owner = map.Owner(kSpace, HomeId(home));
	return owner ? owner->value : 0;
}

}  // namespace homing::core
