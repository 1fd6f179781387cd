// Claims of keys of first-write keyspaces (core/claim), at the region that owns the homes their hashes lead to.
//
// A writer comes here with the homes locked, and before it writes:
//
//  1. It has found keys without assignment. Those that it claims it inserts, in the order of their bytes. Another
//     transaction may have inserted one and not ended: the insert waits for that. If it committed, the key has
//     gone to its region, and we look again where the row belongs.
//  2. Those that it does not claim it keeps open: a lock keeps claims of others out until we have ended.
//     What was claimed before the lock was granted is seen when the key is looked up once more.
//
// The rows of homing.assignment that a claim for another region leaves are a release: see rehome/handover.cpp.
#pragma once

#include <array>
#include <vector>

#include "core/home_map.hpp"

#include "pg/boundary.hpp"

namespace homing::write {

// Which keys a kind of statement claims.
enum class Claiming {
	kNever,   // it keeps them open
	kOneKey,  // if it names a single one
	kAll
};

struct KeyBytes {
	const uint8 *data;
	Size size;
};

// Claims, or keeps open, those keys that have no assignment. `many`: more may follow in this statement.
// False: the keys have been claimed, by us or somebody else: look again where they live, in a new catalog.
// Throws ServerError.
bool SettleClaims(const core::HomeMap &map, core::KeyspaceId keyspace,
                  const std::vector<KeyBytes> &unassigned, bool claim, bool many);

// Keys that this session may have claimed at other regions, and that may not be known here yet: before it
// writes one again, it waits for what it has committed there (AwaitOwnCommits). Forgets the oldest; answers
// with the truth or with true.
class OwnClaims {
public:
	bool Has(core::KeyspaceId keyspace, const KeyBytes &key) const;
	void Add(core::KeyspaceId keyspace, const KeyBytes &key);
	void AddMany() { many_ = true; }
	bool Many() const { return many_; }
	void Forget();

private:
	std::array<std::uint64_t, 64> hashes_{};  // 0: none
	std::size_t next_ = 0;
	bool many_ = false;
};

extern OwnClaims own_claims;

}  // namespace homing::write
