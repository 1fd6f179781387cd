#include "core/home_map.hpp"

#include <algorithm>
#include <utility>

namespace homing::core {

HomeMap::HomeMap(Epoch epoch, RegionId here, std::vector<Region> regions,
                 std::vector<Keyspace> keyspaces)
	: epoch_(epoch), here_(here), regions_(std::move(regions))
{
	for (Keyspace &keyspace : keyspaces) {
		keyspace.has_assignments = keyspace.has_assignments || keyspace.first_write;
		std::vector<std::optional<RegionId>> owners;
		owners.reserve(keyspace.recorded_owners.size());
		for (std::size_t home = 0; home < keyspace.recorded_owners.size(); ++home)
			owners.push_back(Resolve(regions_, keyspace.recorded_owners[home],
			                         HomeId(static_cast<std::int32_t>(home))));
		for (std::size_t home = 0; home < keyspace.handovers.size(); ++home) {
			if (!keyspace.handovers[home].accepted && owners[home] == here_)
				awaited_.insert(keyspace.id);
		}
		std::vector<bool> unmoved;
		for (std::size_t home = 0; home < owners.size(); ++home)
			unmoved.push_back(keyspace.recorded_owners[home] == here_ && owners[home] == here_ &&
			                  (keyspace.handovers.empty() || keyspace.handovers[home].version == 0));
		if (!keyspace.has_assignments)
			unmoved_here_.emplace(keyspace.id, std::move(unmoved));
		owners_.emplace(keyspace.id, std::move(owners));
		keyspaces_.emplace(keyspace.id, std::move(keyspace));
	}
}

bool HomeMap::HereIsLost() const
{
	const Region *region = FindRegion(here_);
	return region == nullptr || region->status == RegionStatus::kLost;
}

const Region *HomeMap::FindRegion(RegionId id) const
{
	for (const Region &region : regions_) {
		if (region.id == id)
			return &region;
	}
	return nullptr;
}

const Region *HomeMap::FindRegion(const std::string &name) const
{
	const Region *newest = nullptr;
	for (const Region &region : regions_) {
		if (region.name == name && (newest == nullptr || newest->id < region.id))
			newest = &region;
	}
	return newest;
}

const Keyspace *HomeMap::FindKeyspace(KeyspaceId id) const
{
	auto found = keyspaces_.find(id);
	return found != keyspaces_.end() ? &found->second : nullptr;
}

const std::vector<bool> *HomeMap::UnmovedHere(KeyspaceId keyspace) const
{
	auto found = unmoved_here_.find(keyspace);
	return found != unmoved_here_.end() ? &found->second : nullptr;
}

std::optional<RegionId> HomeMap::Owner(KeyspaceId keyspace, HomeId home) const
{
	auto found = owners_.find(keyspace);
	if (found == owners_.end() || home.value < 0 ||
	    static_cast<std::size_t>(home.value) >= found->second.size())
		return std::nullopt;
	return found->second[static_cast<std::size_t>(home.value)];
}

Handover HomeMap::LastHandover(KeyspaceId keyspace, HomeId home) const
{
	const Keyspace *known = FindKeyspace(keyspace);
	if (known == nullptr || home.value < 0 ||
	    static_cast<std::size_t>(home.value) >= known->handovers.size())
		return {};
	return known->handovers[static_cast<std::size_t>(home.value)];
}

std::vector<RegionId> HomeMap::HeirsOf(KeyspaceId keyspace, HomeId home) const
{
	std::vector<RegionId> heirs;
	std::optional<RegionId> owner = Owner(keyspace, home);
	if (!owner)
		return heirs;

	// Loses one owner after the other: the order is the one in which they would really follow.
	const RegionId recorded =
		keyspaces_.at(keyspace).recorded_owners[static_cast<std::size_t>(home.value)];
	std::vector<Region> regions = regions_;
	while (owner) {
		Region *lost = nullptr;
		std::vector<RegionId> survivors;
		for (Region &region : regions) {
			if (region.id == *owner)
				lost = &region;
			else if (region.status == RegionStatus::kActive)
				survivors.push_back(region.id);
		}
		std::sort(survivors.begin(), survivors.end());
		lost->status = RegionStatus::kLost;
		lost->spread = std::move(survivors);
		owner = Resolve(regions, recorded, home);
		if (owner)
			heirs.push_back(*owner);
	}
	return heirs;
}

// A later loss must never move a home between two living regions. Therefore a place in `spread` is
// counted over the survivors of that time, and where it leads to a region lost since, that region's own
// heirs follow: it was the owner.
std::optional<RegionId> HomeMap::Resolve(const std::vector<Region> &regions, RegionId recorded,
                                         HomeId home)
{
	auto find = [&](RegionId id) -> const Region * {
		auto found = std::find_if(regions.begin(), regions.end(),
		                          [&](const Region &region) { return region.id == id; });
		return found != regions.end() ? &*found : nullptr;
	};

	RegionId owner = recorded;
	for (std::size_t hops = 0; hops <= regions.size(); ++hops) {
		const Region *region = find(owner);
		if (region == nullptr)
			return std::nullopt;
		if (region->status != RegionStatus::kLost)
			return owner;

		auto living = std::find_if(region->heirs.begin(), region->heirs.end(), [&](RegionId heir) {
			const Region *candidate = find(heir);
			return candidate != nullptr && candidate->status == RegionStatus::kActive;
		});
		if (living != region->heirs.end())
			owner = *living;
		else if (!region->spread.empty())
			owner = region->spread[static_cast<std::size_t>(home.value) % region->spread.size()];
		else
			return std::nullopt;
	}
	return std::nullopt;
}

}  // namespace homing::core
