// Settings of a session that change what a statement means: they travel with it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace homing::write {

struct SessionSettings {
	std::uint64_t version = 0;                                // another one for other values
	std::vector<std::pair<std::string, std::string>> values;  // by name, in a fixed order
};

// The present ones. Valid until the next call. Throws ServerError.
const SessionSettings &CurrentSettings();

// The isolation level of this transaction, as BEGIN spells it.
const char *IsolationLevel();
bool IsReadCommitted();

}  // namespace homing::write
