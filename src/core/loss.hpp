// What follows when regions are lost: how far their streams count, who passes on what, when heirs may serve
// (DESIGN §8, PROTOCOL 2c and 2d).
//
//   CUT-1  the final position of a lost region is not below what any region that goes on has applied;
//   CUT-2  nobody applies anything of it beyond that position.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/ids.hpp"

namespace homing::core {

// Position in a region's stream: the end of the last transaction that counts.
using Position = std::uint64_t;
using Positions = std::map<RegionId, Position>;  // by the region whose stream it is; absent: 0

Position PositionOf(const Positions &positions, RegionId region);

// What a region that goes on says of a lost one, after it has stopped applying from it for good.
struct StopReport {
	RegionId reporter;
	Position applied = 0;
	bool directly =
		true;  // false: the end of it was passed on by another region, which alone can pass it on
};

// The final position of a lost region: the furthest of all that go on. Nothing while one of them has not
// reported: what it has applied must not be cut off.
std::optional<Position> FinalPosition(const std::vector<RegionId> &survivors,
                                      const std::vector<StopReport> &reports);

struct Relay {
	RegionId from;
	RegionId to;
};

// Who passes on the end of a lost region's stream to whom. Regions that lack it and that nobody can serve are
// left out: they must copy the rows of its homes.
std::vector<Relay> RelaysNeeded(Position final_position, const std::vector<StopReport> &reports);

// Whether a region has all that counts of every lost region. An heir serves nothing before: a home may have
// come to the lost region by a release that is in another lost region's end.
bool HasAllTails(const Positions &applied, const Positions &finals);

// Whether every region that follows the rows in `written` (what our stream says it depends on) has what
// `needed` says before it applies our next write.
bool Covers(const Positions &written, const Positions &needed);

}  // namespace homing::core
