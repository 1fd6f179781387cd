// From keys to a decision: where the statement runs. Takes the locks on the homes it serves.
#pragma once

#include "core/router.hpp"

#include "write/written_keys.hpp"

namespace homing::write {

struct Decision {
	bool serve;
	core::RegionId region;  // where it runs
	char *region_name;      // in the current memory context
};

// Raises the refusal: 25006 fenced, 0A000 several homes, 40001 moved, 08001 no owner, 55000 the table is
// not ready. With `lock`, a decision to serve holds the locks that keep it true. Throws ServerError and
// remote::Error.
Decision Decide(const WrittenKeys &keys, bool lock);

// A region that was forwarded a write of a home it does not own answers with this SQLSTATE; nobody but
// the forwarding region sees it.
constexpr const char *kNotHomeState = "HM001";

}  // namespace homing::write
