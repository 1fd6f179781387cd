#include "core/lease.hpp"

#include "map_builder.hpp"

#include <gtest/gtest.h>

using namespace homing::core;

namespace {

constexpr RegionId kUs{1}, kEu{2}, kAp{3};

Instant At(std::int64_t ms)
{
	return {ms * 1000};
}

LeaseTerms Terms()
{
	return {Milliseconds(1000), 1000, Milliseconds(50)};
}

TEST(Lease, PromiseOutlivesTheLeaseOnAnyTwoClocksWithinTheBound)
{
	const LeaseTerms terms = Terms();
	// The holder's clock is as slow, and the voter's as fast, as the bound allows.
	const double lease_real = static_cast<double>(terms.lease.us) / (1 - 0.001);
	const double promise_real = static_cast<double>(terms.Promise().us) / (1 + 0.001);
	EXPECT_GT(promise_real, lease_real);
	EXPECT_LT(promise_real, lease_real + 60000) << "and not by much more than the margin";
}

TEST(Lease, NobodyServesWithoutAMajority)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	EXPECT_FALSE(holder.MayServe(At(0)));
	holder.Renew(kUs, At(0));
	EXPECT_FALSE(holder.MayServe(At(1)));
	holder.Renew(kEu, At(0));
	EXPECT_TRUE(holder.MayServe(At(1)));
}

TEST(Lease, IsMeasuredFromTheSending)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	holder.Renew(kUs, At(100));
	holder.Renew(kEu, At(200));
	EXPECT_TRUE(holder.MayServe(At(1099)));
	EXPECT_FALSE(holder.MayServe(At(1100))) << "the majority is only as new as its oldest member";
}

TEST(Lease, TheNewestMajorityCounts)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	holder.Renew(kUs, At(500));
	holder.Renew(kEu, At(100));
	holder.Renew(kAp, At(400));
	EXPECT_EQ(holder.ValidUntil(), At(1400));
}

TEST(Lease, AnAnswerThatComesLateMovesNothingBack)
{
	LeaseHolder holder(Terms(), {kUs});
	holder.Renew(kUs, At(500));
	holder.Renew(kUs, At(300));
	EXPECT_EQ(holder.ValidUntil(), At(1500));
	LeaseVoter voter(Terms(), At(-100000));
	voter.Promise(kUs, At(500));
	voter.Promise(kUs, At(300));
	EXPECT_EQ(voter.PromisedUntil(kUs), At(500) + Terms().Promise());
}

TEST(Lease, OthersThanVotersDoNotCount)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	holder.Renew(RegionId(7), At(0));
	holder.Renew(RegionId(8), At(0));
	EXPECT_FALSE(holder.MayServe(At(1)));
	holder.ChangeVoters({RegionId(7), RegionId(8), kUs});
	EXPECT_TRUE(holder.MayServe(At(1)));
}

TEST(Lease, VoterThatPromisedDoesNotVoteForTheLoss)
{
	LeaseVoter voter(Terms(), At(-100000));
	EXPECT_TRUE(voter.MayDeclareLost(kUs, At(0)));
	voter.Promise(kUs, At(0));
	EXPECT_FALSE(voter.MayDeclareLost(kUs, At(1000)));
	EXPECT_TRUE(voter.MayDeclareLost(kEu, At(1000))) << "others are not concerned";
	EXPECT_TRUE(voter.MayDeclareLost(kUs, At(0) + Terms().Promise()));
}

TEST(Lease, VoterCanWithholdItsPromise)
{
	LeaseVoter voter(Terms(), At(-100000));
	EXPECT_TRUE(voter.Promise(kUs, At(0)));
	voter.Withhold(kUs, At(5000));
	EXPECT_FALSE(voter.Promise(kUs, At(500)));
	EXPECT_FALSE(voter.MayDeclareLost(kUs, At(1000))) << "what was promised stands";
	EXPECT_TRUE(voter.MayDeclareLost(kUs, At(0) + Terms().Promise()));
	EXPECT_TRUE(voter.Promise(kUs, At(5000)));
}

TEST(Lease, RestartedVoterKeepsWhatItMayHavePromised)
{
	LeaseVoter voter(Terms(), At(0));
	EXPECT_FALSE(voter.MayDeclareLost(kUs, At(1000)));
	EXPECT_TRUE(voter.MayDeclareLost(kUs, At(0) + Terms().Promise()));
}

TEST(Lease, WhoIsAboutToLeaveDoesNotCount)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	holder.Renew(kUs, At(0));
	holder.Renew(kAp, At(0));
	EXPECT_TRUE(holder.MayServe(At(1)));
	holder.ChangeVoters({kUs, kEu, kAp}, {kAp});
	EXPECT_FALSE(holder.MayServe(At(1)));
	holder.Renew(kEu, At(1));
	EXPECT_TRUE(holder.MayServe(At(2)));
}

// Two losses in quick succession, the race that homing._await_recount closes. Of five, us holds its lease from itself,
// kC and kD, which are declared lost; then the two others are a majority of three, and have promised us nothing.
TEST(Lease, NobodyOutvotesByALossWhoseLeaseWasCountedBeforeIt)
{
	const RegionId kC(4), kD(5);
	for (const bool recounted : {false, true}) {
		LeaseHolder us(Terms(), {kUs, kEu, kAp, kC, kD});
		LeaseVoter eu(Terms(), At(-100000)), ap(Terms(), At(-100000));
		for (const RegionId voter : {kUs, kC, kD})
			us.Renew(voter, At(0));
		// kC and kD are pending. Only when us has counted without them may they become lost: us then serves only by
		// what kEu and kAp have promised, too.
		if (recounted)
			us.ChangeVoters({kUs, kEu, kAp, kC, kD}, {kC, kD});
		const auto two_serve = [&] {
			const bool outvoted = eu.MayDeclareLost(kUs, At(10)) && ap.MayDeclareLost(kUs, At(10));
			return us.MayServe(At(10)) && outvoted;
		};
		EXPECT_EQ(two_serve(), !recounted);
		if (recounted) {
			EXPECT_TRUE(eu.Promise(kUs, At(5)) && ap.Promise(kUs, At(5)));
			us.Renew(kEu, At(5));
			us.Renew(kAp, At(5));
			EXPECT_TRUE(us.MayServe(At(10)));
			EXPECT_FALSE(two_serve());
		}
	}
}

TEST(Lease, OldPromisesAreThoseToRenew)
{
	LeaseHolder holder(Terms(), {kUs, kEu, kAp});
	holder.Renew(kUs, At(100));
	holder.Renew(kEu, At(50));
	EXPECT_EQ(holder.OlderThan(At(100)), (std::vector<RegionId>{kEu, kAp}));
}

TEST(Lease, IsNeededFromThreeVotersOnUnlessToldOtherwise)
{
	EXPECT_FALSE(NeedsLease(Fencing::kAuto, {2, false}));
	EXPECT_TRUE(NeedsLease(Fencing::kAuto, {3, false}));
	EXPECT_TRUE(NeedsLease(Fencing::kQuorum, {2, true}));
	EXPECT_FALSE(NeedsLease(Fencing::kOperator, {5, false}));
}

TEST(Lease, WhoHasWrittenLessThanOthersHaveOfItWentBack)
{
	EXPECT_TRUE(WentBackInTime(99, 100));
	EXPECT_FALSE(WentBackInTime(100, 100));
}

TEST(Lease, OnlyWhatAMajorityDoesNotHearIsSilent)
{
	const Duration limit = Milliseconds(1000), heard = Milliseconds(999);
	EXPECT_FALSE(IsSilent({limit}, 3, limit)) << "one of three";
	EXPECT_TRUE(IsSilent({limit, limit}, 3, limit));
	EXPECT_FALSE(IsSilent({limit, heard}, 3, limit)) << "one still hears it";
	EXPECT_FALSE(IsSilent({limit, limit}, 4, limit)) << "two of four are no majority";
	EXPECT_FALSE(IsSilent({}, 1, limit));
}

}  // namespace
