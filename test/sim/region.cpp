#include "region.hpp"

#include "core/router.hpp"

#include <algorithm>
#include <sstream>

namespace homing::sim {

namespace {

constexpr core::Duration kRenewEvery = core::Milliseconds(1000);

core::LeaseTerms Terms(const Plan &plan)
{
	return {core::Milliseconds(4000), plan.drift_ppm, core::Milliseconds(20)};
}

}  // namespace

// --- the map -------------------------------------------------------------------------------------------------

const Member *ClusterMap::Find(RegionId id) const
{
	const auto found =
		std::find_if(members.begin(), members.end(), [&](const Member &m) { return m.id == id; });
	return found != members.end() ? &*found : nullptr;
}

Member *ClusterMap::Find(RegionId id)
{
	return const_cast<Member *>(static_cast<const ClusterMap *>(this)->Find(id));
}

std::vector<RegionId> ClusterMap::Living() const
{
	std::vector<RegionId> living;
	for (const Member &member : members) {
		if (member.status == Member::Status::kActive)
			living.push_back(member.id);
	}
	return living;
}

std::string ClusterMap::ToText() const
{
	std::ostringstream out;
	for (const Member &member : members) {
		out << member.id.value << ' ' << static_cast<int>(member.status) << ' '
			<< member.final_position << ' ' << member.spread.size();
		for (RegionId heir : member.spread)
			out << ' ' << heir.value;
		out << '\n';
	}
	return out.str();
}

ClusterMap ClusterMap::FromText(Epoch epoch, const std::string &text)
{
	ClusterMap map;
	map.epoch = epoch;
	std::istringstream in(text);
	Member member;
	int status;
	std::size_t heirs;
	while (in >> member.id.value >> status >> member.final_position >> heirs) {
		member.status = static_cast<Member::Status>(status);
		member.spread.resize(heirs);
		for (RegionId &heir : member.spread)
			in >> heir.value;
		map.members.push_back(member);
	}
	return map;
}

// --- the region: what is durable -----------------------------------------------------------------------------

Region::Region(RegionId id, const Plan &plan, ClusterMap map, Random *random, Surroundings *outside)
	: id_(id), plan_(plan), random_(random), outside_(outside),
	  values_(static_cast<std::size_t>(plan.homes)), map_(std::move(map))
{
}

// A crash before or after the write that stands between two calls.
void Region::Durable(double share)
{
	if (random_->Chance(plan_.crash_at_write * share))
		throw Crash();
}

void Region::Start(Instant now)
{
	running_ = true;
	std::vector<RegionId> voters;
	for (const Member &member : map_.members)
		voters.push_back(member.id);
	voter_ = std::make_unique<core::LeaseVoter>(Terms(plan_), now);
	holder_ = std::make_unique<core::LeaseHolder>(Terms(plan_), voters);
	proposer_.reset();
	for (auto &heard : heard_)
		heard.clear();
	renew_due_ = propose_due_ = Instant{};
	highest_round_ = acceptor_.promised.round;
	states_.clear();
	Rebuild();
}

// The picture of who owns what, from the tables alone.
void Region::Rebuild()
{
	std::vector<core::Region> regions;
	for (const Member &member : map_.members) {
		core::Region region{
			member.id, "r" + std::to_string(member.id.value), core::RegionStatus::kActive, {}, {}};
		if (member.status == Member::Status::kLost) {
			region.status = core::RegionStatus::kLost;
			region.spread = member.spread;
		}
		regions.push_back(region);
	}
	core::Keyspace keyspace{kSpace, {}};
	for (int home = 0; home < plan_.homes; ++home)
		keyspace.recorded_owners.push_back(
			map_.members[static_cast<std::size_t>(home) % map_.members.size()].id);
	core::ApplyOwnershipLog(ownership_, &keyspace);
	home_map_ = std::make_unique<core::HomeMap>(map_.epoch, id_, std::move(regions),
	                                            std::vector<core::Keyspace>{keyspace});

	routed_here_.assign(static_cast<std::size_t>(plan_.homes), false);
	std::vector<core::HomeState> states;
	for (int home = 0; home < plan_.homes; ++home) {
		const core::Route route =
			core::RouteStatement(*home_map_, kSpace, {HomeId(home)}, Fenced(), false);
		routed_here_[static_cast<std::size_t>(home)] =
			route.kind == core::Route::Kind::kServe ||
			(plan_.bugs.serve_before_acceptance && route.refusal == core::Refusal::kInTransit);
		states.push_back(
			core::StateOf(*home_map_, kSpace, HomeId(home), Fenced(), TookOver(HomeId(home))));
	}
	for (std::size_t home = 0; home < states_.size(); ++home) {
		if (states_[home] != states[home])
			outside_->OnState(id_, HomeId(static_cast<std::int32_t>(home)), states_[home],
			                  states[home]);
	}
	states_ = std::move(states);
}

bool Region::Fenced() const
{
	return map_.Find(id_)->status != Member::Status::kActive;
}

// --- serving ---------------------------------------------------------------------------------------------------

// The home came here by the loss of its owner.
bool Region::Inherited(HomeId home) const
{
	const core::Keyspace *keyspace = home_map_->FindKeyspace(kSpace);
	return keyspace->recorded_owners[static_cast<std::size_t>(home.value)] != id_;
}

// Every region through whose loss the home came here has been taken over. Once it has, a later loss changes
// nothing: what a region wrote of the home before it passed on is in an end that we had by then.
bool Region::TookOver(HomeId home) const
{
	RegionId owner =
		home_map_->FindKeyspace(kSpace)->recorded_owners[static_cast<std::size_t>(home.value)];
	while (owner != id_) {
		const Member *member = map_.Find(owner);
		if (member->status != Member::Status::kLost || member->spread.empty())
			return true;  // not ours at all
		if (taken_over_.count(owner) == 0)
			return false;
		owner = member->spread[static_cast<std::size_t>(home.value) % member->spread.size()];
	}
	return true;
}

bool Region::HasTails() const
{
	Positions finals;
	for (const Member &member : map_.members) {
		if (member.status == Member::Status::kLost)
			finals[member.id] = member.final_position;
		// A second loss that is not decided yet: its end may hold a release that matters.
		if (member.status == Member::Status::kPending)
			return false;
	}
	return core::HasAllTails(applied_, finals);
}

// Nobody passes on what we lack.
bool Region::Missing() const
{
	if (plan_.tails_kept)
		return false;
	return std::any_of(map_.members.begin(), map_.members.end(), [this](const Member &member) {
		return member.status == Member::Status::kLost &&
		       core::PositionOf(applied_, member.id) < member.final_position;
	});
}

// What our stream must depend on before we write these homes: every lost region's end, and the release by
// which each home came.
Positions Region::Needs(const std::vector<core::HomeId> &homes) const
{
	Positions needs;
	for (core::HomeId home : homes) {
		if (Inherited(home)) {
			for (const Member &member : map_.members) {
				if (member.status == Member::Status::kLost)
					needs[member.id] =
						std::max(core::PositionOf(needs, member.id), member.final_position);
			}
		}
		const core::Handover last = home_map_->LastHandover(kSpace, home);
		const auto release = releases_.find({home.value, last.version});
		if (last.version > 0 && release != releases_.end() && release->second.first != id_) {
			Position &need = needs[release->second.first];
			need = std::max(need, release->second.second);
		}
	}
	return needs;
}

bool Region::MayServe(HomeId home, Instant now) const
{
	if (!running_ || (Missing() && !plan_.bugs.serve_before_tails))
		return false;
	if (!routed_here_[static_cast<std::size_t>(home.value)])
		return false;
	if (!plan_.bugs.serve_without_lease && !holder_->MayServe(now))
		return false;
	if (plan_.bugs.serve_before_tails || !Inherited(home))
		return true;
	return TookOver(home) && core::Covers(written_dependencies_, Needs({home}));
}

bool Region::Write(HomeId home, std::int64_t id, Instant now)
{
	if (!MayServe(home, now))
		return false;
	Entry entry{Entry::Kind::kWrite, home, id, value(home), 0, {}, {}};
	Durable();
	log_.push_back(entry);
	values_[static_cast<std::size_t>(home.value)] = id;
	outside_->OnServed(id_, home, entry);
	Durable();
	return true;
}

bool Region::Release(HomeId home, RegionId to, Instant now)
{
	const Member *target = map_.Find(to);
	if (!MayServe(home, now) || to == id_ || target->status != Member::Status::kActive)
		return false;
	const std::int64_t version = home_map_->LastHandover(kSpace, home).version + 1;
	Durable();
	log_.push_back({Entry::Kind::kRelease, home, 0, 0, version, to, {}});
	releases_[{home.value, version}] = {id_, log_.size()};
	ownership_.push_back({home, version, id_, to, false});
	Rebuild();
	Durable();
	return true;
}

// --- the worker's duties -----------------------------------------------------------------------------------------

void Region::AcceptHomes(Instant now)
{
	if (Fenced() || Missing() || !holder_->MayServe(now))
		return;
	std::vector<core::HomeId> awaited;
	for (int home = 0; home < plan_.homes; ++home) {
		const core::HomeId id(home);
		if (states_[static_cast<std::size_t>(home)] == core::HomeState::kAwaited &&
		    !home_map_->LastHandover(kSpace, id).accepted && (!Inherited(id) || HasTails()))
			awaited.push_back(id);
	}
	if (awaited.empty())
		return;
	const Positions needs = Needs(awaited);
	for (core::HomeId home : awaited) {
		const std::int64_t version = home_map_->LastHandover(kSpace, home).version;
		Durable();
		log_.push_back({Entry::Kind::kAccept, home, 0, 0, version, id_, needs});
		for (const auto &[origin, position] : needs)
			written_dependencies_[origin] =
				std::max(core::PositionOf(written_dependencies_, origin), position);
		ownership_.push_back({home, version, id_, id_, true});
		for (const Member &member : map_.members) {
			if (HasTails() && member.status == Member::Status::kLost)
				taken_over_.insert(member.id);
		}
		Rebuild();
		Durable();
	}
}

void Region::TakeOver(Instant now)
{
	if (Fenced() || Missing() || !holder_->MayServe(now))
		return;
	const bool complete = HasTails();
	std::vector<core::HomeId> inherited;
	for (int home = 0; home < plan_.homes; ++home) {
		const core::HomeId id(home);
		if (home_map_->Owner(kSpace, id) == id_ && Inherited(id) &&
		    home_map_->LastHandover(kSpace, id).accepted && (complete || TookOver(id)))
			inherited.push_back(id);
	}
	const bool news = std::any_of(inherited.begin(), inherited.end(),
	                              [&](HomeId home) { return !TookOver(home); });
	const Positions needs = Needs(inherited);
	if (inherited.empty() || (!news && core::Covers(written_dependencies_, needs)))
		return;
	Durable();
	log_.push_back({Entry::Kind::kDepend, {}, 0, 0, 0, {}, needs});
	for (const auto &[origin, position] : needs)
		written_dependencies_[origin] =
			std::max(core::PositionOf(written_dependencies_, origin), position);
	for (const Member &member : map_.members) {
		if (complete && member.status == Member::Status::kLost)
			taken_over_.insert(member.id);
	}
	Rebuild();
	Durable();
}

// --- streams ---------------------------------------------------------------------------------------------------------

bool Region::StoppedApplying(RegionId origin) const
{
	return !plan_.bugs.apply_from_fenced && map_.Find(origin)->status != Member::Status::kActive;
}

bool Region::BarrierHolds(const Entry &entry) const
{
	if (plan_.bugs.no_barrier)
		return true;
	Positions others = entry.depends_on;
	others.erase(id_);
	return core::Covers(applied_, others);
}

void Region::ApplyEntry(RegionId origin, const Entry &entry)
{
	Durable();
	const Position position = ++applied_[origin];
	switch (entry.kind) {
	case Entry::Kind::kWrite: {
		if (map_.Find(origin)->status == Member::Status::kLost)
			Rebuild();
		std::int64_t &value = values_[static_cast<std::size_t>(entry.home.value)];
		outside_->OnApplied(id_, origin, entry, value);
		value = entry.id;
		break;
	}
	case Entry::Kind::kRelease:
		releases_[{entry.home.value, entry.version}] = {origin, position};
		ownership_.push_back({entry.home, entry.version, origin, entry.to, false});
		Rebuild();
		break;
	case Entry::Kind::kAccept:
		ownership_.push_back({entry.home, entry.version, origin, origin, true});
		Rebuild();
		break;
	case Entry::Kind::kDepend:
		Rebuild();
		break;
	}
	Durable();
}

bool Region::Apply(const Region &origin)
{
	const Position next = core::PositionOf(applied_, origin.id_);
	// The publisher has dropped the slot of a region that its map calls lost.
	if (StoppedApplying(origin.id_) || Fenced() || paused_ || next >= origin.log_.size() ||
	    origin.map_.Find(id_)->status == Member::Status::kLost || !BarrierHolds(origin.log_[next]))
		return false;
	ApplyEntry(origin.id_, origin.log_[next]);
	return true;
}

bool Region::ApplyRelayed(RegionId origin, const Region &lost, const Region &source)
{
	const Member *member = map_.Find(origin), *there = source.map_.Find(origin);
	if (Fenced() || member->status != Member::Status::kLost ||
	    there->status != Member::Status::kLost)
		return false;
	const Position next = core::PositionOf(applied_, origin);
	const std::vector<core::StopReport> reports = {{source.id_,
	                                                core::PositionOf(source.applied_, origin),
	                                                source.indirect_.count(origin) == 0},
	                                               {id_, next, indirect_.count(origin) == 0}};
	const std::vector<core::Relay> relays = core::RelaysNeeded(member->final_position, reports);
	const bool ours = std::any_of(relays.begin(), relays.end(),
	                              [&](const core::Relay &relay) { return relay.to == id_; });
	if (!ours || !BarrierHolds(lost.log_[next]))
		return false;
	indirect_.insert(origin);
	ApplyEntry(origin, lost.log_[next]);
	return true;
}

bool Region::CopyFrom(const Region &source)
{
	if (Fenced() || !Missing())
		return false;
	if (!copied_) {
		if (source.Fenced() || source.Missing() || source.map_.epoch != map_.epoch)
			return false;
		Durable();
		paused_ = true;
		Durable();
		for (const Member &member : map_.members) {
			if (member.id != id_ && member.id != source.id_ &&
			    core::PositionOf(source.applied_, member.id) < core::PositionOf(applied_, member.id))
				return false;
		}
		if (core::PositionOf(source.applied_, id_) < log_.size() && !plan_.bugs.copy_over_own_writes)
			return false;
		Positions positions = source.applied_;
		positions.erase(id_);
		positions[source.id_] = source.log_.size();
		if (plan_.bugs.move_before_copying) {
			applied_ = positions;
			paused_ = false;
		}
		Durable(50);  // it takes long
		values_ = source.values_;
		ownership_ = source.ownership_;
		releases_ = source.releases_;
		copied_ = positions;
		Rebuild();
	}
	Durable();
	applied_ = *copied_;
	copied_.reset();
	paused_ = false;
	Rebuild();
	Durable();
	return true;
}

// --- leases and the map ---------------------------------------------------------------------------------------------

Message Region::Make(Message::Kind kind, RegionId to) const
{
	Message message{};
	message.kind = kind;
	message.from = id_;
	message.to = to;
	message.map = map_;
	message.applied = applied_;
	message.indirect = indirect_;
	return message;
}

// To ourselves first: what is asked of others must not be forgotten here, such as the number of a ballot.
void Region::Broadcast(Message message, Instant now)
{
	std::vector<RegionId> others;
	for (const Member &member : map_.members) {
		if (member.id != id_)
			others.push_back(member.id);
	}
	message.to = id_;
	Receive(message, now);
	for (const RegionId other : others) {
		message.to = other;
		outside_->Send(message);
	}
}

void Region::Renew(Instant now)
{
	if (now < renew_due_)
		return;
	renew_due_ = now + kRenewEvery;
	Message message = Make(Message::Kind::kRenew, id_);
	message.sent = now;
	Broadcast(message, now);
}

void Region::Learn(const ClusterMap &map, Instant)
{
	if (!(map_.epoch < map.epoch))
		return;
	Durable();
	map_ = map;
	outside_->OnLearned(id_, map_);
	Rebuild();
	Durable();
}

// A voter takes no map in which a region is lost that it has promised to let serve.
bool Region::AcceptsMap(const ClusterMap &map, Instant now) const
{
	if (plan_.bugs.vote_before_promise_ends)
		return true;
	return std::all_of(map.members.begin(), map.members.end(), [&](const Member &member) {
		return member.status == Member::Status::kActive ||
		       map_.Find(member.id)->status != Member::Status::kActive ||
		       voter_->MayDeclareLost(member.id, now);
	});
}

// The next step of a loss: another region pending, or the final position of one that is.
std::optional<core::RegisterValue> Region::NextMap(const core::RegisterValue &present) const
{
	// Somebody did not get to the end: a majority has to take it before it is known to be the value.
	if (map_.epoch < present.epoch)
		return present;
	ClusterMap map = ClusterMap::FromText(present.epoch, present.map);
	if (map.Find(id_)->status != Member::Status::kActive)
		return std::nullopt;
	bool changed = false;
	for (Member &member : map.members) {
		if (changed || member.status != Member::Status::kPending)
			continue;
		std::vector<core::StopReport> reports;
		std::vector<RegionId> survivors = map.Living();
		for (const auto &[reporter, report] : heard_[member.id.value]) {
			// Only what was said after it had stopped applying for good.
			if (!(report.first < present.epoch) || plan_.bugs.final_by_some)
				reports.push_back(report.second);
		}
		if (plan_.bugs.final_by_some) {
			survivors.clear();
			for (const core::StopReport &report : reports)
				survivors.push_back(report.reporter);
		}
		const auto final_position = core::FinalPosition(survivors, reports);
		if (!final_position)
			continue;
		member.status = Member::Status::kLost;
		member.final_position = *final_position;
		member.spread = map.Living();
		changed = true;
		break;
	}
	for (Member &member : map.members) {
		if (!changed && member.status == Member::Status::kActive &&
		    wanted_lost_.count(member.id) > 0 && member.id != id_) {
			member.status = Member::Status::kPending;
			changed = true;
		}
	}
	if (!changed)
		return std::nullopt;
	return core::RegisterValue{Epoch(present.epoch.value + 1), map.ToText()};
}

void Region::Propose(Instant now)
{
	if (proposer_ != nullptr && now < proposal_ends_)
		return;
	proposer_.reset();
	const bool unfinished = map_.epoch < acceptor_.value.epoch;
	const bool wanted =
		std::any_of(map_.members.begin(), map_.members.end(), [this](const Member &member) {
			return member.status == Member::Status::kPending ||
		           (member.status == Member::Status::kActive && wanted_lost_.count(member.id) > 0);
		});
	if ((!unfinished && !wanted) || Fenced() || now < propose_due_ ||
	    (!unfinished && !NextMap({map_.epoch, map_.ToText()})))
		return;
	propose_due_ = now + core::Milliseconds(500 + random_->Below(1500));
	proposal_ends_ = now + core::Milliseconds(2000);
	std::vector<RegionId> voters;
	for (const Member &member : map_.members)
		voters.push_back(member.id);
	ClusterMap initial;
	for (const Member &member : map_.members)
		initial.members.push_back({member.id});
	proposer_ =
		std::make_unique<core::Proposer>(core::Ballot{++highest_round_, id_}, voters,
	                                     core::RegisterValue{initial.epoch, initial.ToText()},
	                                     [this](const core::RegisterValue &present) {
											 return NextMap(present);
										 });
	Message message = Make(Message::Kind::kPrepare, id_);
	message.ballot = proposer_->ballot();
	Broadcast(message, now);
}

bool Region::HasVotedAgainst(RegionId region) const
{
	if (plan_.bugs.vote_before_promise_ends || acceptor_.accepted.round == 0)
		return false;
	return ClusterMap::FromText(acceptor_.value.epoch, acceptor_.value.map).Find(region)->status !=
	       Member::Status::kActive;
}

void Region::Tick(Instant now)
{
	Renew(now);
	AcceptHomes(now);
	TakeOver(now);
	Propose(now);
}

void Region::Receive(const Message &message, Instant now)
{
	Learn(message.map, now);
	// Who does not know the newest map applies from a region that is lost in it: its word is not final.
	if (!(message.map.epoch < map_.epoch)) {
		for (const Member &member : map_.members) {
			if (member.status == Member::Status::kPending)
				heard_[member.id.value][message.from] = {
					message.map.epoch,
					{message.from, core::PositionOf(message.applied, member.id),
				     message.indirect.count(member.id) == 0}};
		}
	}
	switch (message.kind) {
	case Message::Kind::kRenew:
		if (message.map.epoch < map_.epoch ||
		    map_.Find(message.from)->status != Member::Status::kActive) {
			if (message.from != id_)
				outside_->Send(Make(Message::Kind::kGossip, message.from));
			break;
		}
		// A voter that has taken a map in which the region is lost has voted against it, whether or not that map
		// has become the value.
		if (HasVotedAgainst(message.from))
			break;
		if (!voter_->Promise(message.from, now))
			break;
		{
			Message answer = Make(Message::Kind::kRenewed, message.from);
			answer.sent = message.sent;
			if (message.from == id_)
				Receive(answer, now);
			else
				outside_->Send(answer);
		}
		break;
	case Message::Kind::kRenewed:
		holder_->Renew(message.from, message.sent);
		break;
	case Message::Kind::kPrepare: {
		Durable();
		Message answer = Make(Message::Kind::kPrepared, message.from);
		answer.ballot = message.ballot;
		answer.prepared = core::OnPrepare(&acceptor_, message.ballot);
		Durable();
		if (message.from == id_)
			Receive(answer, now);
		else
			outside_->Send(answer);
		break;
	}
	case Message::Kind::kPrepared:
		highest_round_ = std::max(highest_round_, message.prepared.newest.round);
		if (proposer_ == nullptr || !(proposer_->ballot() == message.ballot) ||
		    proposer_->phase() != core::Proposer::Phase::kPreparing)
			break;
		proposer_->OnPrepareAnswer(message.from, message.prepared);
		if (proposer_->phase() == core::Proposer::Phase::kAccepting) {
			Message ask = Make(Message::Kind::kAccept, id_);
			ask.ballot = proposer_->ballot();
			ask.value = proposer_->value();
			Broadcast(ask, now);
		} else if (proposer_->phase() == core::Proposer::Phase::kPointless) {
			const core::RegisterValue value = proposer_->value();
			proposer_.reset();
			Learn(ClusterMap::FromText(value.epoch, value.map), now);
		} else if (proposer_->phase() == core::Proposer::Phase::kRefused) {
			proposer_.reset();
		}
		break;
	case Message::Kind::kAccept: {
		Message answer = Make(Message::Kind::kAccepted, message.from);
		answer.ballot = message.ballot;
		const ClusterMap proposed = ClusterMap::FromText(message.value.epoch, message.value.map);
		for (const Member &member : proposed.members) {
			if (member.status != Member::Status::kActive)
				voter_->Withhold(member.id, now + Terms(plan_).Promise() + core::Milliseconds(4000));
		}
		if (AcceptsMap(proposed, now)) {
			Durable();
			answer.accepted = core::OnAccept(&acceptor_, message.ballot, message.value);
			Durable();
		}
		if (message.from == id_)
			Receive(answer, now);
		else
			outside_->Send(answer);
		break;
	}
	case Message::Kind::kAccepted:
		if (proposer_ == nullptr || !(proposer_->ballot() == message.ballot))
			break;
		proposer_->OnAcceptAnswer(message.from, message.accepted);
		if (proposer_->phase() == core::Proposer::Phase::kDone) {
			const core::RegisterValue value = proposer_->value();
			proposer_.reset();
			Learn(ClusterMap::FromText(value.epoch, value.map), now);
		} else if (proposer_->phase() == core::Proposer::Phase::kRefused) {
			proposer_.reset();
		}
		break;
	case Message::Kind::kGossip:
		break;
	}
}

}  // namespace homing::sim
