// Notices that settings of the session have changed, without printing their values each time.
#pragma once

#include <string>
#include <vector>

#include "pg/boundary.hpp"

struct config_generic;

namespace homing::pg {

class WatchedSettings {
public:
	// Settings of the server's own that any session has.
	explicit WatchedSettings(std::vector<const char *> names) : names_(std::move(names)) {}

	// Whether one has another value than at the last call; the first call says yes. Throws ServerError.
	bool Changed();
	const std::vector<const char *> &names() const { return names_; }

private:
	struct Watched {
		config_generic *setting;
		double number;     // of those that have one
		std::string text;  // of those that are text
	};

	void Find();

	std::vector<const char *> names_;
	std::vector<Watched> watched_;
};

}  // namespace homing::pg
