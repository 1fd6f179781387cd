// What must be true in every run. They look at what regions do, and know nothing of how they decide.
#pragma once

#include "region.hpp"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace homing::sim {

class Checkers {
public:
	explicit Checkers(const Plan &plan) : plan_(plan) {}

	// P1: of every home at most one region may serve, at every instant. `now_at`: each region's own clock.
	void CheckOneHome(const std::vector<Region> &regions, const std::vector<Instant> &now_at);
	// P7: at every region a write meets the value that it replaced where it was made.
	void OnApplied(RegionId region, RegionId origin, const Entry &write, std::int64_t value_before);
	// Epoch monotonicity, and one map of an epoch.
	void OnLearned(RegionId region, const ClusterMap &map);
	// The table of transitions.
	void OnState(RegionId region, HomeId home, core::HomeState before, core::HomeState after);
	// P8 and liveness, when nothing is left to happen.
	void CheckEnd(const std::vector<Region> &regions, const std::vector<Instant> &now_at);

	// The first thing that was wrong; empty: nothing.
	const std::string &fault() const { return fault_; }
	const std::map<std::pair<core::HomeState, core::HomeState>, int> &seen() const { return seen_; }

private:
	void Fail(const std::string &what);

	Plan plan_;
	std::string fault_;
	std::map<RegionId, Epoch> epochs_;
	std::map<Epoch, std::string> maps_;
	std::map<std::pair<core::HomeState, core::HomeState>, int> seen_;
};

}  // namespace homing::sim
