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

bool IsSilent(const std::vector<Duration> &silences, int voters, Duration limit)
{
	const auto silent = std::count_if(silences.begin(), silences.end(),
	                                  [limit](Duration silence) { return !(silence < limit); });
	return silent > voters / 2;
}

bool Promise(VoterPromise *promise, const LeaseTerms &terms, Instant now)
{
	if (now < promise->withheld)
		return false;
	promise->until = std::max(promise->until, now + terms.Promise());
	return true;
}

void Withhold(VoterPromise *promise, Instant until)
{
	promise->withheld = std::max(promise->withheld, until);
}

Instant PromisedUntil(const VoterPromise &promise, const LeaseTerms &terms, Instant started)
{
	return std::max(promise.until, started + terms.Promise());
}

bool LeaseVoter::Promise(RegionId region, Instant now)
{
	return core::Promise(&promises_[region], terms_, now);
}

void LeaseVoter::Withhold(RegionId region, Instant until)
{
	core::Withhold(&promises_[region], until);
}

Instant LeaseVoter::PromisedUntil(RegionId region) const
{
	const auto found = promises_.find(region);
	return core::PromisedUntil(found != promises_.end() ? found->second : VoterPromise{}, terms_,
	                           started_);
}

void LeaseHolder::Renew(RegionId voter, Instant sent)
{
	Instant &newest = renewed_[voter];
	newest = std::max(newest, sent);
	Count();
}

void LeaseHolder::ChangeVoters(std::vector<RegionId> voters, std::vector<RegionId> leaving)
{
	voters_ = std::move(voters);
	leaving_ = std::move(leaving);
	Count();
}

std::vector<RegionId> LeaseHolder::OlderThan(Instant sent) const
{
	std::vector<RegionId> older;
	for (const RegionId voter : voters_) {
		const auto found = renewed_.find(voter);
		if (found == renewed_.end() || found->second < sent)
			older.push_back(voter);
	}
	return older;
}

void LeaseHolder::Count()
{
	valid_until_ = {};
	std::vector<Instant> sent;
	for (const RegionId voter : voters_) {
		const auto found = renewed_.find(voter);
		if (found != renewed_.end() &&
		    std::find(leaving_.begin(), leaving_.end(), voter) == leaving_.end())
			sent.push_back(found->second);
	}
	const std::size_t majority = voters_.size() / 2 + 1;
	if (sent.size() < majority)
		return;
	std::sort(sent.begin(), sent.end(), [](Instant a, Instant b) { return b < a; });
	valid_until_ = sent[majority - 1] + terms_.lease;
}

}  // namespace homing::core
