#include "world.hpp"

#include <set>

namespace homing::sim {

Plan PlanOf(std::uint64_t seed)
{
	Random random(seed * 7919 + 17);
	Plan plan;
	plan.seed = seed;
	plan.regions = 2 + static_cast<int>(random.Below(6));
	plan.homes = 1 + static_cast<int>(random.Below(3));
	plan.drop = random.Chance(0.3) ? 0 : 0.2 * static_cast<double>(random.Below(100)) / 100;
	plan.longest_delay_ms = 5 + static_cast<int>(random.Below(1000));
	plan.cut_per_s = random.Chance(0.3) ? 0 : 0.4;
	plan.crash_per_s = random.Chance(0.3) ? 0 : 0.2;
	plan.crash_at_write = random.Chance(0.3) ? 0 : 0.004;
	plan.pause_per_s = random.Chance(0.5) ? 0 : 0.2;
	plan.declare_per_s = random.Chance(0.3) ? 0 : 0.15;
	plan.hand_over_per_s = random.Chance(0.2) ? 0 : 4;
	plan.drift_ppm = 1000;
	plan.most_lost = (plan.regions - 1) / 2;
	plan.tails_kept = random.Chance(0.7);
	// Of two that lack different ends, neither has all; servers refuse the second loss.
	if (!plan.tails_kept)
		plan.most_lost = std::min(plan.most_lost, 1);
	return plan;
}

World::World(const Plan &plan) : plan_(plan), random_(plan.seed), checkers_(plan)
{
	ClusterMap map;
	for (int i = 1; i <= plan.regions; ++i)
		map.members.push_back({RegionId(static_cast<std::int16_t>(i))});
	for (const Member &member : map.members)
		regions_.emplace_back(member.id, plan_, map, &random_, this);
	const auto size = static_cast<std::size_t>(plan.regions);
	machines_.resize(size);
	clocks_.resize(size);
	cut_.assign(size, std::vector<bool>(size));
	for (Machine &machine : machines_) {
		machine.clock_offset = random_.Below(1000000000000);
		machine.clock_ppm = random_.Below(2 * plan.real_drift_ppm + 1) - plan.real_drift_ppm;
	}
}

// --- time -----------------------------------------------------------------------------------------------------

Instant World::NowAt(int index) const
{
	const Machine &machine = machines_[static_cast<std::size_t>(index)];
	const bool stopped = machine.paused && plan_.beyond.frozen_clock;
	const std::int64_t run = (stopped ? machine.paused_at : now_) - machine.stood_still;
	return {machine.clock_offset + run + run * machine.clock_ppm / 1000000};
}

const std::vector<Instant> &World::Clocks()
{
	for (int i = 0; i < plan_.regions; ++i)
		clocks_[static_cast<std::size_t>(i)] = NowAt(i);
	return clocks_;
}

void World::Push(std::int64_t after_us, Event event)
{
	event.at = now_ + after_us;
	event.number = ++numbers_;
	events_.push(std::move(event));
}

// Lets a region do something; a durable write may crash it.
template <typename Body>
void World::At(int index, const Body &body)
{
	Region &region = regions_[static_cast<std::size_t>(index)];
	if (!region.running())
		return;
	try {
		body(region);
	} catch (const Crash &) {
		region.Stop();
		++outcome_.crashes;
		Push(100000 + random_.Below(8000000), {0, 0, Event::Kind::kRestart, index, 0, {}});
	}
}

// --- the network --------------------------------------------------------------------------------------------------

void World::Send(const Message &message)
{
	const int from = Index(message.from), to = Index(message.to);
	const auto sent = std::make_shared<const Message>(message);
	const int copies = faults_ && random_.Chance(plan_.duplicate) ? 2 : 1;
	for (int i = 0; i < copies; ++i) {
		if (!Linked(from, to) || (faults_ && random_.Chance(plan_.drop)))
			continue;
		const std::int64_t longest = faults_ ? plan_.longest_delay_ms : 20;
		Push(500 + random_.Below(longest * 1000), {0, 0, Event::Kind::kMessage, to, from, sent});
	}
}

// One direction of a stream: over a connection, so both directions of the link are needed.
void World::DoStream(int to, int from)
{
	const Region &origin = regions_[static_cast<std::size_t>(from)];
	At(to, [&](Region &region) {
		for (int batch = 0; batch < 4; ++batch) {
			if (origin.running() && !machines_[static_cast<std::size_t>(from)].paused &&
			    Linked(from, to) && Linked(to, from) && region.Apply(origin))
				continue;
			if (!plan_.tails_kept) {
				if (origin.running() && !machines_[static_cast<std::size_t>(from)].paused &&
				    Linked(from, to) && Linked(to, from) && region.CopyFrom(origin))
					++outcome_.copies;
				break;
			}
			// Passed on by some other region that has it.
			bool relayed = false;
			for (int source = 0; source < plan_.regions && !relayed; ++source) {
				if (source == to || source == from ||
				    !regions_[static_cast<std::size_t>(source)].running() || !Linked(source, to) ||
				    !Linked(to, source))
					continue;
				relayed = region.ApplyRelayed(origin.id(), origin,
				                              regions_[static_cast<std::size_t>(source)]);
			}
			if (!relayed)
				break;
		}
	});
	const std::int64_t longest = faults_ && random_.Chance(0.1) ? 3000 : 60;
	Push(1000 + random_.Below(longest * 1000), {0, 0, Event::Kind::kStream, to, from, {}});
}

// --- what goes wrong -------------------------------------------------------------------------------------------------

void World::DoFault()
{
	const int victim = static_cast<int>(random_.Below(plan_.regions));
	if (random_.Chance(plan_.crash_per_s / 10)) {
		At(victim, [](Region &) { throw Crash(); });
	} else if (random_.Chance(plan_.pause_per_s / 10)) {
		Machine &machine = machines_[static_cast<std::size_t>(victim)];
		if (!machine.paused) {
			machine.paused = true;
			machine.paused_at = now_;
			Push(100000 + random_.Below(10000000), {0, 0, Event::Kind::kResume, victim, 0, {}});
		}
	} else if (random_.Chance(plan_.cut_per_s / 10)) {
		const bool one_way = random_.Chance(0.3), all = random_.Chance(0.4);
		const int other = static_cast<int>(random_.Below(plan_.regions));
		for (int i = 0; i < plan_.regions; ++i) {
			if (i == victim || (!all && i != other))
				continue;
			cut_[static_cast<std::size_t>(victim)][static_cast<std::size_t>(i)] = true;
			if (!one_way)
				cut_[static_cast<std::size_t>(i)][static_cast<std::size_t>(victim)] = true;
		}
		Push(500000 + random_.Below(15000000), {0, 0, Event::Kind::kHeal, victim, 0, {}});
	}
	if (plan_.beyond.wall_clock && random_.Chance(0.1)) {
		// By an hour, either way.
		constexpr std::int64_t kHour = 3600000000;
		machines_[static_cast<std::size_t>(victim)].clock_offset +=
			random_.Chance(0.5) ? kHour : -kHour;
	}
	if (random_.Chance(plan_.declare_per_s / 10)) {
		// Every region of the living may want it, also at the same time.
		std::set<RegionId> lost;
		for (const Region &region : regions_) {
			for (const Member &member : region.map().members) {
				if (member.status != Member::Status::kActive)
					lost.insert(member.id);
			}
		}
		const RegionId target(static_cast<std::int16_t>(1 + random_.Below(plan_.regions)));
		if (!plan_.tails_kept)
			lost.insert(wanted_lost_.begin(), wanted_lost_.end());
		lost.insert(target);
		if (static_cast<int>(lost.size()) <= plan_.most_lost) {
			for (int i = 0; i < plan_.regions; ++i) {
				if (i != Index(target) && random_.Chance(0.6))
					regions_[static_cast<std::size_t>(i)].WantLost(target);
			}
			if (plan_.cut_off_lost) {
				cut_[static_cast<std::size_t>(Index(target))].assign(regions_.size(), true);
				for (auto &row : cut_)
					row[static_cast<std::size_t>(Index(target))] = true;
			}
			wanted_lost_.insert(target);
			++outcome_.losses;
		}
	}
	if (faults_)
		Push(100000, {0, 0, Event::Kind::kFault, 0, 0, {}});
}

void World::DoWork()
{
	const HomeId home(static_cast<std::int32_t>(random_.Below(plan_.homes)));
	for (int i = 0; i < plan_.regions; ++i) {
		if (machines_[static_cast<std::size_t>(i)].paused)
			continue;
		At(i, [&](Region &region) {
			if (random_.Chance(plan_.hand_over_per_s / plan_.write_per_s)) {
				const RegionId to(static_cast<std::int16_t>(1 + random_.Below(plan_.regions)));
				outcome_.moves += region.Release(home, to, NowAt(i)) ? 1 : 0;
			} else {
				region.Write(home, ++writes_, NowAt(i));
			}
		});
	}
	if (faults_)
		Push(static_cast<std::int64_t>(1e6 / plan_.write_per_s),
		     {0, 0, Event::Kind::kWork, 0, 0, {}});
}

// --- the run ----------------------------------------------------------------------------------------------------------

void World::OnServed(RegionId, HomeId, const Entry &)
{
	++outcome_.writes;
}

void World::OnApplied(RegionId region, RegionId origin, const Entry &write,
                      std::int64_t value_before)
{
	checkers_.OnApplied(region, origin, write, value_before);
}

void World::OnLearned(RegionId region, const ClusterMap &map)
{
	checkers_.OnLearned(region, map);
}

void World::OnState(RegionId region, HomeId home, core::HomeState before, core::HomeState after)
{
	checkers_.OnState(region, home, before, after);
}

void World::Handle(const Event &event)
{
	Machine &machine = machines_[static_cast<std::size_t>(event.a)];
	const bool of_region =
		event.kind == Event::Kind::kTick || event.kind == Event::Kind::kMessage ||
		event.kind == Event::Kind::kStream || event.kind == Event::Kind::kRestart;
	if (of_region && machine.paused) {
		machine.held.push_back(event);
		return;
	}
	switch (event.kind) {
	case Event::Kind::kTick:
		At(event.a, [&](Region &region) { region.Tick(NowAt(event.a)); });
		Push(50000 + random_.Below(50000), {0, 0, Event::Kind::kTick, event.a, 0, {}});
		break;
	case Event::Kind::kMessage:
		At(event.a, [&](Region &region) { region.Receive(*event.message, NowAt(event.a)); });
		break;
	case Event::Kind::kStream:
		DoStream(event.a, event.b);
		break;
	case Event::Kind::kFault:
		DoFault();
		break;
	case Event::Kind::kWork:
		DoWork();
		break;
	case Event::Kind::kRestart:
		// Its clock says nothing about the one before.
		machine.clock_offset += random_.Below(1000000000);
		regions_[static_cast<std::size_t>(event.a)].Start(NowAt(event.a));
		break;
	case Event::Kind::kHeal:
		for (int i = 0; i < plan_.regions; ++i) {
			cut_[static_cast<std::size_t>(event.a)][static_cast<std::size_t>(i)] = false;
			cut_[static_cast<std::size_t>(i)][static_cast<std::size_t>(event.a)] = false;
		}
		break;
	case Event::Kind::kResume:
		machine.paused = false;
		if (plan_.beyond.frozen_clock)
			machine.stood_still += now_ - machine.paused_at;
		for (Event &held : machine.held)
			Push(random_.Below(1000), held);
		machine.held.clear();
		break;
	}
}

void World::Heal()
{
	faults_ = false;
	plan_.crash_at_write = 0;
	for (auto &row : cut_)
		row.assign(row.size(), false);
	for (int i = 0; i < plan_.regions; ++i) {
		regions_[static_cast<std::size_t>(i)].NoMoreCrashes();
		if (machines_[static_cast<std::size_t>(i)].paused)
			Handle({now_, 0, Event::Kind::kResume, i, 0, {}});
	}
}

Outcome World::Run()
{
	for (int i = 0; i < plan_.regions; ++i) {
		regions_[static_cast<std::size_t>(i)].Start(NowAt(i));
		Push(random_.Below(50000), {0, 0, Event::Kind::kTick, i, 0, {}});
		for (int j = 0; j < plan_.regions; ++j) {
			if (i != j)
				Push(random_.Below(50000), {0, 0, Event::Kind::kStream, i, j, {}});
		}
	}
	Push(100000, {0, 0, Event::Kind::kFault, 0, 0, {}});
	Push(1000, {0, 0, Event::Kind::kWork, 0, 0, {}});

	const std::int64_t end = (plan_.faulty_ms + plan_.healing_ms) * 1000;
	while (!events_.empty() && events_.top().at <= end && checkers_.fault().empty()) {
		const Event event = events_.top();
		events_.pop();
		now_ = event.at;
		if (faults_ && now_ >= plan_.faulty_ms * 1000)
			Heal();
		Handle(event);
		checkers_.CheckOneHome(regions_, Clocks());
	}
	now_ = std::max(now_, end);
	if (checkers_.fault().empty())
		checkers_.CheckEnd(regions_, Clocks());
	outcome_.fault = checkers_.fault();
	outcome_.transitions = checkers_.seen();
	return outcome_;
}

}  // namespace homing::sim
