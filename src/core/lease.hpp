// Who may serve until when (DESIGN §8, PROTOCOL 2c).
//
// A region serves while a majority of the voters has promised not to let it be declared lost. It measures its
// lease from the moment it sent the question; a voter measures its promise from when it answered, which is
// later, and promises longer, so that clocks of different speed do not matter within the bound.
//
//   LEASE-1  while a region may serve, no majority of voters may declare it lost: of any two majorities one
//            voter is in both, and its promise outlives the lease.
//
// Deadlines only move forward. Neither side keeps its part over a restart: an owner starts without a lease, a
// voter as if it had promised everything just before.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "core/ids.hpp"
#include "core/time.hpp"

namespace homing::core {

struct LeaseTerms {
	Duration lease = Milliseconds(10000);  // of the holder, from sending the question
	std::int64_t drift_ppm = 1000;         // how far a clock's speed may be off, in millionths
	Duration margin = Milliseconds(250);

	// How long a voter promises: the lease on the slowest clock, measured on the fastest, and the margin.
	Duration Promise() const;
};

// A voter's side.
class LeaseVoter {
public:
	// `started`: from then on this voter knows what it promised.
	LeaseVoter(LeaseTerms terms, Instant started) : terms_(terms), started_(started) {}

	// Promises that the region is not declared lost with this voter's vote for a while. False: it does not.
	bool Promise(RegionId region, Instant now);

	// Promises nothing to the region until then: somebody wants it declared lost, and a region that goes on
	// renewing its lease could never be.
	void Withhold(RegionId region, Instant until);

	// Whether this voter may vote for the region being lost.
	bool MayDeclareLost(RegionId region, Instant now) const { return PromisedUntil(region) <= now; }
	Instant PromisedUntil(RegionId region) const;

private:
	LeaseTerms terms_;
	Instant started_;
	std::map<RegionId, Instant> promised_;  // until when
	std::map<RegionId, Instant> withheld_;  // until when
};

// The holder's side.
class LeaseHolder {
public:
	// Requires: voters not empty; ourselves among them if we vote.
	LeaseHolder(LeaseTerms terms, std::vector<RegionId> voters)
		: terms_(terms), voters_(std::move(voters))
	{
	}

	// A voter has promised, in answer to a question that was sent at `sent`. Others than voters are ignored.
	void Renew(RegionId voter, Instant sent);
	// Other voters from now on. Promises of those that stay are kept.
	void ChangeVoters(std::vector<RegionId> voters);

	// Until when a majority has promised.
	Instant ValidUntil() const { return valid_until_; }
	bool MayServe(Instant now) const { return now < valid_until_; }

private:
	void Count();

	LeaseTerms terms_;
	std::vector<RegionId> voters_;
	std::map<RegionId, Instant> renewed_;  // when the newest answered question was sent
	Instant valid_until_;
};

}  // namespace homing::core
