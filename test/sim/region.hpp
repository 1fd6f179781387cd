// A region in the simulation: durable tables and streams of a server, and the decisions of src/core on top.
//
// It does what the functions and the worker do, without a server: see the column "action" in test/sim/README.md.
#pragma once

#include "core/home_map.hpp"
#include "core/lease.hpp"
#include "core/loss.hpp"
#include "core/ownership.hpp"
#include "core/register.hpp"
#include "core/transition.hpp"

#include "plan.hpp"
#include "random.hpp"

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace homing::sim {

using core::Epoch;
using core::HomeId;
using core::Instant;
using core::Position;
using core::Positions;
using core::RegionId;

constexpr core::KeyspaceId kSpace{1};

// A transaction in a region's stream; its position is its place, from 1.
struct Entry {
	enum class Kind { kWrite, kRelease, kAccept, kDepend } kind;
	HomeId home;
	std::int64_t id = 0;        // write: unique
	std::int64_t previous = 0;  // write: the value that it replaced
	std::int64_t version = 0;   // release, accept
	RegionId to;                // release
	Positions depends_on;       // accept, depend
};

// The cluster map, as in the register.
struct Member {
	RegionId id;
	enum class Status { kActive, kPending, kLost } status = Status::kActive;
	Position final_position = 0;
	std::vector<RegionId> spread;
};
struct ClusterMap {
	Epoch epoch{1};
	std::vector<Member> members;

	const Member *Find(RegionId id) const;
	Member *Find(RegionId id);
	std::vector<RegionId> Living() const;
	std::string ToText() const;
	static ClusterMap FromText(Epoch epoch, const std::string &text);
};

struct Message {
	enum class Kind { kRenew, kRenewed, kPrepare, kPrepared, kAccept, kAccepted, kGossip } kind;
	RegionId from, to;
	// Every message carries these.
	ClusterMap map;
	Positions applied;
	std::set<RegionId> indirect;  // streams whose end was passed on
	// renew
	Instant sent;
	// register
	core::Ballot ballot;
	core::RegisterValue value;
	core::PrepareAnswer prepared;
	bool accepted = false;
};

// What the outside is to a region. Durable writes may crash it.
class Surroundings {
public:
	virtual ~Surroundings() = default;
	virtual void Send(const Message &message) = 0;
	virtual void OnServed(RegionId region, HomeId home, const Entry &write) = 0;
	virtual void OnApplied(RegionId region, RegionId origin, const Entry &write,
	                       std::int64_t value_before) = 0;
	virtual void OnLearned(RegionId region, const ClusterMap &map) = 0;
	virtual void OnState(RegionId region, HomeId home, core::HomeState before,
	                     core::HomeState after) = 0;
};

// Thrown by a durable write: the region is gone.
struct Crash {};

class Region {
public:
	Region(RegionId id, const Plan &plan, ClusterMap map, Random *random, Surroundings *outside);

	// --- what happens to it
	void Start(Instant now);  // also after a crash
	void Stop() { running_ = false; }
	bool running() const { return running_; }
	void Tick(Instant now);
	void Receive(const Message &message, Instant now);
	// Applies the next transaction of the origin, if there is one and it may; false: it does not.
	bool Apply(const Region &origin);
	// The same out of another region's copy.
	bool ApplyRelayed(RegionId origin, const Region &lost, const Region &source);
	// Takes what it lacks of lost regions, and all else, from a region that lacks nothing; false: it does not.
	bool CopyFrom(const Region &source);
	bool Write(HomeId home, std::int64_t id, Instant now);
	bool Release(HomeId home, RegionId to, Instant now);
	void WantLost(RegionId region) { wanted_lost_.insert(region); }
	void NoMoreCrashes() { plan_.crash_at_write = 0; }

	// --- what it says
	RegionId id() const { return id_; }
	bool MayServe(HomeId home, Instant now) const;
	const std::vector<Entry> &log() const { return log_; }
	std::int64_t value(HomeId home) const { return values_[static_cast<std::size_t>(home.value)]; }
	const ClusterMap &map() const { return map_; }
	const Positions &applied() const { return applied_; }
	const core::AcceptorState &acceptor() const { return acceptor_; }
	bool Fenced() const;

private:
	void Durable(double share =
	                 1);  // may throw Crash; the caller writes after the first call and calls again
	void Rebuild();
	Message Make(Message::Kind kind, RegionId to) const;
	void Broadcast(Message message, Instant now);
	void Learn(const ClusterMap &map, Instant now);
	void Renew(Instant now);
	void AcceptHomes(Instant now);
	void TakeOver(Instant now);
	void Propose(Instant now);
	std::optional<core::RegisterValue> NextMap(const core::RegisterValue &present) const;
	bool AcceptsMap(const ClusterMap &map, Instant now) const;
	bool HasVotedAgainst(RegionId region) const;
	bool HasTails() const;
	bool Missing() const;
	Positions Needs(const std::vector<core::HomeId> &homes) const;
	bool BarrierHolds(const Entry &entry) const;
	void ApplyEntry(RegionId origin, const Entry &entry);
	bool StoppedApplying(RegionId origin) const;
	bool Inherited(HomeId home) const;
	bool TookOver(HomeId home) const;

	RegionId id_;
	Plan plan_;
	Random *random_;
	Surroundings *outside_;
	bool running_ = false;

	// durable
	std::vector<Entry> log_;
	Positions applied_;
	std::set<RegionId> indirect_;
	bool paused_ = false;              // it copies: no stream goes on
	std::optional<Positions> copied_;  // how far the copy is, until the streams go on from there
	std::vector<std::int64_t> values_;
	std::vector<core::OwnershipEntry> ownership_;
	std::map<std::pair<std::int32_t, std::int64_t>, std::pair<RegionId, Position>>
		releases_;                    // by home, version
	std::set<RegionId> taken_over_;   // lost regions whose homes we serve, since we had all ends
	Positions written_dependencies_;  // what our stream depends on
	ClusterMap map_;
	core::AcceptorState acceptor_;
	std::set<RegionId> wanted_lost_;

	// volatile
	std::unique_ptr<core::HomeMap> home_map_;
	std::vector<core::HomeState> states_;
	std::vector<bool> routed_here_;  // by home: the router would serve it
	std::unique_ptr<core::LeaseVoter> voter_;
	std::unique_ptr<core::LeaseHolder> holder_;
	std::unique_ptr<core::Proposer> proposer_;
	std::int64_t highest_round_ = 0;
	std::map<RegionId, std::pair<Epoch, core::StopReport>> heard_[16];  // by lost region
	Instant renew_due_, propose_due_, proposal_ends_;
};

}  // namespace homing::sim
