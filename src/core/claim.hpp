// First write: a key belongs to the region that writes it first (DESIGN §8).
//
// A key that nobody has claimed is owned by the owner of the home that its hash leads to. So first writes that
// race for a key all come to one region, each with the region that it is executed for, and the claim is a row
// of the writer's own transaction there: the key and its first row share their fate, and the primary key of
// that row decides who is first. A claim for another region is an assignment like any other: from its commit
// on nobody serves the key until the claimant has accepted it.
//
// A write that claims nothing (DELETE, FOR UPDATE, one that does not name its keys) must not see the key go
// to somebody else before it has committed: it keeps the key open.
#pragma once

#include "core/home_map.hpp"

namespace homing::core {

enum class ClaimStep {
	kNone,     // nothing to do: the key has its place, or it is for another region to say
	kClaim,    // the write claims the key
	kKeepOpen  // it does not, and nobody else may meanwhile
};

struct Claim {
	ClaimStep step = ClaimStep::kNone;
	HomeId home;         // kClaim: where the key goes
	bool moves = false;  // kClaim: to another region, which has to accept it
};

// What a write of one key does about its claim here. `writer`: the region that it is executed for. `claims`:
// whether it is of a kind that claims. `claimed`: the key has an assignment.
// A region that owns no home of the keyspace cannot claim, as a key goes to a home.
Claim ClaimFor(const HomeMap &map, KeyspaceId keyspace, std::uint64_t key_hash, RegionId writer,
               bool claims, bool claimed);

}  // namespace homing::core
