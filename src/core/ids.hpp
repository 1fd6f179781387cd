// The identifiers of DESIGN §1 as types of their own, so that a home is never passed for a region.
#pragma once

#ifdef POSTGRES_H
#error "core knows nothing of the server: include core headers before pg/server.hpp"
#endif

#include <cstdint>
#include <functional>

namespace homing::core {

// Strong integer: comparable and hashable, never converted silently.
template <typename Tag, typename Rep>
struct Id {
	Rep value = 0;

	constexpr Id() = default;
	constexpr explicit Id(Rep v) : value(v) {}
	friend constexpr bool operator==(Id a, Id b) { return a.value == b.value; }
	friend constexpr bool operator!=(Id a, Id b) { return a.value != b.value; }
	friend constexpr bool operator<(Id a, Id b) { return a.value < b.value; }
};

// One incarnation of a region, 1..32767; never reused, a rejoined region gets a new one.
using RegionId = Id<struct RegionTag, std::int16_t>;
// The set of keys that co-located tables share.
using KeyspaceId = Id<struct KeyspaceTag, std::int32_t>;
// The unit of ownership inside a keyspace, 0..homes-1.
using HomeId = Id<struct HomeTag, std::int32_t>;
// Version of the cluster map; only ever rises.
using Epoch = Id<struct EpochTag, std::int64_t>;

}  // namespace homing::core

template <typename Tag, typename Rep>
struct std::hash<homing::core::Id<Tag, Rep>> {
	std::size_t operator()(homing::core::Id<Tag, Rep> id) const noexcept
	{
		return std::hash<Rep>{}(id.value);
	}
};
