#include "checkers.hpp"

#include <algorithm>

namespace homing::sim {

namespace {

std::string Name(RegionId region)
{
	return "region " + std::to_string(region.value);
}

}  // namespace

void Checkers::Fail(const std::string &what)
{
	if (fault_.empty())
		fault_ = what;
}

void Checkers::CheckOneHome(const std::vector<Region> &regions, const std::vector<Instant> &now_at)
{
	for (int home = 0; home < plan_.homes && !plan_.beyond.two_may_serve; ++home) {
		const Region *server = nullptr;
		for (std::size_t i = 0; i < regions.size(); ++i) {
			if (!regions[i].MayServe(HomeId(home), now_at[i]))
				continue;
			if (server != nullptr)
				Fail("P1: home " + std::to_string(home) + " is served by " + Name(server->id()) +
				     " and " + Name(regions[i].id()));
			server = &regions[i];
		}
	}
}

void Checkers::OnApplied(RegionId region, RegionId origin, const Entry &write,
                         std::int64_t value_before)
{
	if (value_before != write.previous)
		Fail("P7: " + Name(region) + " applies write " + std::to_string(write.id) + " of " +
		     Name(origin) + " to home " + std::to_string(write.home.value) + " on " +
		     std::to_string(value_before) + " instead of " + std::to_string(write.previous));
}

void Checkers::OnLearned(RegionId region, const ClusterMap &map)
{
	if (!(epochs_[region] < map.epoch))
		Fail("epoch of " + Name(region) + " falls to " + std::to_string(map.epoch.value));
	epochs_[region] = map.epoch;
	const auto [known, is_new] = maps_.emplace(map.epoch, map.ToText());
	if (!is_new && known->second != map.ToText())
		Fail("two maps of epoch " + std::to_string(map.epoch.value));
}

void Checkers::OnState(RegionId region, HomeId home, core::HomeState before, core::HomeState after)
{
	++seen_[{before, after}];
	if (!core::MayFollow(before, after))
		Fail("home " + std::to_string(home.value) + " at " + Name(region) + " goes from " +
		     core::NameOf(before) + " to " + core::NameOf(after));
}

void Checkers::CheckEnd(const std::vector<Region> &regions, const std::vector<Instant> &now_at)
{
	// The newest map says who is to be equal.
	const Region *newest = &regions[0];
	for (const Region &region : regions) {
		if (newest->map().epoch < region.map().epoch)
			newest = &region;
	}
	const std::vector<RegionId> living = newest->map().Living();
	if (living.size() * 2 <= regions.size())
		return;  // without a majority of voters nobody serves
	const Region *first = nullptr;
	for (const Region &region : regions) {
		if (std::find(living.begin(), living.end(), region.id()) == living.end())
			continue;
		if (region.map().epoch != newest->map().epoch)
			Fail("liveness: " + Name(region.id()) + " has not heard of epoch " +
			     std::to_string(newest->map().epoch.value));
		if (first == nullptr)
			first = &region;
		for (int home = 0; home < plan_.homes; ++home) {
			if (region.value(HomeId(home)) != first->value(HomeId(home)))
				Fail("P8: home " + std::to_string(home) + " is " +
				     std::to_string(region.value(HomeId(home))) + " at " + Name(region.id()) +
				     " and " + std::to_string(first->value(HomeId(home))) + " at " +
				     Name(first->id()));
		}
		for (const Region &origin : regions) {
			const Member *member = newest->map().Find(origin.id());
			const Position end = member->status == Member::Status::kActive ? origin.log().size()
			                                                               : member->final_position;
			if (member->status == Member::Status::kPending)
				Fail("liveness: the loss of " + Name(origin.id()) + " is not completed");
			if (origin.id() != region.id() && core::PositionOf(region.applied(), origin.id()) != end)
				Fail("P8: " + Name(region.id()) + " has applied " + Name(origin.id()) + " up to " +
				     std::to_string(core::PositionOf(region.applied(), origin.id())) +
				     " instead of " + std::to_string(end));
		}
	}
	for (int home = 0; home < plan_.homes; ++home) {
		int servers = 0;
		for (std::size_t i = 0; i < regions.size(); ++i)
			servers += regions[i].MayServe(HomeId(home), now_at[i]) ? 1 : 0;
		if (servers != 1)
			Fail("liveness: home " + std::to_string(home) + " has " + std::to_string(servers) +
			     " servers in the end");
	}
}

}  // namespace homing::sim
