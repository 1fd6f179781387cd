#include "core/ids.hpp"
#include "write/ddl_concurrently.hpp"

#include <string>

#include "pg/catalog.hpp"
#include "pg/credentials.hpp"
#include "pg/waiter.hpp"
#include "write/everywhere.hpp"
#include "write/session_settings.hpp"

namespace homing::write {

namespace {

struct Part {
	std::string name;
	pg::RegionConnection connection;
};

void Configure(remote::Connection *connection)
{
	for (const auto &[setting, value] : CurrentSettings().values)
		connection->Execute("SELECT pg_catalog.set_config($1, $2, false)", {{setting}, {value}});
	connection->Execute("SET homing.local_ddl = on");
	connection->Execute("SET client_min_messages = error");
}

std::string Names(const std::vector<std::string> &names)
{
	std::string list;
	for (const std::string &name : names)
		list += (list.empty() ? "" : ", ") + name;
	return list;
}

}  // namespace

void ExecuteConcurrently(const char *sql)
{
	pg::PgEntry([&] {
		pg::LatchWaiter waiter;
		std::vector<Part> parts;
		std::vector<std::string> done;
		const Oid user = GetUserId();
		// Nobody begins when one cannot be reached.
		for (core::RegionId region : OtherRegions()) {
			const std::string name = pg::CurrentCatalog()->RegionName(region);
			const Oid server = pg::PgCall([&] { return pg::RegionServer(name.c_str()); });
			parts.push_back({name, pg::ConnectTo(server, user, waiter)});
			Configure(parts.back().connection.get());
		}
		for (const Part &part : parts) {
			try {
				part.connection->ExecuteSimple(sql);
			} catch (remote::Error &error) {
				error.context += error.context.empty() ? "" : "\n";
				error.context += "while executing the statement at region \"" + part.name + "\"";
				if (!done.empty() && error.hint.empty())
					error.hint = "It has been executed at: " + Names(done) +
					             ". Repeat it with IF [NOT] EXISTS.";
				throw;
			}
			done.push_back(part.name);
		}
	});
}

}  // namespace homing::write
