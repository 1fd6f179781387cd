// How a transaction at another region has ended, when its own connection cannot tell any more.
//
// Every transaction that we commit there inserts a row with its token into homing.outcome. Whoever has to
// know inserts a row with the same token that says "never": if that succeeds, the transaction can never
// commit, for its own insert will fail; if the transaction is still running, the insert waits for it; if
// the token is there already, the transaction has committed (PROTOCOL 2f).
#pragma once

#include "write/region_session.hpp"

#include "pg/boundary.hpp"

namespace homing::write {

// Neither committed nor ruled out as far as we can tell: 08007.
class OutcomeUnknown : public remote::Error {
public:
	OutcomeUnknown(const Place &place, const core::OutcomeToken &token, const std::string &reason);
};

// It has not committed and never will: 40001.
class NotCommitted : public remote::Error {
public:
	NotCommitted(const std::string &region, const std::string &reason);
};

// Whether the cluster map says that the region is lost.
bool IsLost(core::RegionId region);

// A new token for a transaction that commits at the region. Throws ServerError.
core::OutcomeToken NewToken(core::RegionId region, const std::string &role);

// Returns when the transaction has committed, with the position of its end or a later one, and its number
// of rows. Throws NotCommitted; OutcomeUnknown when homing.outcome_timeout passes, or the user cancels
// first. `reason` is why the connection did not tell.
void Learn(const Place &place, pg::LatchWaiter &waiter, const std::string &reason, bool cancelled,
           CommitPoint *commit);

}  // namespace homing::write
