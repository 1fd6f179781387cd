#include "core/lease.hpp"

#include <algorithm>

namespace homing::core {

Duration LeaseTerms::Promise() const
{
	constexpr std::int64_t kMillion = 1000000;
	const std::int64_t slow = kMillion - drift_ppm, fast = kMillion + drift_ppm;
	// Rounded up.
	return {(lease.us * fast + slow - 1) / slow + margin.us};
}

bool LeaseVoter::Promise(RegionId region, Instant now)
{
	const auto withheld = withheld_.find(region);
	if (withheld != withheld_.end() && now < withheld->second)
		return false;
	Instant &until = promised_[region];
	until = std::max(until, now + terms_.Promise());
	return true;
}

void LeaseVoter::Withhold(RegionId region, Instant until)
{
	Instant &withheld = withheld_[region];
	withheld = std::max(withheld, until);
}

Instant LeaseVoter::PromisedUntil(RegionId region) const
{
	const Instant forgotten = started_ + terms_.Promise();
	const auto found = promised_.find(region);
	return found != promised_.end() ? std::max(found->second, forgotten) : forgotten;
}

void LeaseHolder::Renew(RegionId voter, Instant sent)
{
	Instant &newest = renewed_[voter];
	newest = std::max(newest, sent);
	Count();
}

void LeaseHolder::ChangeVoters(std::vector<RegionId> voters)
{
	voters_ = std::move(voters);
	Count();
}

void LeaseHolder::Count()
{
	valid_until_ = {};
	std::vector<Instant> sent;
	for (const RegionId voter : voters_) {
		const auto found = renewed_.find(voter);
		if (found != renewed_.end())
			sent.push_back(found->second);
	}
	const std::size_t majority = voters_.size() / 2 + 1;
	if (sent.size() < majority)
		return;
	std::sort(sent.begin(), sent.end(), [](Instant a, Instant b) { return b < a; });
	valid_until_ = sent[majority - 1] + terms_.lease;
}

}  // namespace homing::core
