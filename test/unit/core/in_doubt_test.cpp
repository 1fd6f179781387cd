#include "core/in_doubt.hpp"

#include <gtest/gtest.h>

namespace homing::core {
namespace {

using Kind = CoordinatorAnswer::Kind;

InDoubt Overdue()
{
	InDoubt state;
	state.overdue = true;
	return state;
}

TEST(InDoubt, TheRowDecides)
{
	InDoubt state;
	state.decision = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kCommit);
	state.decision = false;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
}

TEST(InDoubt, TheRowGoesBeforeTheOperator)
{
	InDoubt state;
	state.decision = true;
	state.operator_decision = false;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kCommit);
}

TEST(InDoubt, TheOperatorGoesBeforeWaiting)
{
	InDoubt state;
	state.operator_decision = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kCommit);
	state.operator_decision = false;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
}

TEST(InDoubt, TheCoordinatorHasItsTime)
{
	EXPECT_EQ(ResolveInDoubt(InDoubt()), InDoubtStep::kWait);
	EXPECT_EQ(ResolveInDoubt(Overdue()), InDoubtStep::kAsk);
}

TEST(InDoubt, CommitIsNeverLearnedFromAnAnswer)
{
	InDoubt state = Overdue();
	state.answer = CoordinatorAnswer{Kind::kCommitted, 100};
	for (std::uint64_t applied : {0, 99, 100, 1000}) {
		state.applied = applied;
		EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kWait);
	}
}

// It hears no stream any more, and what it commits is for nobody but rejoin to find.
TEST(InDoubt, ALostRegionBelievesAnAnswer)
{
	InDoubt state = Overdue();
	state.lost_here = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAsk);
	state.answer = CoordinatorAnswer{Kind::kCommitted, 100};
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kCommit);
	state.answer = CoordinatorAnswer{Kind::kNever, 100};
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
	state.coordinator_lost = state.stream_complete = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kWait);
}

TEST(InDoubt, NeverIsNever)
{
	InDoubt state = Overdue();
	state.answer = CoordinatorAnswer{Kind::kNever, 100};
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
}

TEST(InDoubt, WhatIsForgottenMayStillBeInTheStream)
{
	InDoubt state = Overdue();
	state.answer = CoordinatorAnswer{Kind::kForgotten, 100};
	state.applied = 99;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kWait);
	state.applied = 100;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
}

TEST(InDoubt, ALostCoordinatorsStreamDecidesWhenItIsComplete)
{
	InDoubt state;
	state.coordinator_lost = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kWait);
	state.stream_complete = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
	state.decision = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kCommit);
}

// An answer that was given before the loss does not matter any more: the row did not survive, or it will come.
TEST(InDoubt, ALostCoordinatorsAnswerDoesNotCount)
{
	InDoubt state = Overdue();
	state.coordinator_lost = true;
	state.answer = CoordinatorAnswer{Kind::kCommitted, 100};
	state.stream_complete = true;
	EXPECT_EQ(ResolveInDoubt(state), InDoubtStep::kAbort);
}

}  // namespace
}  // namespace homing::core
