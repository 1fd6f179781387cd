#include "core/register.hpp"

#include <algorithm>
#include <utility>

namespace homing::core {

PrepareAnswer OnPrepare(AcceptorState *state, const Ballot &ballot)
{
	if (!(state->promised < ballot))
		return {false, state->promised, {}, {}};
	state->promised = ballot;
	return {true, ballot, state->accepted, state->value};
}

bool OnAccept(AcceptorState *state, const Ballot &ballot, const RegisterValue &value)
{
	if (ballot < state->promised)
		return false;
	state->promised = ballot;
	state->accepted = ballot;
	state->value = value;
	return true;
}

Proposer::Proposer(Ballot ballot, std::vector<RegionId> voters, RegisterValue initial, Change change)
	: ballot_(ballot), voters_(std::move(voters)), value_(std::move(initial)),
	  change_(std::move(change)), newest_(ballot)
{
}

bool Proposer::IsVoter(RegionId region) const
{
	return std::find(voters_.begin(), voters_.end(), region) != voters_.end();
}

static std::size_t Count(const std::map<RegionId, bool> &answers, bool answer)
{
	return static_cast<std::size_t>(std::count_if(answers.begin(), answers.end(),
	                                              [&](const auto &a) { return a.second == answer; }));
}

void Proposer::OnPrepareAnswer(RegionId voter, const PrepareAnswer &answer)
{
	if (phase_ != Phase::kPreparing || !IsVoter(voter) ||
	    !prepared_.emplace(voter, answer.promised).second)
		return;
	if (!answer.promised) {
		newest_ = std::max(newest_, answer.newest);
		if (PreventsMajority(Count(prepared_, false)))
			phase_ = Phase::kRefused;
		return;
	}
	if (value_ballot_ < answer.accepted) {
		value_ballot_ = answer.accepted;
		value_ = answer.value;
	}
	if (!IsMajority(Count(prepared_, true)))
		return;
	const std::optional<RegisterValue> changed = change_(value_);
	if (!changed) {
		phase_ = Phase::kPointless;
		return;
	}
	value_ = *changed;
	phase_ = Phase::kAccepting;
}

void Proposer::OnAcceptAnswer(RegionId voter, bool accepted)
{
	if (phase_ != Phase::kAccepting || !IsVoter(voter) || !taken_.emplace(voter, accepted).second)
		return;
	if (!accepted && PreventsMajority(Count(taken_, false)))
		phase_ = Phase::kRefused;
	if (IsMajority(Count(taken_, true)))
		phase_ = Phase::kDone;
}

}  // namespace homing::core
