#include "pg/watched_settings.hpp"

#include "pg/compat.hpp"

extern "C" {
#include "utils/guc.h"
#include "utils/guc_tables.h"
}

namespace homing::pg {

namespace {

double Number(const config_generic *setting)
{
	switch (setting->vartype) {
	case PGC_BOOL:
		return *reinterpret_cast<const config_bool *>(setting)->variable ? 1 : 0;
	case PGC_INT:
		return *reinterpret_cast<const config_int *>(setting)->variable;
	case PGC_REAL:
		return *reinterpret_cast<const config_real *>(setting)->variable;
	case PGC_ENUM:
		return *reinterpret_cast<const config_enum *>(setting)->variable;
	default:
		return 0;
	}
}

const char *Text(const config_generic *setting)
{
	if (setting->vartype != PGC_STRING)
		return "";
	const char *text = *reinterpret_cast<const config_string *>(setting)->variable;
	return text != nullptr ? text : "";
}

}  // namespace

// No value equals the first one.
void WatchedSettings::Find()
{
	for (const char *name : names_)
		watched_.push_back({PgCall([&] { return FindSetting(name); }), 0, "\1"});
}

bool WatchedSettings::Changed()
{
	if (watched_.empty())
		Find();
	bool changed = false;
	for (Watched &watched : watched_) {
		const double number = Number(watched.setting);
		const char *text = Text(watched.setting);
		if (number == watched.number && watched.text == text)
			continue;
		watched.number = number;
		watched.text = text;
		changed = true;
	}
	return changed;
}

}  // namespace homing::pg
