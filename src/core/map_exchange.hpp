// What a region does when a peer tells it a cluster map (operator mode, DESIGN §8).
#pragma once

#include <cstdint>

#include "core/ids.hpp"

namespace homing::core {

struct MapSummary {
	Epoch epoch;
	std::uint64_t digest = 0;    // equal exactly when the maps are equal
	bool receiver_lost = false;  // in this map the receiver is lost
};

enum class MapAction {
	kKeep,   // theirs is the same, or older: they will learn ours
	kAdopt,  // theirs is newer and we are alive in it
	kFence   // theirs says we are lost, or contradicts ours at one epoch: stop serving
};

// A map only ever moves forward (epoch monotonicity). Two different maps of one epoch can only come
// from two operators declaring at once without a quorum; serving on under either could give a home
// two owners, so the region fences itself (P1).
MapAction OnPeerMap(const MapSummary &mine, const MapSummary &theirs);

}  // namespace homing::core
