#include "write/session_settings.hpp"

#include <iterator>
#include <utility>

#include "pg/catalog.hpp"
#include "pg/settings.hpp"
#include "pg/watched_settings.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/guc.h"
#include "utils/varlena.h"
}

namespace homing::write {

namespace {

constexpr const char *kTravelling[] = {
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"array_nulls",
	"bytea_output",
	"client_min_messages",
	"default_text_search_config",
	"escape_string_warning",
	"extra_float_digits",
	"homing.read_consistency",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"lock_timeout",
	"row_security",
	"search_path",
	"standard_conforming_strings",
	"statement_timeout",
	"transform_null_equals",
	"xmlbinary",
	"xmloption",
};

// The user's list, homing.forward_settings; names of settings that do not exist are passed over.
List *UserList()
{
	List *names = NIL;
	if (pg::settings.forward_settings == nullptr || pg::settings.forward_settings[0] == '\0')
		return NIL;
	if (!SplitGUCList(pstrdup(pg::settings.forward_settings), ',', &names))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid list of names in setting homing.forward_settings")));
	return names;
}

std::vector<std::pair<std::string, std::string>> PresentValues(const pg::Catalog *catalog,
                                                               const List *user_list)
{
	std::vector<std::pair<std::string, std::string>> settings;
	const auto add = [&](const char *name) {
		const char *value = pg::PgCall([&] { return GetConfigOptionByName(name, nullptr, true); });
		if (value != nullptr)
			settings.emplace_back(name, value);
	};
	for (const char *name : kTravelling)
		add(name);

	// An implicit transaction there starts like this; others are begun with the level of ours.
	settings.emplace_back("default_transaction_isolation", "read committed");
	settings.emplace_back("default_transaction_deferrable", "off");
	settings.emplace_back("default_transaction_read_only", "off");
	settings.emplace_back("idle_in_transaction_session_timeout", "0");
	// A session that lost us ends what it runs.
	settings.emplace_back("client_connection_check_interval", "2s");
	if (catalog != nullptr)
		settings.emplace_back("homing.forwarded_from", catalog->RegionName(catalog->map.here()));

	ListCell *cell;
	foreach (cell, user_list)
		add(static_cast<const char *>(lfirst(cell)));
	return settings;
}

}  // namespace

bool IsReadCommitted()
{
	return XactIsoLevel == XACT_READ_COMMITTED || XactIsoLevel == XACT_READ_UNCOMMITTED;
}

const char *IsolationLevel()
{
	switch (XactIsoLevel) {
	case XACT_SERIALIZABLE:
		return "SERIALIZABLE";
	case XACT_REPEATABLE_READ:
		return "REPEATABLE READ";
	default:
		return "READ COMMITTED";
	}
}

const SessionSettings &CurrentSettings()
{
	static pg::WatchedSettings watched({std::begin(kTravelling), std::end(kTravelling)});
	static SessionSettings current;
	static core::RegionId here;
	static bool had_user_list = false;

	const pg::Catalog *catalog = pg::CurrentCatalog();
	const core::RegionId region = catalog != nullptr ? catalog->map.here() : core::RegionId();
	const List *names = pg::PgCall([] { return UserList(); });
	if (!watched.Changed() && region == here && names == NIL && !had_user_list)
		return current;
	here = region;
	had_user_list = names != NIL;
	std::vector<std::pair<std::string, std::string>> values = PresentValues(catalog, names);
	if (values != current.values) {
		current.values = std::move(values);
		++current.version;
	}
	return current;
}

}  // namespace homing::write
