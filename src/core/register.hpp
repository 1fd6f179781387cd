// The register that holds the cluster map: Compare-and-swap Paxos, one instance per cluster (DESIGN §8).
//
// A value is a map as text with its epoch. A change goes:
//
//   1. prepare(ballot) to all voters; a majority promises to take nothing older, and tells the newest value
//      that it has taken;
//   2. the change is made to the newest of these values, so to whatever a majority may have taken before;
//   3. accept(ballot, value) to all voters; when a majority has taken it, it is the value.
//
// What a voter answers it has made durable before. A proposer that dies between 2 and 3 is harmless: the next
// one finds its value or does not.
//
//   EPOCH-1  of one epoch a majority takes one value only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.hpp"

namespace homing::core {

struct Ballot {
	std::int64_t round = 0;  // 0: none
	RegionId proposer;
	friend bool operator==(const Ballot &a, const Ballot &b)
	{
		return a.round == b.round && a.proposer == b.proposer;
	}
	friend bool operator<(const Ballot &a, const Ballot &b)
	{
		return a.round != b.round ? a.round < b.round : a.proposer < b.proposer;
	}
};

struct RegisterValue {
	Epoch epoch;
	std::string map;
	friend bool operator==(const RegisterValue &a, const RegisterValue &b)
	{
		return a.epoch == b.epoch && a.map == b.map;
	}
};

// What a voter keeps, durably.
struct AcceptorState {
	Ballot promised;
	Ballot accepted;  // round 0: it has no value
	RegisterValue value;
};

struct PrepareAnswer {
	bool promised = false;
	Ballot newest;    // refused: the ballot it has promised instead
	Ballot accepted;  // promised: what it has
	RegisterValue value;
};

// Change `state` and answer. The state must be durable before the answer is sent.
PrepareAnswer OnPrepare(AcceptorState *state, const Ballot &ballot);
// False: refused, a newer ballot was promised. The caller has checked what else the voter may not take, such as
// a map in which a region is lost that it has promised to let serve.
bool OnAccept(AcceptorState *state, const Ballot &ballot, const RegisterValue &value);

// One attempt to change the value.
class Proposer {
public:
	// Makes the new value from the present one; nothing: it does not apply (any more).
	using Change = std::function<std::optional<RegisterValue>(const RegisterValue &present)>;

	enum class Phase {
		kPreparing,
		kAccepting,  // send accept(ballot(), value()) to the voters
		kDone,       // a majority has taken it
		kRefused,  // too many have promised a newer ballot, or refused the value: try again with a higher one
		kPointless  // the change does not apply to the present value, which is value()
	};

	Proposer(Ballot ballot, std::vector<RegionId> voters, RegisterValue initial, Change change);

	Phase phase() const { return phase_; }
	const Ballot &ballot() const { return ballot_; }
	const RegisterValue &value() const { return value_; }
	// The highest ballot heard of: the next attempt must be above it.
	const Ballot &newest() const { return newest_; }

	// Answers of anybody but voters, doubled ones and those of another phase change nothing.
	void OnPrepareAnswer(RegionId voter, const PrepareAnswer &answer);
	void OnAcceptAnswer(RegionId voter, bool accepted);

private:
	bool IsVoter(RegionId region) const;
	bool IsMajority(std::size_t count) const { return count >= voters_.size() / 2 + 1; }
	// So many refusals leave no majority.
	bool PreventsMajority(std::size_t refusals) const
	{
		return refusals >= voters_.size() - voters_.size() / 2;
	}

	Ballot ballot_;
	std::vector<RegionId> voters_;
	RegisterValue value_;
	Ballot value_ballot_;  // of the newest value heard of
	Change change_;
	Phase phase_ = Phase::kPreparing;
	Ballot newest_;
	std::map<RegionId, bool> prepared_, taken_;  // answers of the phase: yes or no
};

}  // namespace homing::core
