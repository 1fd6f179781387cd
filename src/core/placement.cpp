#include "core/placement.hpp"

#include <algorithm>
#include <cmath>

namespace homing::core {

std::vector<RegionId> SpreadEvenly(std::int32_t homes, const std::vector<RegionId> &regions)
{
	std::vector<RegionId> owners;
	owners.reserve(static_cast<std::size_t>(homes));
	const auto count = static_cast<std::int64_t>(regions.size());
	for (std::int64_t home = 0; home < homes; ++home)
		owners.push_back(regions[static_cast<std::size_t>(home * count / homes)]);
	return owners;
}

std::optional<HomeId> HomeOwnedBy(const HomeMap &map, KeyspaceId keyspace, RegionId region,
                                  std::uint64_t key_hash)
{
	const Keyspace *known = map.FindKeyspace(keyspace);
	if (known == nullptr)
		return std::nullopt;
	std::vector<HomeId> owned;
	for (std::size_t home = 0; home < known->recorded_owners.size(); ++home) {
		const HomeId id(static_cast<std::int32_t>(home));
		if (map.Owner(keyspace, id) == region)
			owned.push_back(id);
	}
	if (owned.empty())
		return std::nullopt;
	return owned[key_hash % owned.size()];
}

namespace {

struct Share {
	RegionId region;
	std::int64_t owned = 0;
	std::int64_t wanted = 0;
	double remainder = 0;
};

// Whole homes for each weight, adding up to `homes`.
std::vector<Share> SharesOf(std::int64_t homes, const std::vector<RegionId> &owners,
                            const std::vector<Weight> &weights)
{
	double sum = 0;
	for (const Weight &weight : weights)
		sum += weight.weight;
	std::vector<Share> shares;
	std::int64_t left = homes;
	for (const Weight &weight : weights) {
		const double exact = static_cast<double>(homes) * (weight.weight / sum);
		// Sums of weights such as 0.1 + 0.2 miss by less than this.
		const double whole = std::floor(exact + 1e-9);
		Share share{weight.region, std::count(owners.begin(), owners.end(), weight.region),
		            static_cast<std::int64_t>(whole), exact - whole};
		left -= share.wanted;
		shares.push_back(share);
	}
	std::vector<Share *> order;
	for (Share &share : shares)
		order.push_back(&share);
	std::stable_sort(order.begin(), order.end(), [](const Share *a, const Share *b) {
		if (std::fabs(a->remainder - b->remainder) > 1e-9)
			return a->remainder > b->remainder;
		return a->owned - a->wanted > b->owned - b->wanted;
	});
	for (std::size_t i = 0; left > 0; i = (i + 1) % order.size()) {
		++order[i]->wanted;
		--left;
	}
	return shares;
}

}  // namespace

std::vector<RegionId> Repartition(const std::vector<RegionId> &owners,
                                  const std::vector<Weight> &weights)
{
	std::vector<Share> shares = SharesOf(static_cast<std::int64_t>(owners.size()), owners, weights);
	const auto share_of = [&](RegionId region) {
		return std::find_if(shares.begin(), shares.end(),
		                    [&](const Share &share) { return share.region == region; });
	};
	std::vector<RegionId> result = owners;
	// From the last home on, so that a region keeps the run of homes it began with.
	for (std::size_t home = owners.size(); home-- > 0;) {
		auto from = share_of(owners[home]);
		if (from != shares.end() && from->owned <= from->wanted)
			continue;
		auto to = std::find_if(shares.begin(), shares.end(),
		                       [](const Share &share) { return share.owned < share.wanted; });
		if (from != shares.end())
			--from->owned;
		++to->owned;
		result[home] = to->region;
	}
	return result;
}

}  // namespace homing::core
