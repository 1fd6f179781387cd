// Regions, their clocks and the network between them. One thread, one seed, one order of events.
#pragma once

#include "checkers.hpp"
#include "plan.hpp"
#include "random.hpp"
#include "region.hpp"

#include <memory>
#include <queue>
#include <string>
#include <vector>

namespace homing::sim {

struct Outcome {
	std::string fault;  // empty: nothing was wrong
	std::int64_t writes = 0, moves = 0, losses = 0, crashes = 0, copies = 0;
	std::map<std::pair<core::HomeState, core::HomeState>, int> transitions;
};

class World : public Surroundings {
public:
	explicit World(const Plan &plan);
	Outcome Run();

private:
	struct Event {
		std::int64_t at;  // µs of true time
		std::int64_t number;
		enum class Kind { kTick, kMessage, kStream, kFault, kWork, kRestart, kHeal, kResume } kind;
		int a, b;
		std::shared_ptr<const Message> message;
		bool operator<(const Event &other) const
		{
			return at != other.at ? at > other.at : number > other.number;
		}
	};
	struct Machine {
		std::int64_t clock_offset = 0;
		std::int64_t clock_ppm = 0;
		bool paused = false;
		std::int64_t paused_at = 0, stood_still = 0;  // µs of true time
		std::vector<Event> held;                      // what comes while it is paused
	};

	void Send(const Message &message) override;
	void OnServed(RegionId region, HomeId home, const Entry &write) override;
	void OnApplied(RegionId region, RegionId origin, const Entry &write,
	               std::int64_t value_before) override;
	void OnLearned(RegionId region, const ClusterMap &map) override;
	void OnState(RegionId region, HomeId home, core::HomeState before,
	             core::HomeState after) override;

	void Push(std::int64_t after_us, Event event);
	void Handle(const Event &event);
	void DoFault();
	void DoWork();
	void DoStream(int to, int from);
	void Heal();
	template <typename Body>
	void At(int index, const Body &body);
	Instant NowAt(int index) const;
	const std::vector<Instant> &Clocks();
	bool Linked(int from, int to) const
	{
		return !cut_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
	}
	static int Index(RegionId region) { return region.value - 1; }

	Plan plan_;
	Random random_;
	Checkers checkers_;
	Outcome outcome_;
	std::vector<Region> regions_;
	std::vector<Machine> machines_;
	std::vector<Instant> clocks_;
	std::vector<std::vector<bool>> cut_;
	std::set<RegionId> wanted_lost_;
	std::priority_queue<Event> events_;
	std::int64_t now_ = 0, numbers_ = 0, writes_ = 0;
	bool faults_ = true;
};

}  // namespace homing::sim
