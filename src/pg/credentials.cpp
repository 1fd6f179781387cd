#include "core/home_map.hpp"
#include "pg/credentials.hpp"

#include <chrono>
#include <string>

#include "pg/boundary.hpp"
#include "pg/catalog.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "utils/builtins.h"
#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "storage/fd.h"
#include "utils/syscache.h"
}

namespace homing::pg {

namespace {

constexpr const char *kPasswordRequired = "password_required";

struct DefaultOption {
	const char *keyword;
	const char *value;
};

// A forwarded commit must not hang for hours on a link that went silent.
constexpr DefaultOption kDefaults[] = {
	{"keepalives_idle", "10"},
	{"keepalives_interval", "5"},
	{"keepalives_count", "3"},
	{"tcp_user_timeout", "30000"},
};

struct Mapping {
	List *server_options = NIL;
	List *user_options = NIL;
	char *server_name = nullptr;
	char *role = nullptr;
	bool superuser = false;
	bool password_required = true;
	bool has_password = false;
};

List *UserMappingOptions(Oid serverid, Oid userid, bool *found)
{
	HeapTuple tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
	                                  ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
		                        ObjectIdGetDatum(serverid));
	*found = HeapTupleIsValid(tuple);
	if (!*found)
		return NIL;

	bool isnull;
	Datum options =
		SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	List *list = isnull ? NIL : untransformRelOptions(options);
	ReleaseSysCache(tuple);
	return list;
}

void ReadUserOptions(Mapping *mapping)
{
	ListCell *cell;
	foreach (cell, mapping->user_options) {
		DefElem *option = lfirst_node(DefElem, cell);
		if (strcmp(option->defname, kPasswordRequired) == 0)
			mapping->password_required = defGetBoolean(option);
		else if (strcmp(option->defname, "password") == 0 && defGetString(option)[0] != '\0')
			mapping->has_password = true;
	}
}

bool LacksPassword(const Mapping &mapping)
{
	return !mapping.superuser && mapping.password_required && !mapping.has_password;
}

void ReadMapping(Oid serverid, Oid userid, Mapping *mapping)
{
	ForeignServer *server = GetForeignServer(serverid);
	mapping->server_options = server->options;
	mapping->server_name = server->servername;
	mapping->role = GetUserNameFromId(userid, false);
	mapping->superuser = superuser_arg(userid);

	bool found;
	mapping->user_options = UserMappingOptions(serverid, userid, &found);
	if (!found && !mapping->superuser)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_OBJECT),
		         errmsg("user mapping not found for \"%s\" at region \"%s\"", mapping->role,
		                server->servername),
		         errhint("Create one with CREATE USER MAPPING FOR %s SERVER %s.",
		                 quote_identifier(mapping->role), quote_identifier(server->servername))));

	ReadUserOptions(mapping);
	if (LacksPassword(*mapping))
		ereport(
			ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
		     errmsg("password is required to write at region \"%s\"", server->servername),
		     errdetail("Non-superusers must provide a password in the user mapping."),
		     errhint(
				 "A superuser may waive this with the user mapping option password_required 'false'.")));
}

void Append(remote::ConnectionOptions &options, List *list)
{
	ListCell *cell;
	foreach (cell, list) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		if (strcmp(option->defname, kPasswordRequired) != 0)
			options.emplace_back(option->defname, strVal(option->arg));
	}
}

bool Has(const remote::ConnectionOptions &options, const char *keyword)
{
	for (const auto &option : options) {
		if (option.first == keyword)
			return true;
	}
	return false;
}

}  // namespace

remote::ConnectionOptions OptionsFor(Oid serverid, Oid userid)
{
	Mapping mapping;
	PgCall([&] { ReadMapping(serverid, userid, &mapping); });

	remote::ConnectionOptions options;
	Append(options, mapping.server_options);
	Append(options, mapping.user_options);
	if (!Has(options, "user"))
		options.emplace_back("user", mapping.role);
	for (const DefaultOption &option : kDefaults) {
		if (!Has(options, option.keyword))
			options.emplace_back(option.keyword, option.value);
	}
	options.emplace_back("client_encoding", GetDatabaseEncodingName());
	return options;
}

void CloseRegionConnection::operator()(remote::Connection *connection) const noexcept
{
	delete connection;
	ReleaseExternalFD();
}

namespace {

void TakeFileDescriptor()
{
	PgCall([&] {
		if (!AcquireExternalFD())
			ereport(ERROR,
			        (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			         errmsg("could not connect to another region"),
			         errdetail("There are too many open files on the local server."),
			         errhint(
						 "Raise the server's max_files_per_process and/or \"ulimit -n\" limits.")));
	});
}

// Makes a connection with a file descriptor that the server knows of.
template <typename Body>
auto WithFileDescriptor(const Body &body) -> decltype(body())
{
	TakeFileDescriptor();
	try {
		return body();
	} catch (...) {
		ReleaseExternalFD();
		throw;
	}
}

// One of several that are made at once. While it is on its way its file descriptor is counted by nobody.
struct OnItsWay {
	std::optional<remote::Connecting> connecting;
	Attempt *attempt;
};

void Advance(OnItsWay *one, LatchWaiter &waiter)
{
	try {
		one->connecting->Step();
		if (one->connecting->Done())
			one->attempt->connection = WithFileDescriptor([&] {
				return RegionConnection(new remote::Connection(std::move(*one->connecting), waiter));
			});
	} catch (const remote::CannotConnect &failure) {
		one->attempt->failure = failure;
	}
}

}  // namespace

RegionConnection Connect(const remote::ConnectionOptions &options, remote::Waiter &waiter)
{
	return WithFileDescriptor([&] {
		const std::chrono::milliseconds timeout(settings.connect_timeout_ms);
		return RegionConnection(new remote::Connection(options, waiter, timeout));
	});
}

std::vector<Attempt> ConnectAll(const std::vector<remote::ConnectionOptions> &options,
                                LatchWaiter &waiter)
{
	using Clock = std::chrono::steady_clock;
	const std::chrono::milliseconds timeout(settings.connect_timeout_ms);
	const auto deadline = Clock::now() + timeout;
	std::vector<Attempt> attempts(options.size());
	std::vector<OnItsWay> started(options.size());
	for (std::size_t i = 0; i < options.size(); ++i) {
		started[i].attempt = &attempts[i];
		try {
			started[i].connecting.emplace(options[i]);
		} catch (const remote::CannotConnect &failure) {
			attempts[i].failure = failure;
		}
	}
	for (;;) {
		std::vector<OnItsWay *> waiting;
		std::vector<LatchWaiter::Awaited> awaited;
		for (OnItsWay &one : started) {
			if (one.attempt->connection != nullptr || one.attempt->failure)
				continue;
			waiting.push_back(&one);
			awaited.push_back({one.connecting->Socket(), one.connecting->ForRead(), false});
		}
		if (waiting.empty())
			return attempts;
		const auto left =
			std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
		if (!waiter.WaitAny(awaited.data(), static_cast<int>(awaited.size()), left)) {
			for (OnItsWay *one : waiting)
				one->attempt->failure = remote::CannotConnect(
					"connection timed out after " + std::to_string(timeout.count()) + " ms");
			return attempts;
		}
		for (std::size_t i = 0; i < waiting.size(); ++i) {
			if (awaited[i].ready)
				Advance(waiting[i], waiter);
		}
	}
}

namespace {

remote::ConnectionOptions OptionsTo(Oid serverid, Oid userid)
{
	remote::ConnectionOptions options = OptionsFor(serverid, userid);
	// Whoever looks at sessions over there can find ours. One set for the server goes before it.
	if (const Catalog *catalog = CurrentCatalog())
		options.emplace_back("fallback_application_name",
		                     "pg_homing " + catalog->RegionName(catalog->map.here()) + " " +
		                         std::to_string(MyProcPid));
	return options;
}

// Adds the region to what goes wrong.
template <typename Body>
RegionConnection WithRegionInContext(Oid serverid, const Body &body)
{
	try {
		return body();
	} catch (remote::CannotConnect &error) {
		const char *region = PgCall([&] { return GetForeignServer(serverid)->servername; });
		error.context = "while connecting to region \"" + std::string(region) + "\"";
		throw;
	}
}

void CheckUsedPassword(Oid serverid, Oid userid, const remote::Connection &connection)
{
	const bool needs_password = PgCall([&] {
		Mapping mapping;
		ReadMapping(serverid, userid, &mapping);
		return !mapping.superuser && mapping.password_required;
	});
	if (!needs_password || connection.UsedPassword())
		return;
	remote::Error error("2F003", "password is required");
	error.detail = "Non-superuser cannot connect if the server does not request a password.";
	error.hint =
		"Change the region's authentication method, or let a superuser set password_required "
		"'false' in the user mapping.";
	throw error;
}

}  // namespace

RegionConnection ConnectTo(Oid serverid, Oid userid, remote::Waiter &waiter)
{
	const remote::ConnectionOptions options = OptionsTo(serverid, userid);
	RegionConnection connection =
		WithRegionInContext(serverid, [&] { return Connect(options, waiter); });
	CheckUsedPassword(serverid, userid, *connection);
	return connection;
}

bool CanConnectTo(Oid serverid, Oid userid)
{
	return PgCall([&] {
		Mapping mapping;
		bool found;
		mapping.superuser = superuser_arg(userid);
		mapping.user_options = UserMappingOptions(serverid, userid, &found);
		ReadUserOptions(&mapping);
		return (found || mapping.superuser) && !LacksPassword(mapping);
	});
}

remote::Connecting BeginConnectingTo(Oid serverid, Oid userid)
{
	return remote::Connecting(OptionsTo(serverid, userid));
}

RegionConnection FinishConnectingTo(Oid serverid, Oid userid, remote::Connecting begun,
                                    remote::Waiter &waiter)
{
	RegionConnection connection = WithRegionInContext(serverid, [&] {
		return WithFileDescriptor([&] {
			const std::chrono::milliseconds timeout(settings.connect_timeout_ms);
			return RegionConnection(new remote::Connection(std::move(begun), waiter, timeout));
		});
	});
	CheckUsedPassword(serverid, userid, *connection);
	return connection;
}

namespace {

bool IsUserOption(const PQconninfoOption &option)
{
	return strchr(option.dispchar, '*') != nullptr || strcmp(option.keyword, "user") == 0;
}

bool IsEitherOption(const PQconninfoOption &option)
{
	return strcmp(option.keyword, "sslcert") == 0 || strcmp(option.keyword, "sslkey") == 0;
}

// Settings that pg_homing itself decides on a connection.
bool IsReserved(const char *keyword)
{
	static const char *const kReserved[] = {"client_encoding", "fallback_application_name",
	                                        "replication", "connect_timeout"};
	for (const char *reserved : kReserved) {
		if (strcmp(keyword, reserved) == 0)
			return true;
	}
	return false;
}

bool Allowed(const PQconninfoOption &option, Oid catalog)
{
	if (strchr(option.dispchar, 'D') != nullptr || IsReserved(option.keyword))
		return false;
	if (IsEitherOption(option))
		return true;
	return IsUserOption(option) == (catalog == UserMappingRelationId);
}

void CheckOption(DefElem *definition, Oid catalog, const PQconninfoOption *known)
{
	if (catalog == UserMappingRelationId && strcmp(definition->defname, kPasswordRequired) == 0) {
		if (!defGetBoolean(definition) && !superuser())
			ereport(ERROR,
			        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			         errmsg("password_required=false is superuser-only"),
			         errhint("User mappings with the password_required option set to false may only be "
			                 "created or modified by the superuser.")));
		return;
	}
	if (catalog == UserMappingRelationId && !superuser() &&
	    (strcmp(definition->defname, "sslcert") == 0 || strcmp(definition->defname, "sslkey") == 0))
		ereport(ERROR,
		        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		         errmsg("sslcert and sslkey are superuser-only"),
		         errhint("User mappings with the sslcert or sslkey options set may only be created or modified by "
		                 "the superuser.")));

	for (const PQconninfoOption *option = known; option->keyword != nullptr; ++option) {
		if (strcmp(option->keyword, definition->defname) == 0 && Allowed(*option, catalog))
			return;
	}

	StringInfoData allowed;
	initStringInfo(&allowed);
	for (const PQconninfoOption *option = known; option->keyword != nullptr; ++option) {
		if (Allowed(*option, catalog))
			appendStringInfo(&allowed, "%s%s", allowed.len > 0 ? ", " : "", option->keyword);
	}
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
	                errmsg("invalid option \"%s\"", definition->defname),
	                allowed.len > 0 ? errhint("Valid options in this context are: %s", allowed.data)
	                                : errhint("There are no valid options in this context.")));
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_fdw_validator);

PGDLLEXPORT Datum homing_fdw_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	const Oid catalog = PG_GETARG_OID(1);

	PQconninfoOption *known = PQconndefaults();
	if (known == nullptr)
		ereport(ERROR, (errcode(ERRCODE_FDW_OUT_OF_MEMORY), errmsg("out of memory")));
	PG_TRY();
	{
		ListCell *cell;
		foreach (cell, options) {
			auto *definition = static_cast<DefElem *>(lfirst(cell));
			// Only servers and user mappings take options; the wrapper itself takes none.
			if (catalog != ForeignServerRelationId && catalog != UserMappingRelationId)
				ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				                errmsg("invalid option \"%s\"", definition->defname),
				                errhint("There are no valid options in this context.")));
			CheckOption(definition, catalog, known);
		}
	}
	PG_FINALLY();
	{
		PQconninfoFree(known);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::pg
