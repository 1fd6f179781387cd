// What a session tells others of: all that it has committed or been told of, in any region.
//
// A session's own reads wait only for what has not arrived in its region, and forget it once it has. Another region may
// be further behind, so that is no reason not to tell of it.
#pragma once

#include "core/causal.hpp"

#include <string>

namespace homing::write {

void TellPosition(core::RegionId region, std::uint64_t position);
void TellPart(core::RegionId region, const core::OutcomeToken &part);
// All of it but what the region itself has committed, as a causal token; empty: nothing.
std::string ToldBeyond(core::RegionId region);
// The transaction has failed.
void TakeBackPart(core::RegionId region, const core::OutcomeToken &part) noexcept;
// What was committed there was lost, and the session was told.
void ForgetTold(core::RegionId region);

}  // namespace homing::write
