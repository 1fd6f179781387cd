#include "core/register.hpp"

#include <gtest/gtest.h>

#include <string>

using namespace homing::core;

namespace {

constexpr RegionId kUs{1}, kEu{2}, kAp{3};
const RegisterValue kFirst{Epoch(1), "all"};

std::optional<RegisterValue> Next(const RegisterValue &present, const std::string &map)
{
	return RegisterValue{Epoch(present.epoch.value + 1), map};
}

Proposer Propose(std::int64_t round, RegionId by, const std::string &map)
{
	return Proposer({round, by}, {kUs, kEu, kAp}, kFirst,
	                [map](const RegisterValue &present) { return Next(present, map); });
}

TEST(Register, AMajorityTakesTheChange)
{
	AcceptorState us, eu;
	Proposer proposer = Propose(1, kUs, "without ap");
	proposer.OnPrepareAnswer(kUs, OnPrepare(&us, proposer.ballot()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kPreparing);
	proposer.OnPrepareAnswer(kEu, OnPrepare(&eu, proposer.ballot()));
	ASSERT_EQ(proposer.phase(), Proposer::Phase::kAccepting);
	EXPECT_EQ(proposer.value().epoch, Epoch(2));
	proposer.OnAcceptAnswer(kUs, OnAccept(&us, proposer.ballot(), proposer.value()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kAccepting) << "one is no majority";
	proposer.OnAcceptAnswer(kUs, true);
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kAccepting)
		<< "one that answers twice is no majority";
	proposer.OnAcceptAnswer(RegionId(9), true);
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kAccepting) << "a stranger has no vote";
	proposer.OnAcceptAnswer(kEu, OnAccept(&eu, proposer.ballot(), proposer.value()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kDone);
	EXPECT_EQ(us.value, eu.value);
}

TEST(Register, WhatAMajorityMayHaveTakenIsFoundAndKept)
{
	AcceptorState us, eu, ap;
	Proposer dead = Propose(1, kUs, "first");
	dead.OnPrepareAnswer(kUs, OnPrepare(&us, dead.ballot()));
	dead.OnPrepareAnswer(kEu, OnPrepare(&eu, dead.ballot()));
	ASSERT_TRUE(OnAccept(&eu, dead.ballot(), dead.value()));  // and the proposer dies

	Proposer next = Propose(2, kAp, "second");
	next.OnPrepareAnswer(kAp, OnPrepare(&ap, next.ballot()));
	next.OnPrepareAnswer(kEu, OnPrepare(&eu, next.ballot()));
	ASSERT_EQ(next.phase(), Proposer::Phase::kAccepting);
	EXPECT_EQ(next.value().epoch, Epoch(3)) << "the change is made to what eu had taken";
	EXPECT_FALSE(OnAccept(&eu, dead.ballot(), dead.value())) << "the dead one comes too late";
}

TEST(Register, OfTwoAtOnceOneIsRefused)
{
	AcceptorState us, eu, ap;
	Proposer first = Propose(1, kUs, "first"), second = Propose(1, kEu, "second");
	first.OnPrepareAnswer(kUs, OnPrepare(&us, first.ballot()));
	first.OnPrepareAnswer(kEu, OnPrepare(&eu, first.ballot()));
	ASSERT_EQ(first.phase(), Proposer::Phase::kAccepting);
	second.OnPrepareAnswer(kEu, OnPrepare(&eu, second.ballot()));
	second.OnPrepareAnswer(kAp, OnPrepare(&ap, second.ballot()));
	ASSERT_EQ(second.phase(), Proposer::Phase::kAccepting);
	first.OnAcceptAnswer(kUs, OnAccept(&us, first.ballot(), first.value()));
	first.OnAcceptAnswer(kEu, OnAccept(&eu, first.ballot(), first.value()));
	first.OnAcceptAnswer(kAp, OnAccept(&ap, first.ballot(), first.value()));
	EXPECT_EQ(first.phase(), Proposer::Phase::kRefused);
	second.OnAcceptAnswer(kEu, OnAccept(&eu, second.ballot(), second.value()));
	second.OnAcceptAnswer(kAp, OnAccept(&ap, second.ballot(), second.value()));
	EXPECT_EQ(second.phase(), Proposer::Phase::kDone);
}

TEST(Register, RefusalNamesTheBallotToBeat)
{
	AcceptorState us, eu;
	(void) OnPrepare(&us, {7, kAp});
	(void) OnPrepare(&eu, {5, kAp});
	Proposer proposer = Propose(1, kUs, "map");
	proposer.OnPrepareAnswer(kUs, OnPrepare(&us, proposer.ballot()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kPreparing)
		<< "the other two could still be enough";
	proposer.OnPrepareAnswer(kEu, OnPrepare(&eu, proposer.ballot()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kRefused);
	EXPECT_EQ(proposer.newest().round, 7);
}

TEST(Register, AChangeThatDoesNotApplyWritesNothing)
{
	AcceptorState us, eu;
	Proposer proposer({1, kUs}, {kUs, kEu, kAp}, kFirst,
	                  [](const RegisterValue &) { return std::nullopt; });
	proposer.OnPrepareAnswer(kUs, OnPrepare(&us, proposer.ballot()));
	proposer.OnPrepareAnswer(kEu, OnPrepare(&eu, proposer.ballot()));
	EXPECT_EQ(proposer.phase(), Proposer::Phase::kPointless);
	EXPECT_EQ(proposer.value(), kFirst);
	EXPECT_EQ(us.accepted.round, 0);
}

}  // namespace
