#include "core/map_exchange.hpp"

namespace homing::core {

MapAction OnPeerMap(const MapSummary &mine, const MapSummary &theirs)
{
	if (theirs.epoch < mine.epoch)
		return MapAction::kKeep;
	if (mine.epoch < theirs.epoch)
		return theirs.receiver_lost ? MapAction::kFence : MapAction::kAdopt;
	return theirs.digest == mine.digest ? MapAction::kKeep : MapAction::kFence;
}

}  // namespace homing::core
