// The name of a prepared part of a transaction over several regions, as PREPARE TRANSACTION takes it.
//
//   homing:<cluster>:<coordinator>:<epoch>:<database>:<pid>:<counter>:<token>:<part>
//
// `token` names the whole transaction: the row of homing.outcome with this id is the decision. `part`
// makes the name unique, because several regions can be databases of one server, which has one set of names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/ids.hpp"
#include "core/outcome_token.hpp"

namespace homing::core {

struct Gid {
	std::string cluster;  // the first 8 digits of the cluster's id
	RegionId coordinator;
	Epoch epoch;                 // of the coordinator's map
	std::uint32_t database = 0;  // the coordinator's, by oid
	std::int32_t pid = 0;        // of its backend
	std::uint64_t counter = 0;   // of the transactions of that backend
	OutcomeToken token;
	std::string part;

	std::string Text() const;  // shorter than 200 bytes
};

// Nothing when the name is none of ours.
std::optional<Gid> ParseGid(const std::string &text);

}  // namespace homing::core
