#include "core/transition.hpp"

#include <algorithm>

namespace homing::core {

const std::vector<Transition> &Transitions()
{
	using S = HomeState;
	using E = HomeEvent;
	static const std::vector<Transition> table = {
		{S::kElsewhere, E::kGiven, S::kAwaited, "the old owner's release, applied from its stream",
	     "the release is the last thing the old owner wrote of the home, so all of it is here"},
		{S::kAwaited, E::kAccepted, S::kServed,
	     "dependency rows and the acceptance, in one transaction",
	     "third regions must apply the old owner's end before our first write"},
		{S::kServed, E::kReleased, S::kElsewhere, "the release, under the home's exclusive lock",
	     "writers hold the lock to the end, so none commits after the release"},
		{S::kElsewhere, E::kInherited, S::kServed,
	     "the map in which the owner is lost, with its final position",
	     "we have all that counts of every lost region"},
		{S::kElsewhere, E::kInheritedOpen, S::kAwaited, "the map in which the new owner is lost",
	     "it was lost between release and acceptance, or we lack some lost region's end"},
		{S::kAwaited, E::kInherited, S::kServed, "the end of the last lost region's stream",
	     "we have all that counts of every lost region"},
		{S::kAwaited, E::kMovedElsewhere, S::kElsewhere,
	     "a release of a lost region that was passed on",
	     "the region had given the home away before it was lost"},
		{S::kElsewhere, E::kOrphaned, S::kOrphan, "the map",
	     "the owner is lost and so are all its heirs"},
		{S::kElsewhere, E::kMovedElsewhere, S::kElsewhere, "a release or map of others",
	     "none of our business"},
		{S::kOrphan, E::kMovedElsewhere, S::kElsewhere,
	     "a release of a lost region that was passed on late",
	     "the region had given the home away before it was lost"},
		{S::kOrphan, E::kGiven, S::kAwaited, "a release of a lost region that was passed on late",
	     "the region had given the home to us before it was lost"},
		{S::kElsewhere, E::kFenced, S::kFenced, "the map in which we are lost", "others serve now"},
		{S::kAwaited, E::kFenced, S::kFenced, "the map in which we are lost",
	     "our heir accepts in our place"},
		{S::kServed, E::kFenced, S::kFenced, "the map in which we are lost",
	     "our lease is over, our heirs serve"},
		{S::kOrphan, E::kFenced, S::kFenced, "the map in which we are lost", "nothing was served"},
	};
	return table;
}

HomeState StateOf(const HomeMap &map, KeyspaceId keyspace, HomeId home, bool fenced, bool complete)
{
	if (fenced || map.HereIsLost())
		return HomeState::kFenced;
	const auto owner = map.Owner(keyspace, home);
	if (!owner)
		return HomeState::kOrphan;
	if (*owner != map.here())
		return HomeState::kElsewhere;
	const bool inherited =
		map.FindKeyspace(keyspace)->recorded_owners[static_cast<std::size_t>(home.value)] !=
		map.here();
	return map.LastHandover(keyspace, home).accepted && (complete || !inherited)
	           ? HomeState::kServed
	           : HomeState::kAwaited;
}

bool MayFollow(HomeState from, HomeState to)
{
	const auto &table = Transitions();
	return from == to || std::any_of(table.begin(), table.end(), [&](const Transition &t) {
			   return t.from == from && t.to == to;
		   });
}

const char *NameOf(HomeState state)
{
	switch (state) {
	case HomeState::kElsewhere:
		return "elsewhere";
	case HomeState::kAwaited:
		return "awaited";
	case HomeState::kServed:
		return "served";
	case HomeState::kOrphan:
		return "orphan";
	case HomeState::kFenced:
		return "fenced";
	}
	return "?";
}

const char *NameOf(HomeEvent event)
{
	switch (event) {
	case HomeEvent::kGiven:
		return "given";
	case HomeEvent::kAccepted:
		return "accepted";
	case HomeEvent::kReleased:
		return "released";
	case HomeEvent::kInherited:
		return "inherited";
	case HomeEvent::kInheritedOpen:
		return "inherited open";
	case HomeEvent::kOrphaned:
		return "orphaned";
	case HomeEvent::kMovedElsewhere:
		return "moved elsewhere";
	case HomeEvent::kFenced:
		return "fenced";
	}
	return "?";
}

std::string DrawTransitions()
{
	std::string dot = "digraph home {\n";
	for (const Transition &t : Transitions())
		dot += std::string("\t\"") + NameOf(t.from) + "\" -> \"" + NameOf(t.to) + "\" [label=\"" +
		       NameOf(t.event) + "\"];\n";
	return dot + "}\n";
}

}  // namespace homing::core
