// Serve here, forward, or refuse: decided from the map alone.
#pragma once

#include <vector>

#include "core/home_map.hpp"

namespace homing::core {

enum class Refusal {
	kNone,
	kFenced,          // this region is lost or fenced: 25006
	kSeveralHomes,    // the statement's keys live at more than one region: 0A000
	kNotHome,         // a forwarded statement arrived where the home is not: 40001
	kInTransit,       // the home was given to this region, which has not accepted it yet: wait
	kNoOwner,         // the owner and all its heirs are lost: 08001
	kUnknownKeyspace  // the map is older than the statement: 40001
};

struct Route {
	enum class Kind { kServe, kForward, kRefuse } kind = Kind::kRefuse;
	RegionId region;  // owner, for kServe and kForward, kNotHome and kInTransit
	Refusal refusal = Refusal::kNone;
};

// Requires: `homes` is not empty. A fenced region refuses everything. A session that executes a
// forwarded statement (`forwarded`) never forwards again.
Route RouteStatement(const HomeMap &map, KeyspaceId keyspace, const std::vector<HomeId> &homes,
                     bool fenced, bool forwarded);

}  // namespace homing::core
