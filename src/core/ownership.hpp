// The ownership log: how homes change hands on purpose (DESIGN §8, PROTOCOL 2b).
//
// The log only grows, and its rows arrive in the streams of different regions, so a reader may know any
// part of it. What a part means depends on the newest release in it alone:
//
//   no release                  the owner is the one recorded when the keyspace was made
//   release v to B              B is the recorded owner; nobody serves the home yet
//   release v to B, accept v    B, or the heir that accepted in its place, serves
#pragma once

#include <cstdint>
#include <vector>

#include "core/home_map.hpp"

namespace homing::core {

struct OwnershipEntry {
	HomeId home;
	std::int64_t version = 0;
	RegionId from;  // who wrote it
	RegionId to;    // for a release: the new owner
	bool accept = false;
};

// Brings the keyspace to what the entries, in any order, say. Entries of unknown homes are ignored.
void ApplyOwnershipLog(const std::vector<OwnershipEntry> &entries, Keyspace *keyspace);

}  // namespace homing::core
