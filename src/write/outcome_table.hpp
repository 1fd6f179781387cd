// The rows of homing.outcome in this database. Plain server calls.
#pragma once

#include "pg/boundary.hpp"

namespace homing::write {

struct KeptOutcome {
	bool known;  // a row that is visible here
	bool committed;
	uint64 rows;
};

// Writes a new token for a transaction that commits at the region.
void FillToken(int16 region, uint8 *token);

// Inserts, as part of our transaction, that it commits: the decision of a transaction over several regions, whose
// parts commit under `parts`, tokens one after the other.
void KeepDecision(const uint8 *token, const uint8 *parts, int part_count);

// Inserts, as part of our transaction, a row that stands for nothing, under a new token, which is
// written to `mark`. Where it has been applied, so has all that was committed here before.
void LeaveMark(int16 region, uint8 *mark = nullptr);

KeptOutcome FindOutcome(const uint8 *token);

// Hooks; from _PG_init.
void RegisterOutcomeTable();

}  // namespace homing::write
