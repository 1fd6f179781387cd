#include "core/deadlock.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

namespace homing::core {

namespace {

constexpr std::size_t kFields = 4;

std::optional<std::int64_t> ParseNumber(const std::string &text)
{
	if (text.empty() || text.size() > 18)
		return std::nullopt;
	std::int64_t number = 0;
	for (char c : text) {
		if (c < '0' || c > '9')
			return std::nullopt;
		number = number * 10 + (c - '0');
	}
	return number;
}

// The numbers behind "w," or "b,".
std::optional<std::array<std::int64_t, kFields>> ParseFields(const std::string &line)
{
	std::array<std::int64_t, kFields> fields{};
	std::size_t start = 2;
	for (std::size_t i = 0; i < kFields; ++i) {
		const std::size_t comma = line.find(',', start);
		const bool last = i + 1 == kFields;
		if (start > line.size() || (comma == std::string::npos) != last)
			return std::nullopt;
		const auto number = ParseNumber(line.substr(start, last ? comma : comma - start));
		if (!number)
			return std::nullopt;
		fields[i] = *number;
		start = comma + 1;
	}
	return fields;
}

bool AddLine(RegionId region, const std::string &line, WaitGraph *graph)
{
	if (line.size() < 2 || line[1] != ',')
		return false;
	const auto fields = ParseFields(line);
	constexpr std::int64_t kMaxPid = 0x7FFFFFFF;
	if (!fields || (*fields)[0] > kMaxPid)
		return false;
	const auto [first, second, third, began] = *fields;
	const Backend own{region, static_cast<int>(first)};
	if (line[0] == 'w' && second <= kMaxPid) {
		graph->waits.push_back({own, {region, static_cast<int>(second)}, third, began});
		return true;
	}
	if (line[0] == 'b' && second >= 1 && second <= 32767 && third <= kMaxPid) {
		const RegionId there(static_cast<std::int16_t>(second));
		graph->branches.push_back({own, {there, static_cast<int>(third)}, began});
		return true;
	}
	return false;
}

bool Same(const LockWait &a, const LockWait &b)
{
	return a.waiter == b.waiter && a.blocker == b.blocker && a.since == b.since;
}

bool Same(const Branch &a, const Branch &b)
{
	return a.origin == b.origin && a.remote == b.remote && a.began == b.began;
}

template <typename T>
std::vector<T> InBoth(const std::vector<T> &before, const std::vector<T> &after)
{
	std::vector<T> both;
	for (const T &item : before) {
		if (std::any_of(after.begin(), after.end(),
		                [&](const T &other) { return Same(item, other); }))
			both.push_back(item);
	}
	return both;
}

// The transactions of a graph, each under the name of its origin.
class Transactions {
public:
	explicit Transactions(const WaitGraph &graph)
	{
		for (const LockWait &wait : graph.waits)
			began_[wait.waiter] = wait.began;
		for (const Branch &branch : graph.branches) {
			origins_[branch.remote] = branch.origin;
			began_[branch.origin] = branch.began;
		}
		for (const LockWait &wait : graph.waits) {
			const Backend waiter = Of(wait.waiter), blocker = Of(wait.blocker);
			if (!(waiter == blocker))
				next_[waiter].insert(blocker);
		}
		for (const auto &[transaction, blockers] : next_)
			Follow(transaction, &reached_[transaction]);
	}

	Backend Of(const Backend &backend) const
	{
		const auto found = origins_.find(backend);
		return found != origins_.end() ? found->second : backend;
	}

	// Those that wait for themselves, in the end; knotted together if each waits for each other one.
	std::vector<std::vector<Backend>> Knots() const
	{
		std::vector<std::vector<Backend>> knots;
		std::set<Backend> seen;
		for (const auto &[transaction, reached] : reached_) {
			if (reached.count(transaction) == 0 || seen.count(transaction) > 0)
				continue;
			std::vector<Backend> knot;
			for (const Backend &other : reached) {
				const auto back = reached_.find(other);
				if (back != reached_.end() && back->second.count(transaction) > 0)
					knot.push_back(other);
			}
			seen.insert(knot.begin(), knot.end());
			knots.push_back(knot);
		}
		return knots;
	}

	Backend Youngest(const std::vector<Backend> &knot) const
	{
		return *std::max_element(knot.begin(), knot.end(), [&](const Backend &a, const Backend &b) {
			const std::int64_t of_a = began_.at(a), of_b = began_.at(b);
			return of_a < of_b || (of_a == of_b && a < b);
		});
	}

private:
	void Follow(const Backend &transaction, std::set<Backend> *reached) const
	{
		const auto blockers = next_.find(transaction);
		if (blockers == next_.end())
			return;
		for (const Backend &blocker : blockers->second) {
			if (reached->insert(blocker).second)
				Follow(blocker, reached);
		}
	}

	std::map<Backend, Backend> origins_;
	std::map<Backend, std::int64_t> began_;
	std::map<Backend, std::set<Backend>> next_, reached_;
};

// The waits inside the knot.
std::vector<LockWait> WaitsOf(const WaitGraph &graph, const Transactions &transactions,
                              const std::vector<Backend> &knot)
{
	const auto inside = [&](const Backend &backend) {
		return std::find(knot.begin(), knot.end(), transactions.Of(backend)) != knot.end();
	};
	std::vector<LockWait> waits;
	for (const LockWait &wait : graph.waits) {
		if (inside(wait.waiter) && inside(wait.blocker))
			waits.push_back(wait);
	}
	return waits;
}

// Whether some transaction is waited for in one process and waits in another. If none does, the server finds the
// deadlock itself.
bool IsHidden(const Transactions &transactions, const std::vector<LockWait> &waits)
{
	for (const LockWait &a : waits) {
		for (const LockWait &b : waits) {
			if (!(a.blocker == b.waiter) && transactions.Of(a.blocker) == transactions.Of(b.waiter))
				return true;
		}
	}
	return false;
}

}  // namespace

bool WaitGraph::Add(RegionId region, const std::string &text)
{
	WaitGraph added;
	for (std::size_t start = 0; start < text.size();) {
		const std::size_t end = std::min(text.find('\n', start), text.size());
		if (!AddLine(region, text.substr(start, end - start), &added))
			return false;
		start = end + 1;
	}
	waits.insert(waits.end(), added.waits.begin(), added.waits.end());
	branches.insert(branches.end(), added.branches.begin(), added.branches.end());
	return true;
}

WaitGraph Lasting(const WaitGraph &before, const WaitGraph &after)
{
	return {InBoth(before.waits, after.waits), InBoth(before.branches, after.branches)};
}

std::vector<Victim> FindVictims(const WaitGraph &graph)
{
	const Transactions transactions(graph);
	std::vector<Victim> victims;
	for (const std::vector<Backend> &knot : transactions.Knots()) {
		const std::vector<LockWait> waits = WaitsOf(graph, transactions, knot);
		if (!IsHidden(transactions, waits))
			continue;
		const Backend youngest = transactions.Youngest(knot);
		Victim victim;
		victim.circle = knot;
		for (const LockWait &wait : waits) {
			if (transactions.Of(wait.waiter) == youngest && wait.since >= victim.since) {
				victim.waiter = wait.waiter;
				victim.since = wait.since;
			}
		}
		victims.push_back(victim);
	}
	return victims;
}

}  // namespace homing::core
