// The life of a home as one region sees it, as a table. What the code does follows from the map and the log
// (home_map, ownership, router); this says what may follow what, for tests to hold it against, and for
// people to read.
#pragma once

#include <string>
#include <vector>

#include "core/home_map.hpp"

namespace homing::core {

enum class HomeState {
	kElsewhere,  // another region owns it: writes are forwarded
	kAwaited,  // it was given to us, or inherited, and we do not have or have not accepted it: writes wait
	kServed,  // writes are executed here
	kOrphan,  // its owner and all heirs are lost
	kFenced   // this region serves nothing any more
};

enum class HomeEvent {
	kGiven,
	kAccepted,
	kReleased,
	kInherited,
	kInheritedOpen,
	kOrphaned,
	kMovedElsewhere,
	kFenced
};

struct Transition {
	HomeState from;
	HomeEvent event;
	HomeState to;
	const char *effects;  // what is durable before the state changes
	const char *why;
};

const std::vector<Transition> &Transitions();

// What the home is here. `complete`: this region has the end of every lost region's stream.
HomeState StateOf(const HomeMap &map, KeyspaceId keyspace, HomeId home, bool fenced, bool complete);

// Whether some event leads from one to the other.
bool MayFollow(HomeState from, HomeState to);

const char *NameOf(HomeState state);
const char *NameOf(HomeEvent event);
// The table as a diagram in DOT.
std::string DrawTransitions();

}  // namespace homing::core
