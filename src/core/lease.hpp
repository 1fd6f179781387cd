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
#include <cstdint>
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

// How it is made sure that a region that was declared lost does not serve.
enum class Fencing {
	kAuto,    // by leases where three regions or more vote, else by the operator's word
	kQuorum,  // by leases
	kOperator
};

// Who can have a say in whether a region serves, as it knows them.
struct Electorate {
	// Itself, the other regions that are not lost, and the witnesses. Who joins or leaves counts before, or still,
	// without a vote: what the others may already do to this region, with that vote, it must already be prepared for.
	int size = 1;
	bool alone = true;  // there is no other region
};

// Whether a region serves only while it holds a lease.
constexpr bool NeedsLease(Fencing fencing, const Electorate &electorate)
{
	return fencing == Fencing::kQuorum || (fencing == Fencing::kAuto && electorate.size >= 3);
}

// Whether a region that has written so much, and no more, is a copy of an older state of itself: another region has
// more of it. It must neither serve nor vote.
constexpr bool WentBackInTime(std::uint64_t written, std::uint64_t applied_elsewhere)
{
	return written < applied_elsewhere;
}

// Whether a region is declared lost without anybody asking for it: a majority of the voters has heard nothing of it
// for `limit`. One link that is cut, or comes and goes, is no reason. `silences`: of those that answer.
bool IsSilent(const std::vector<Duration> &silences, int voters, Duration limit);

// How long a survivor leaves it to others to declare a loss, or to finish what somebody has begun; `rank`: how many
// living regions come before it.
constexpr Duration DeclareAfter(int rank)
{
	return Milliseconds(2000 + 3000 * rank);
}

// What a voter keeps of one region. Plain: it lives in shared memory.
struct VoterPromise {
	Instant until;     // what was promised
	Instant withheld;  // no promise before
};

// Promises, unless it is withheld: the region is not declared lost with this vote for a while.
bool Promise(VoterPromise *promise, const LeaseTerms &terms, Instant now);
void Withhold(VoterPromise *promise, Instant until);
// Until when the voter may not vote for the loss. `started`: from then on it knows what it promised.
Instant PromisedUntil(const VoterPromise &promise, const LeaseTerms &terms, Instant started);

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
	std::map<RegionId, VoterPromise> promises_;
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
	// Other voters from now on. Promises of those that stay are kept. Those of `leaving`, who are about to be
	// voters no longer, do not count, while they still make the majority larger.
	void ChangeVoters(std::vector<RegionId> voters, std::vector<RegionId> leaving = {});

	// Until when a majority has promised.
	Instant ValidUntil() const { return valid_until_; }
	bool MayServe(Instant now) const { return now < valid_until_; }
	// Whose promise is older than this, or was never given.
	std::vector<RegionId> OlderThan(Instant sent) const;

private:
	void Count();

	LeaseTerms terms_;
	std::vector<RegionId> voters_;
	std::vector<RegionId> leaving_;
	std::map<RegionId, Instant> renewed_;  // when the newest answered question was sent
	Instant valid_until_;
};

}  // namespace homing::core
