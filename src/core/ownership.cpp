#include "core/ownership.hpp"

namespace homing::core {

void ApplyOwnershipLog(const std::vector<OwnershipEntry> &entries, Keyspace *keyspace)
{
	const std::size_t homes = keyspace->recorded_owners.size();
	const auto known = [&](const OwnershipEntry &entry) {
		return entry.home.value >= 0 && static_cast<std::size_t>(entry.home.value) < homes;
	};

	// Releases first: an acceptance counts only for the newest one.
	for (const OwnershipEntry &entry : entries) {
		if (entry.accept || !known(entry))
			continue;
		keyspace->handovers.resize(homes);
		const auto home = static_cast<std::size_t>(entry.home.value);
		Handover &handover = keyspace->handovers[home];
		if (entry.version <= handover.version)
			continue;
		handover = {entry.version, entry.from, entry.to, false};
		keyspace->recorded_owners[home] = entry.to;
	}
	if (keyspace->handovers.empty())
		return;
	for (const OwnershipEntry &entry : entries) {
		if (!entry.accept || !known(entry))
			continue;
		Handover &handover = keyspace->handovers[static_cast<std::size_t>(entry.home.value)];
		if (entry.version == handover.version)
			handover.accepted = true;
	}
}

}  // namespace homing::core
