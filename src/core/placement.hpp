// Which region gets which home, when a keyspace is made, a key assigned, or a region lost.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/home_map.hpp"

namespace homing::core {

// Owners of a new keyspace: contiguous runs, sizes differing by at most one, so that any residue
// class of homes (which is how heirs are spread) is even too. Requires: regions not empty, homes > 0.
std::vector<RegionId> SpreadEvenly(std::int32_t homes, const std::vector<RegionId> &regions);

// The home of `region` that a key assigned to it goes to; picked by the key's hash, so that assigned
// keys spread over the region's homes. Nothing when the region owns no home of the keyspace.
std::optional<HomeId> HomeOwnedBy(const HomeMap &map, KeyspaceId keyspace, RegionId region,
                                  std::uint64_t key_hash);

struct Weight {
	RegionId region;
	double weight = 0;
};

// New owners of the homes, so that every region's share is nearest to its weight: whole homes by the largest
// remainder. Among equal remainders a region that has more of the homes keeps one, so that no plan moves more
// homes than it must. A region without a weight gets none.
// Requires: owners not empty, weights not negative, of different regions, and one of them above 0.
std::vector<RegionId> Repartition(const std::vector<RegionId> &owners,
                                  const std::vector<Weight> &weights);

}  // namespace homing::core
