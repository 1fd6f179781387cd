#include "core/loss.hpp"

#include <algorithm>

namespace homing::core {

Position PositionOf(const Positions &positions, RegionId region)
{
	const auto found = positions.find(region);
	return found != positions.end() ? found->second : 0;
}

std::optional<Position> FinalPosition(const std::vector<RegionId> &survivors,
                                      const std::vector<StopReport> &reports)
{
	if (survivors.empty())
		return std::nullopt;
	Position furthest = 0;
	for (const RegionId survivor : survivors) {
		const auto report = std::find_if(reports.begin(), reports.end(), [&](const StopReport &r) {
			return r.reporter == survivor;
		});
		if (report == reports.end())
			return std::nullopt;
		furthest = std::max(furthest, report->applied);
	}
	return furthest;
}

std::vector<Relay> RelaysNeeded(Position final_position, const std::vector<StopReport> &reports)
{
	const auto source = std::find_if(reports.begin(), reports.end(), [&](const StopReport &r) {
		return r.directly && r.applied >= final_position;
	});
	std::vector<Relay> relays;
	if (source == reports.end())
		return relays;
	for (const StopReport &report : reports) {
		if (report.applied < final_position)
			relays.push_back({source->reporter, report.reporter});
	}
	return relays;
}

bool HasAllTails(const Positions &applied, const Positions &finals)
{
	return Covers(applied, finals);
}

bool Covers(const Positions &written, const Positions &needed)
{
	return std::all_of(needed.begin(), needed.end(), [&](const auto &need) {
		return PositionOf(written, need.first) >= need.second;
	});
}

}  // namespace homing::core
