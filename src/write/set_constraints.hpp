// SET CONSTRAINTS holds to the end of the transaction, and in its parts at other regions too.
#pragma once

#include <cstddef>
#include <string>

namespace homing::write {

// The statement was executed here. Executes it in the transactions of other regions that follow ours, where a violation
// shows at once; those that begin later take it along. A plain server call.
void FollowSetConstraints(const char *sql);

// What the transaction has set so far, in order.
std::size_t SetConstraintsCount();
const std::string &SetConstraintsText(std::size_t index);

}  // namespace homing::write
