// Settings of a session that change what a statement means: they travel with it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace homing::write {

// Names and present values, in a fixed order. Throws ServerError.
std::vector<std::pair<std::string, std::string>> CurrentSettings();

// The isolation level of this transaction, as BEGIN spells it.
const char *IsolationLevel();
bool IsReadCommitted();

}  // namespace homing::write
