// Homes that are about to be handed over, announced in the old owner's shared memory. Its sessions connect to the new
// owner while they still write here: when the homes are gone, their writes need not wait for that.
//
// It is a hint. One that was never taken back, because the session that moves homes died, ends by itself.
#pragma once

#include "core/ids.hpp"

#include <vector>

#include "pg/boundary.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace homing::pg {

struct ComingMove {
	static constexpr int kBits = 256;

	core::KeyspaceId keyspace;
	core::RegionId to;
	TimestampTz until;
	uint64 homes[kBits / 64];  // a bit for each home, by its number modulo kBits

	bool Concerns(core::HomeId home) const
	{
		const auto bit = static_cast<uint32>(home.value) % kBits;
		return (homes[bit / 64] >> (bit % 64) & 1) != 0;
	}
	bool Over() const;
};

// Shared memory; from _PG_init.
void RegisterComingMoves();

// Those in this database that are not over.
std::vector<ComingMove> ComingMoves();

}  // namespace homing::pg
