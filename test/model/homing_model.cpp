// A model of the ownership protocol, checked exhaustively: every order of every step within the bounds.
//
//   homing_model REGIONS HOMES WRITES RELEASES FAULTS [BUG]...
//
// Home h belongs to region h at first. The bounds count all writes, releases, and regions cut off or dead
// in a run. The register is one step, a lease is valid or over; test/sim has them in detail. Prints OK, or
// VIOLATION with the shortest way to it. Exit: 0 OK, 1 violation, 2 wrong arguments or too many states.
//
// In every state:
//   P1  of every home at most one region can serve;
//   P7  a region applies a write to the value that it replaced where it was made;
//   P8  nobody serves on a value other than the last that survives, and copies are equal in the end.
//
// Actions, and what does them on servers (sql: src/extension/parts) or decides them in core:
//   Write      write/routing, core::RouteStatement
//   Release    sql homing._release_homes
//   Accept     sql homing._accept_homes with homing._depend_on
//   Apply      native apply with the trigger homing._barrier; core::Covers in the simulation
//   CutOff, Die, Heal, LeaseEnds    faults; core::LeaseHolder::MayServe
//   Declare    core::LeaseVoter::MayDeclareLost, core::Proposer; on servers the word of the operator, declare_lost
//   Fence      sql homing._stop_applying, homing._stopped_at; of the lost region itself homing._fence
//   Finalize   core::FinalPosition; sql homing._loss
//   PassOn     core::RelaysNeeded; declare_lost refuses where it would be needed
//   TakeOver   core::HasAllTails; sql homing._adopt_map
//   Depend     sql homing._depend_on
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace {

using Byte = std::uint8_t;

constexpr int kMostRegions = 5, kMostHomes = 2, kMostEntries = 6;
constexpr std::size_t kMostStates = 40000000;

enum Kind : Byte { kWrite = 1, kRelease, kAccept, kTakeOver, kDepend };
enum Health : Byte { kUp, kCutOff, kDead };

struct Entry {
	Byte kind;
	Byte home;
	Byte id, previous;         // write: unique and rising; the value that it replaced
	Byte version;              // release, accept
	Byte to;                   // release
	Byte needs[kMostRegions];  // accept, take-over, depend: how far of each stream must be applied before
};

// Only bytes: it is hashed as a whole.
struct State {
	Entry log[kMostRegions][kMostEntries];
	Byte length[kMostRegions];
	Byte applied[kMostRegions][kMostRegions];  // by reader, by whose stream
	Byte value[kMostRegions][kMostHomes];
	Byte health[kMostRegions];
	Byte lease[kMostRegions];
	Byte declared[kMostRegions];  // in the register
	Byte final_known[kMostRegions], final_position[kMostRegions];
	Byte fenced[kMostRegions][kMostRegions];  // the reader has stopped applying from; [r][r]: serves no more
	Byte must_copy[kMostRegions];  // has more than counts: out until it has copied all anew
	Byte taken_by[kMostRegions];   // 1 + who took over
	Byte writes, releases, faults;
};

struct Bounds {
	int regions, homes, writes, releases, faults;
};

// Errors planted on purpose.
struct Bugs {
	bool serve_before_acceptance = false;
	bool no_barrier = false;
	bool vote_early = false;  // a region is declared lost while its lease is valid
	bool no_lease = false;    // and serves whatever its lease says
	bool no_fence = false;    // survivors go on applying from a lost region
	bool no_relay = false;
	bool own_position = false;      // the final position is that of the heir
	bool skip_survivors = false;    // the final position is fixed without some survivors
	bool skip_after_lease = false;  // the same for those only whose lease is over
	bool one_tail = false;          // an heir waits for the end of that one lost region only
	bool depend_on_taken_only =
		false;  // what it depends on leaves out regions that others took over
};

const std::pair<const char *, bool Bugs::*> kBugs[] = {
	{"serve_before_acceptance", &Bugs::serve_before_acceptance},
	{"no_barrier", &Bugs::no_barrier},
	{"vote_early", &Bugs::vote_early},
	{"no_lease", &Bugs::no_lease},
	{"no_fence", &Bugs::no_fence},
	{"no_relay", &Bugs::no_relay},
	{"own_position", &Bugs::own_position},
	{"skip_survivors", &Bugs::skip_survivors},
	{"skip_after_lease", &Bugs::skip_after_lease},
	{"one_tail", &Bugs::one_tail},
	{"depend_on_taken_only", &Bugs::depend_on_taken_only},
};

Bounds bounds;
Bugs bugs;

// --- what a region knows -----------------------------------------------------------------------------------

struct Ownership {
	int version = 1, owner = 0;
	int releaser = -1,
		position = 0;  // where the release is; releaser -1: the home never changed hands
};

int Known(const State &s, int region, int origin)
{
	return origin == region ? s.length[region] : s.applied[region][origin];
}

Ownership OwnershipAt(const State &s, int region, int home)
{
	Ownership newest;
	newest.owner = home % bounds.regions;
	for (int origin = 0; origin < bounds.regions; ++origin) {
		for (int i = 0; i < Known(s, region, origin); ++i) {
			const Entry &e = s.log[origin][i];
			if (e.kind == kRelease && e.home == home && e.version > newest.version)
				newest = {e.version, e.to, origin, i + 1};
		}
	}
	return newest;
}

bool HasAccepted(const State &s, int region, int home, int version)
{
	if (version == 1 || bugs.serve_before_acceptance)
		return true;
	return std::any_of(s.log[region], s.log[region] + s.length[region], [&](const Entry &e) {
		return e.kind == kAccept && e.home == home && e.version == version;
	});
}

// A function of the register alone.
int HeirOf(const State &s, int lost)
{
	for (int r = 0; r < bounds.regions; ++r) {
		if (r != lost && !s.declared[r])
			return r;
	}
	return -1;
}

bool Inherits(const State &s, int region, const Ownership &of)
{
	return of.owner != region && s.declared[of.owner] && s.fenced[region][of.owner] &&
	       s.final_known[of.owner] && s.taken_by[of.owner] == region + 1 &&
	       s.applied[region][of.owner] >= s.final_position[of.owner];
}

// Our stream says that it depends on the release by which the home came.
bool DependsOnRelease(const State &s, int region, const Ownership &of)
{
	if (of.releaser < 0 || of.releaser == region)
		return true;
	return std::any_of(s.log[region], s.log[region] + s.length[region], [&](const Entry &e) {
		return e.kind >= kAccept && e.needs[of.releaser] >= of.position;
	});
}

void FillNeeds(const State &s, int region, Entry *entry)
{
	for (int origin = 0; origin < bounds.regions; ++origin) {
		Byte &need = entry->needs[origin];
		need = 0;
		if (origin == region)
			continue;
		if (s.declared[origin] && s.final_known[origin] &&
		    (s.taken_by[origin] == region + 1 || !bugs.depend_on_taken_only))
			need = s.final_position[origin];
		for (int i = 0; i < s.applied[region][origin]; ++i) {
			const Entry &e = s.log[origin][i];
			if (e.kind == kRelease && (e.to == region || s.declared[e.to]))
				need = std::max<Byte>(need, static_cast<Byte>(i + 1));
		}
	}
}

bool HasLease(const State &s, int region)
{
	return bugs.no_lease || s.lease[region];
}

bool CanServe(const State &s, int region, int home)
{
	if (s.health[region] == kDead || !HasLease(s, region) || s.must_copy[region])
		return false;
	const Ownership of = OwnershipAt(s, region, home);
	if (of.owner == region)
		return !(s.declared[region] && s.fenced[region][region]) &&
		       HasAccepted(s, region, home, of.version);
	return Inherits(s, region, of) && DependsOnRelease(s, region, of);
}

bool BarrierHolds(const State &s, int region, const Entry &entry)
{
	if (bugs.no_barrier || entry.kind < kAccept)
		return true;
	for (int origin = 0; origin < bounds.regions; ++origin) {
		if (origin != region && s.applied[region][origin] < entry.needs[origin])
			return false;
	}
	return true;
}

// --- the search: breadth first, states known by a hash of 64 bits ----------------------------------------------

std::uint64_t HashOf(const State &s)
{
	const auto *bytes = reinterpret_cast<const unsigned char *>(&s);
	std::uint64_t h = 1469598103934665603ull, g = 0x9E3779B97F4A7C15ull;
	for (std::size_t i = 0; i < sizeof s; ++i) {
		h = (h ^ bytes[i]) * 1099511628211ull;
		g = (g ^ bytes[i]) * 0xff51afd7ed558ccdull;
		g ^= g >> 29;
	}
	return h ^ (g * 0xc4ceb9fe1a85ec53ull);
}

class Search {
public:
	int Run();

private:
	void Add(const State &s, const std::string &step);
	void Step(const State &s, const std::string &step);
	void Fail(const std::string &what, const std::string &step = "");
	void CheckOneHome(const State &s);
	void CheckEnd(const State &s);
	bool Append(State *s, int region, const Entry &entry);
	void ApplyNext(State *s, int reader, int origin);
	void SetFenced(State *s, int reader, int lost);

	void ServeAndRelease(const State &s, int region);
	void AcceptAndDepend(const State &s, int region);
	void Apply(const State &s, int region);
	void Faults(const State &s, int region);
	void Declare(const State &s, int region);
	void Fence(const State &s, int lost);
	void Finalize(const State &s, int lost);
	void PassOn(const State &s, int lost);
	void TakeOver(const State &s, int lost);

	std::unordered_set<std::uint64_t> known_;
	std::deque<State> queue_;
	std::vector<std::pair<std::int64_t, unsigned>> came_;  // from which state, by which step
	std::unordered_map<std::string, unsigned> step_ids_;
	std::vector<std::string> steps_;
	std::int64_t at_ = -1;
	bool moved_ = false;  // some step leads on from here
	std::string fault_;   // found while a step is made
	bool failed_ = false;
};

std::string Name(int region)
{
	return std::string(1, static_cast<char>('A' + region));
}

void Search::Add(const State &s, const std::string &step)
{
	if (!known_.insert(HashOf(s)).second)
		return;
	const auto [id, is_new] = step_ids_.emplace(step, static_cast<unsigned>(steps_.size()));
	if (is_new)
		steps_.push_back(step);
	queue_.push_back(s);
	came_.push_back({at_, id->second});
}

void Search::Step(const State &s, const std::string &step)
{
	moved_ = true;
	if (!fault_.empty())
		Fail(fault_, step);
	else
		Add(s, step);
}

void Search::Fail(const std::string &what, const std::string &step)
{
	if (failed_)
		return;
	failed_ = true;
	std::printf("VIOLATION %s (%lld states)\n", what.c_str(), static_cast<long long>(at_ + 1));
	std::vector<std::string> way{step};
	for (std::int64_t i = at_; i > 0; i = came_[static_cast<std::size_t>(i)].first)
		way.push_back(steps_[came_[static_cast<std::size_t>(i)].second]);
	for (auto it = way.rbegin(); it != way.rend(); ++it) {
		if (!it->empty())
			std::printf("   %s\n", it->c_str());
	}
}

bool Search::Append(State *s, int region, const Entry &entry)
{
	if (s->length[region] >= kMostEntries)
		return false;
	s->log[region][s->length[region]++] = entry;
	return true;
}

void Search::ApplyNext(State *s, int reader, int origin)
{
	const Entry &e = s->log[origin][s->applied[reader][origin]++];
	if (e.kind != kWrite)
		return;
	Byte &value = s->value[reader][e.home];
	if (value != e.previous)
		fault_ = "P7: " + Name(reader) + " applies write " + std::to_string(e.id) + " on " +
		         std::to_string(value) + " instead of " + std::to_string(e.previous);
	value = e.id;
}

void Search::SetFenced(State *s, int reader, int lost)
{
	s->fenced[reader][lost] = 1;
	if (s->final_known[lost] && s->applied[reader][lost] > s->final_position[lost])
		s->must_copy[reader] = 1;
}

// --- the steps ---------------------------------------------------------------------------------------------------

// The last write of the home that is in what survives.
int LastSurviving(const State &s, int home)
{
	int last = 0;
	for (int r = 0; r < bounds.regions; ++r) {
		int end = s.length[r];
		if (s.final_known[r]) {
			end = s.final_position[r];
		} else if (s.declared[r]) {
			end = 0;
			for (int other = 0; other < bounds.regions; ++other) {
				if (other != r && !s.declared[other])
					end = std::max<int>(end, s.applied[other][r]);
			}
		}
		for (int i = 0; i < end; ++i) {
			if (s.log[r][i].kind == kWrite && s.log[r][i].home == home)
				last = std::max<int>(last, s.log[r][i].id);
		}
	}
	return last;
}

void Search::ServeAndRelease(const State &s, int region)
{
	for (int home = 0; home < bounds.homes; ++home) {
		if (!CanServe(s, region, home))
			continue;
		Entry e{};
		e.home = static_cast<Byte>(home);
		State t = s;
		e.kind = kWrite;
		e.id = ++t.writes;
		e.previous = s.value[region][home];
		if (s.writes < bounds.writes && Append(&t, region, e)) {
			t.value[region][home] = e.id;
			const int last = LastSurviving(s, home);
			if (last != e.previous && !s.declared[region])
				fault_ = "P8: " + Name(region) + " writes on " + std::to_string(e.previous) +
				         " but the last that survives is " + std::to_string(last);
			Step(t, Name(region) + " writes " + std::to_string(e.id) + " to home " +
			            std::to_string(home));
		}
		for (int to = 0; to < bounds.regions; ++to) {
			// Room is left for what follows.
			if (to == region || s.releases >= bounds.releases ||
			    s.length[region] + 1 >= kMostEntries)
				continue;
			State u = s;
			++u.releases;
			Entry release{};
			release.kind = kRelease;
			release.home = static_cast<Byte>(home);
			release.version = static_cast<Byte>(OwnershipAt(s, region, home).version + 1);
			release.to = static_cast<Byte>(to);
			Append(&u, region, release);
			Step(u, Name(region) + " releases home " + std::to_string(home) + " to " + Name(to));
		}
	}
}

void Search::AcceptAndDepend(const State &s, int region)
{
	if (s.health[region] == kDead || s.must_copy[region] || !HasLease(s, region))
		return;
	bool depend = false;
	for (int home = 0; home < bounds.homes; ++home) {
		const Ownership of = OwnershipAt(s, region, home);
		depend = depend || (s.health[region] == kUp && Inherits(s, region, of) &&
		                    !DependsOnRelease(s, region, of));
		if (of.owner != region || HasAccepted(s, region, home, of.version) ||
		    (s.declared[region] && s.fenced[region][region]))
			continue;
		State t = s;
		Entry e{};
		e.kind = kAccept;
		e.home = static_cast<Byte>(home);
		e.version = static_cast<Byte>(of.version);
		FillNeeds(s, region, &e);
		if (Append(&t, region, e))
			Step(t, Name(region) + " accepts home " + std::to_string(home));
	}
	State t = s;
	Entry e{};
	e.kind = kDepend;
	FillNeeds(s, region, &e);
	if (depend && Append(&t, region, e))
		Step(t, Name(region) + " writes what it depends on");
}

void Search::Apply(const State &s, int region)
{
	for (int origin = 0; origin < bounds.regions; ++origin) {
		const int next = s.applied[region][origin];
		if (origin == region || s.health[region] != kUp || s.health[origin] != kUp ||
		    s.must_copy[region] || s.must_copy[origin] || next >= s.length[origin])
			continue;
		const bool stopped =
			s.fenced[region][origin] || (s.declared[origin] && s.fenced[origin][origin]);
		if ((stopped && !bugs.no_fence) || !BarrierHolds(s, region, s.log[origin][next]))
			continue;
		State t = s;
		ApplyNext(&t, region, origin);
		Step(t, Name(region) + " applies " + std::to_string(next + 1) + " of " + Name(origin));
	}
}

void Search::Faults(const State &s, int region)
{
	if (s.health[region] == kUp && !s.declared[region] && s.faults < bounds.faults) {
		for (const Health health : {kCutOff, kDead}) {
			State t = s;
			++t.faults;
			t.health[region] = health;
			Step(t, Name(region) + (health == kDead ? " dies" : " is cut off"));
		}
	}
	if (s.health[region] != kUp && s.lease[region]) {
		State t = s;
		t.lease[region] = 0;
		Step(t, "the lease of " + Name(region) + " ends");
	}
	// It hears of the register before anything else.
	if (s.health[region] == kCutOff) {
		State t = s;
		t.health[region] = kUp;
		for (int lost = 0; lost < bounds.regions && !bugs.no_fence; ++lost) {
			if (s.declared[lost] && !t.fenced[region][lost])
				SetFenced(&t, region, lost);
		}
		if (s.declared[region] && !bugs.no_fence)
			t.must_copy[region] = 1;
		if (!t.must_copy[region] && !s.declared[region])
			t.lease[region] = 1;
		Step(t, Name(region) + " is back");
	}
}

void Search::Declare(const State &s, int region)
{
	int voters = 0;
	for (int r = 0; r < bounds.regions; ++r)
		voters += s.health[r] == kUp && !s.declared[r] ? 1 : 0;
	const bool over = !s.lease[region] || bugs.vote_early || bugs.no_lease;
	if (s.declared[region] || s.health[region] == kUp || voters * 2 <= bounds.regions || !over)
		return;
	State t = s;
	t.declared[region] = 1;
	Step(t, Name(region) + " is declared lost");
}

void Search::Fence(const State &s, int lost)
{
	for (int r = 0; r < bounds.regions; ++r) {
		if (r == lost || s.health[r] != kUp || s.declared[r] || s.fenced[r][lost] || s.must_copy[r])
			continue;
		State t = s;
		SetFenced(&t, r, lost);
		Step(t, Name(r) + " stops applying from " + Name(lost));
	}
}

void Search::Finalize(const State &s, int lost)
{
	const int heir = HeirOf(s, lost);
	if (s.final_known[lost] || heir < 0 || !s.fenced[heir][lost])
		return;
	int furthest = 0;
	for (int r = 0; r < bounds.regions; ++r) {
		if (r == lost || s.declared[r])
			continue;
		if (s.fenced[r][lost])
			furthest = std::max<int>(furthest, s.applied[r][lost]);
		else if (!bugs.skip_survivors && !(bugs.skip_after_lease && !s.lease[r]))
			return;
	}
	if (bugs.own_position)
		furthest = s.applied[heir][lost];
	State t = s;
	t.final_known[lost] = 1;
	t.final_position[lost] = static_cast<Byte>(furthest);
	Step(t, "the final position of " + Name(lost) + " is " + std::to_string(furthest));
}

void Search::PassOn(const State &s, int lost)
{
	for (int r = 0; r < bounds.regions && s.final_known[lost] && !bugs.no_relay; ++r) {
		const int next = s.applied[r][lost];
		if (r == lost || s.health[r] != kUp || !s.fenced[r][lost] || s.must_copy[r] ||
		    next >= s.final_position[lost] || !BarrierHolds(s, r, s.log[lost][next]))
			continue;
		bool has_source = false;
		for (int source = 0; source < bounds.regions; ++source)
			has_source = has_source || (source != r && source != lost && s.health[source] == kUp &&
			                            !s.must_copy[source] && s.applied[source][lost] > next);
		if (!has_source)
			continue;
		State t = s;
		ApplyNext(&t, r, lost);
		Step(t, Name(r) + " gets " + std::to_string(next + 1) + " of " + Name(lost) + " passed on");
	}
}

void Search::TakeOver(const State &s, int lost)
{
	const int heir = HeirOf(s, lost);
	if (!s.final_known[lost] || heir < 0 || s.taken_by[lost] == heir + 1 || s.health[heir] != kUp ||
	    !HasLease(s, heir) || s.must_copy[heir] || !s.fenced[heir][lost])
		return;
	const auto has_tail = [&](int of) {
		return s.final_known[of] && s.fenced[heir][of] &&
		       s.applied[heir][of] >= s.final_position[of];
	};
	if (!has_tail(lost) && !bugs.no_relay)
		return;
	for (int r = 0; r < bounds.regions && !bugs.one_tail && !bugs.no_relay; ++r) {
		if (s.declared[r] && !has_tail(r))
			return;
	}
	State t = s;
	t.taken_by[lost] = static_cast<Byte>(heir + 1);
	Entry e{};
	e.kind = kTakeOver;
	FillNeeds(s, heir, &e);
	if (!Append(&t, heir, e))
		return;
	if (bugs.no_relay)
		t.final_position[lost] = s.applied[heir][lost];
	Step(t, Name(heir) + " takes over " + Name(lost));
}

// --- what must hold --------------------------------------------------------------------------------------------------

void Search::CheckOneHome(const State &s)
{
	for (int home = 0; home < bounds.homes; ++home) {
		int server = -1;
		for (int r = 0; r < bounds.regions; ++r) {
			if (!CanServe(s, r, home))
				continue;
			if (server >= 0)
				Fail("P1: home " + std::to_string(home) + " is served by " + Name(server) +
				     " and " + Name(r));
			server = r;
		}
	}
}

// Nothing is left to do. Without a majority nobody gets that far.
void Search::CheckEnd(const State &s)
{
	int first = -1;
	for (int r = 0; r < bounds.regions; ++r) {
		if (s.health[r] != kUp && !(s.declared[r] && s.final_known[r]))
			return;
	}
	for (int r = 0; r < bounds.regions; ++r) {
		if (s.health[r] != kUp || s.declared[r] || s.must_copy[r])
			continue;
		if (first >= 0 && std::memcmp(s.value[r], s.value[first], sizeof s.value[r]) != 0)
			Fail("P8: " + Name(r) + " and " + Name(first) + " differ in the end");
		first = first < 0 ? r : first;
	}
}

int Search::Run()
{
	State start{};
	for (int r = 0; r < bounds.regions; ++r)
		start.lease[r] = 1;
	Add(start, "");
	std::size_t ends = 0;
	while (!queue_.empty() && !failed_) {
		if (came_.size() > kMostStates) {
			std::printf("too many states: choose smaller bounds\n");
			return 2;
		}
		const State s = queue_.front();
		queue_.pop_front();
		++at_;
		moved_ = false;
		CheckOneHome(s);
		for (int r = 0; r < bounds.regions && !failed_; ++r) {
			ServeAndRelease(s, r);
			AcceptAndDepend(s, r);
			Apply(s, r);
			Faults(s, r);
			Declare(s, r);
			if (!s.declared[r])
				continue;
			Fence(s, r);
			Finalize(s, r);
			PassOn(s, r);
			TakeOver(s, r);
		}
		if (!moved_ && !failed_) {
			++ends;
			CheckEnd(s);
		}
	}
	if (failed_)
		return 1;
	std::printf("OK: %zu states, %zu ends\n", came_.size(), ends);
	return 0;
}

bool ReadArguments(int argc, char **argv)
{
	if (argc < 6)
		return false;
	bounds = {std::atoi(argv[1]), std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]),
	          std::atoi(argv[5])};
	if (bounds.regions < 2 || bounds.regions > kMostRegions || bounds.homes < 1 ||
	    bounds.homes > kMostHomes)
		return false;
	for (int i = 6; i < argc; ++i) {
		const auto bug = std::find_if(std::begin(kBugs), std::end(kBugs), [&](const auto &b) {
			return std::strcmp(b.first, argv[i]) == 0;
		});
		if (bug == std::end(kBugs))
			return false;
		bugs.*(bug->second) = true;
	}
	return true;
}

}  // namespace

int main(int argc, char **argv)
{
	if (!ReadArguments(argc, argv)) {
		std::fprintf(stderr,
		             "usage: homing_model REGIONS HOMES WRITES RELEASES FAULTS [BUG]...\nbugs:");
		for (const auto &bug : kBugs)
			std::fprintf(stderr, " %s", bug.first);
		std::fprintf(stderr, "\n");
		return 2;
	}
	return Search().Run();
}
