// Who owns which home: an immutable picture of the cluster map and the keyspaces at one epoch.
//
// Keys and rows never name a region. An owner is found in two steps, both from this picture alone:
// the home's recorded owner, then, while that region is lost, its heir. Taking over therefore
// changes only the entry of the lost region, whatever the number of keys (P8).
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/ids.hpp"

namespace homing::core {

enum class RegionStatus { kJoining, kActive, kLost };

struct Region {
	RegionId id;
	std::string name;
	RegionStatus status = RegionStatus::kActive;
	std::vector<RegionId> heirs;  // in order of preference; empty: spread over `spread`
	std::vector<RegionId> spread;  // the regions that survived the loss, ascending; set once, when lost
};

// The newest change of a home's owner in the ownership log; version 0: it never changed hands.
struct Handover {
	std::int64_t version = 0;
	RegionId from;
	RegionId to;
	bool accepted =
		true;  // false: released by `from`; nobody serves it until its owner has accepted it
};

struct Keyspace {
	KeyspaceId id;
	std::vector<RegionId> recorded_owners;  // one per home, by HomeId: the last one that was given it
	bool has_assignments = false;           // false: no explicit key → home row exists
	std::vector<Handover> handovers;  // one per home, by HomeId; empty: no home ever changed hands
	bool first_write = false;  // a key is assigned to the region that first writes it (core/claim)
};

class HomeMap {
public:
	// Requires: region and keyspace ids are unique.
	HomeMap(Epoch epoch, RegionId here, std::vector<Region> regions,
	        std::vector<Keyspace> keyspaces);

	Epoch epoch() const { return epoch_; }
	RegionId here() const { return here_; }
	// True when the map says that this very region is lost: it must not serve.
	bool HereIsLost() const;

	const Region *FindRegion(RegionId id) const;              // nullptr: unknown
	const Region *FindRegion(const std::string &name) const;  // the newest incarnation of that name
	const Keyspace *FindKeyspace(KeyspaceId id) const;

	// By HomeId, the homes that this region owns and that never changed hands; nullptr: the keyspace is unknown, or
	// its keys can be assigned to other homes than their hash says.
	const std::vector<bool> *UnmovedHere(KeyspaceId keyspace) const;

	// The region that owns the home now. Nothing when the keyspace or home is unknown, or when every
	// heir of a lost owner is lost too. O(1): resolved when the map is built.
	std::optional<RegionId> Owner(KeyspaceId keyspace, HomeId home) const;

	// The newest change of the home's owner. Version 0 when it, or the home, is unknown.
	Handover LastHandover(KeyspaceId keyspace, HomeId home) const;

	// Whether some home of the keyspace is given to this region and not accepted by it.
	bool AwaitsHomes(KeyspaceId keyspace) const { return awaited_.count(keyspace) > 0; }

	// Who would own the home if its owner were lost now, then if that one were lost too, and so on.
	std::vector<RegionId> HeirsOf(KeyspaceId keyspace, HomeId home) const;

	const std::vector<Region> &regions() const { return regions_; }
	const std::unordered_map<KeyspaceId, Keyspace> &keyspaces() const { return keyspaces_; }

private:
	static std::optional<RegionId> Resolve(const std::vector<Region> &regions, RegionId recorded,
	                                       HomeId home);

	Epoch epoch_;
	RegionId here_;
	std::vector<Region> regions_;
	std::unordered_map<KeyspaceId, Keyspace> keyspaces_;
	std::unordered_map<KeyspaceId, std::vector<std::optional<RegionId>>> owners_;
	std::unordered_map<KeyspaceId, std::vector<bool>> unmoved_here_;
	std::unordered_set<KeyspaceId> awaited_;  // keyspaces with homes on their way to here
};

}  // namespace homing::core
