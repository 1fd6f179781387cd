#include "core/ids.hpp"
#include "rehome/peer.hpp"

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "pg/credentials.hpp"
#include "pg/home_lock.hpp"
#include "pg/shared_memory.hpp"
#include "pg/transaction_end.hpp"
#include "pg/waiter.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
}

namespace homing::rehome {

namespace {

struct Session {
	std::string conninfo;
	std::string place;  // for error contexts; holds no password
	bool replication = false;
	pg::RegionConnection connection;
	// Statements that were sent and whose answers are still to be taken; false: nobody wants that answer.
	std::deque<bool> posted;
	bool interrupted = false;  // while an answer was taken
	bool follows = false;
	bool kept = false;      // from an earlier transaction
	bool unproven = false;  // it was kept, and has not answered since
	// In a following session: the innermost subtransaction that used it since the last one that ended well.
	SubTransactionId used_in = InvalidSubTransactionId;
	bool undone_here =
		false;  // a subtransaction that used it was rolled back: it cannot be committed
};

// Outlives every jump; the process's end closes what is left. By name, which is the order of commits.
std::map<std::string, Session> *sessions = nullptr;

bool keeps_sessions = false;

// A session that was kept answers within this time, or counts as dead.
constexpr std::chrono::milliseconds kProof{1000};

void OnTransactionEnd(XactEvent event);
pg::EndListener end_listener{OnTransactionEnd};

pg::LatchWaiter &Waiter()
{
	static pg::LatchWaiter waiter;
	return waiter;
}

struct FreeConninfo {
	void operator()(PQconninfoOption *options) const { PQconninfoFree(options); }
};

const std::string *Find(const remote::ConnectionOptions &options, const char *keyword)
{
	for (const auto &option : options) {
		if (option.first == keyword)
			return &option.second;
	}
	return nullptr;
}

remote::ConnectionOptions Parse(const std::string &conninfo)
{
	char *complaint = nullptr;
	std::unique_ptr<PQconninfoOption, FreeConninfo> parsed(
		PQconninfoParse(conninfo.c_str(), &complaint));
	if (complaint != nullptr)
		PQfreemem(complaint);  // quotes the string, and with it perhaps a password
	if (parsed == nullptr) {
		remote::Error error("22023", "invalid connection string");
		error.hint = "It has the form of libpq: \"host=... port=... dbname=... user=...\".";
		throw error;
	}
	remote::ConnectionOptions options;
	for (const PQconninfoOption *option = parsed.get(); option->keyword != nullptr; ++option) {
		if (option->val != nullptr && strcmp(option->keyword, "client_encoding") != 0)
			options.emplace_back(option->keyword, option->val);
	}
	static const std::pair<const char *, const char *> kDefaults[] = {{"fallback_application_name",
	                                                                   "pg_homing"},
	                                                                  {"keepalives_idle", "10"},
	                                                                  {"keepalives_interval", "5"},
	                                                                  {"keepalives_count", "3"},
	                                                                  {"tcp_user_timeout", "30000"}};
	for (const auto &[keyword, value] : kDefaults) {
		if (Find(options, keyword) == nullptr)
			options.emplace_back(keyword, value);
	}
	options.emplace_back("client_encoding", GetDatabaseEncodingName());
	return options;
}

std::string Place(const remote::ConnectionOptions &options)
{
	std::string place;
	for (const char *keyword : {"host", "hostaddr", "port", "dbname"}) {
		const std::string *value = Find(options, keyword);
		if (value != nullptr)
			place += (place.empty() ? "" : " ") + std::string(keyword) + "=" + *value;
	}
	return place.empty() ? "the default server" : place;
}

remote::Error WithContext(remote::Error error, const std::string &place)
{
	if (!error.context.empty())
		error.context += "\n";
	error.context += "session with the region at " + place;
	return error;
}

bool IsBroken(const Session &session)
{
	return session.interrupted || session.connection->Lost() ||
	       (session.posted.empty() && session.connection->Broken());
}

Session &FindSession(const std::string &name)
{
	auto found = sessions->find(name);
	if (found == sessions->end())
		throw remote::Error("08003", "session \"" + name + "\" is not open");
	pg::ListenToEnd(&end_listener);
	if (IsBroken(found->second))
		throw WithContext(remote::ConnectionLost("session \"" + name + "\" was interrupted"),
		                  found->second.place);
	return found->second;
}

// Sends a statement, to be run as a transaction of its own, and does not wait.
void Post(Session &session, const std::string &sql, const std::vector<remote::Argument> &arguments,
          bool wanted = true)
{
	if (session.follows)
		session.used_in = GetCurrentSubTransactionId();
	try {
		session.connection->Send(sql, arguments);
		session.connection->SyncLater();
	} catch (const remote::Error &error) {
		throw WithContext(error, session.place);
	}
	session.posted.push_back(wanted);
}

// The answer to the oldest statement that was posted; throws the error that it ended with.
remote::Result TakeOne(Session &session)
{
	session.interrupted = true;
	remote::Result answer;
	std::optional<remote::Error> error;
	for (bool more = true; more;) {
		remote::Result result = session.connection->Receive();
		const ExecStatusType status = result ? PQresultStatus(result.get()) : PGRES_EMPTY_QUERY;
		more = status != PGRES_PIPELINE_SYNC;
		if (status == PGRES_FATAL_ERROR && !error)
			error = remote::Error::FromResult(result.get());
		else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
			answer = std::move(result);
	}
	session.interrupted = false;
	if (session.unproven) {
		session.unproven = false;
		session.connection->SetDeadline(std::nullopt);
	}
	const bool wanted = session.posted.front();
	session.posted.pop_front();
	if (error && wanted)
		throw *error;
	return answer;
}

void DropUnwanted(Session &session)
{
	while (!session.posted.empty() && !session.posted.front())
		(void) TakeOne(session);
}

remote::Result Take(Session &session)
{
	try {
		DropUnwanted(session);
		if (session.posted.empty())
			throw remote::Error("55000", "nothing was sent in the session");
		return TakeOne(session);
	} catch (const remote::Error &error) {
		throw WithContext(error, session.place);
	}
}

// Nothing that was sent may be left to take, as the next answer will not be that of the next statement.
void RequireAllTaken(Session &session)
{
	try {
		DropUnwanted(session);
	} catch (const remote::Error &error) {
		throw WithContext(error, session.place);
	}
	if (!session.posted.empty())
		throw remote::Error("55000", "answers in the session have not been taken");
}

// Takes up a session of an earlier transaction. False: it is dead.
bool TakeUp(Session &session)
{
	if (!session.kept)
		return true;
	if (!session.connection->StillThere())
		return false;
	session.kept = false;
	session.unproven = true;
	session.connection->SetDeadline(std::chrono::steady_clock::now() + kProof);
	pg::ListenToEnd(&end_listener);
	return true;
}

// False: it is open already.
bool NeedsOpening(const std::string &name, const std::string &conninfo)
{
	auto found = sessions->find(name);
	if (found == sessions->end())
		return true;
	Session &known = found->second;
	if (known.conninfo == conninfo && !IsBroken(known) && TakeUp(known))
		return false;
	if (known.follows)
		throw remote::Error("55000", "session \"" + name +
		                                 "\" takes part in this transaction and cannot be replaced");
	sessions->erase(found);
	return true;
}

bool IsReplication(const remote::ConnectionOptions &options)
{
	const std::string *replication = Find(options, "replication");
	return replication != nullptr && !replication->empty() && *replication != "false";
}

void Keep(const std::string &name, const std::string &conninfo,
          const remote::ConnectionOptions &options, pg::RegionConnection connection)
{
	Session &session = sessions->emplace(name, Session()).first->second;
	pg::ListenToEnd(&end_listener);
	session.conninfo = conninfo;
	session.place = Place(options);
	session.replication = IsReplication(options);
	session.connection = std::move(connection);
	if (session.replication)
		return;
	// They travel with the first statement. Not every platform can notice a client that went away; the others
	// say so with an error.
	Post(session, "SET client_connection_check_interval = '2s'", {}, false);
	Post(session, "SET search_path = pg_catalog, pg_temp", {}, false);
}

void Open(const std::string &name, const std::string &conninfo)
{
	if (!NeedsOpening(name, conninfo))
		return;
	const remote::ConnectionOptions options = Parse(conninfo);
	pg::RegionConnection connection;
	try {
		connection = pg::Connect(options, Waiter());
	} catch (const remote::Error &error) {
		throw WithContext(error, Place(options));
	}
	Keep(name, conninfo, options, std::move(connection));
}

// The same for several at once. Returns those that could not be opened, and why.
std::map<std::string, std::string> OpenAll(const std::map<std::string, std::string> &conninfos)
{
	std::vector<std::string> names;
	std::vector<remote::ConnectionOptions> options;
	for (const auto &[name, conninfo] : conninfos) {
		if (!NeedsOpening(name, conninfo))
			continue;
		names.push_back(name);
		options.push_back(Parse(conninfo));
	}
	std::vector<pg::Attempt> attempts = pg::ConnectAll(options, Waiter());
	std::map<std::string, std::string> failures;
	for (std::size_t i = 0; i < names.size(); ++i) {
		if (attempts[i].connection == nullptr)
			failures[names[i]] = attempts[i].failure->what();
		else
			Keep(names[i], conninfos.at(names[i]), options[i], std::move(attempts[i].connection));
	}
	return failures;
}

remote::Result Run(Session &session, const std::string &sql,
                   const std::vector<remote::Argument> &arguments)
{
	if (!session.replication) {
		RequireAllTaken(session);
		Post(session, sql, arguments);
		return Take(session);
	}
	try {
		if (!arguments.empty())
			throw remote::Error("22023", "a replication session takes no arguments");
		return session.connection->ExecuteSimple(sql);
	} catch (const remote::Error &error) {
		throw WithContext(error, session.place);
	}
}

void Follow(const std::string &name)
{
	Session &session = FindSession(name);
	if (session.follows)
		return;
	if (session.replication)
		throw remote::Error("22023", "a replication session has no transactions");
	RequireAllTaken(session);
	if (session.connection->TransactionStatus() != PQTRANS_IDLE)
		throw remote::Error("25001", "session \"" + name + "\" is in a transaction already");
	Run(session, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", {});
	session.follows = true;
	session.used_in = GetCurrentSubTransactionId();
}

void Close(const std::string &name)
{
	auto found = sessions->find(name);
	if (found == sessions->end())
		return;
	if (found->second.follows)
		throw remote::Error("55000", "session \"" + name +
		                                 "\" takes part in this transaction and cannot be closed");
	sessions->erase(found);
}

// Commits the followers. Ours comes after them: what they hold is useless without it, not the reverse.
void CommitFollowers()
{
	for (auto &[name, session] : *sessions) {
		if (!session.follows)
			continue;
		if (IsBroken(session))
			throw WithContext(remote::ConnectionLost("session \"" + name + "\" was interrupted"),
			                  session.place);
		// A COMMIT of a failed transaction would be answered with a quiet ROLLBACK.
		if (session.undone_here || session.connection->TransactionStatus() != PQTRANS_INTRANS)
			throw WithContext(remote::Error("40000",
			                                "cannot commit: a statement failed in session \"" +
			                                    name + "\""),
			                  session.place);
	}
	for (auto &[name, session] : *sessions) {
		if (!session.follows)
			continue;
		try {
			Run(session, "COMMIT", {});
		} catch (const remote::Error &error) {
			if (!IsBroken(session))
				throw;
			remote::Error unknown(
				"08007", "it is not known whether a region has committed its part of the change");
			unknown.detail = error.what();
			unknown.hint = "Nothing is changed here. Make the same call again.";
			throw WithContext(unknown, session.place);
		}
		session.follows = false;
	}
}

bool AnyFollows()
{
	for (const auto &entry : *sessions) {
		if (entry.second.follows)
			return true;
	}
	return false;
}

// Of those that nothing is to be expected from any more.
void KeepIdleSessions()
{
	for (auto entry = sessions->begin(); entry != sessions->end();) {
		Session &session = entry->second;
		session.kept = !session.follows && !session.replication && session.posted.empty() &&
		               !session.unproven && !IsBroken(session);
		entry = session.kept ? std::next(entry) : sessions->erase(entry);
	}
}

void OnTransactionEnd(XactEvent event)
{
	if (sessions->empty())
		return;
	switch (event) {
	case XACT_EVENT_PRE_COMMIT:
		pg::PgEntry([] { CommitFollowers(); });
		break;
	case XACT_EVENT_PRE_PREPARE:
		if (AnyFollows())
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg(
						 "cannot PREPARE a transaction that changed the cluster or a homed table")));
		break;
	case XACT_EVENT_COMMIT:
		if (keeps_sessions) {
			KeepIdleSessions();
			break;
		}
		[[fallthrough]];
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
		sessions->clear();  // an open transaction there ends with its connection: rolled back
		break;
	default:
		break;
	}
}

void OnSubTransactionEnd(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *)
{
	for (auto &entry : *sessions) {
		Session &session = entry.second;
		if (!session.follows || session.used_in != mine)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			session.undone_here = true;
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			session.used_in = parent;
	}
}

// --- SQL ------------------------------------------------------------------------------------------

struct RawStatement {
	const char *session;
	const char *sql;
	Datum *arguments;
	bool *nulls;
	int count;
};

RawStatement ReadStatement(FunctionCallInfo fcinfo)
{
	RawStatement raw{text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)),
	                 nullptr, nullptr, 0};
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &raw.arguments,
	                  &raw.nulls, &raw.count);
	for (int i = 0; i < raw.count; ++i) {
		if (!raw.nulls[i])
			raw.arguments[i] = PointerGetDatum(TextDatumGetCString(raw.arguments[i]));
	}
	return raw;
}

// One row as text[].
void PutRow(const PGresult *result, int row, ReturnSetInfo *out)
{
	const int columns = PQnfields(result);
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * (columns + 1)));
	auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * (columns + 1)));
	for (int i = 0; i < columns; ++i) {
		nulls[i] = PQgetisnull(result, row, i) != 0;
		values[i] = nulls[i]
		                ? (Datum) 0
		                : PointerGetDatum(cstring_to_text_with_len(PQgetvalue(result, row, i),
		                                                           PQgetlength(result, row, i)));
	}
	int dims[] = {columns}, bounds[] = {1};
	ArrayType *array = columns == 0 ? construct_empty_array(TEXTOID)
	                                : construct_md_array(values, nulls, 1, dims, bounds, TEXTOID,
	                                                     -1, false, TYPALIGN_INT);
	Datum datum = PointerGetDatum(array);
	bool isnull = false;
	tuplestore_putvalues(out->setResult, out->setDesc, &datum, &isnull);
	for (int i = 0; i < columns; ++i) {
		if (!nulls[i])
			pfree(DatumGetPointer(values[i]));
	}
	pfree(values);
	pfree(nulls);
	pfree(array);
}

void PassOnWarnings(remote::Connection &connection, const std::string &place)
{
	for (const remote::Error &notice : connection.TakeNotices()) {
		if (notice.severity != "WARNING")
			continue;
		pg::PgCall([&] {
			ereport(WARNING,
			        (errmsg_internal("%s", notice.what()),
			         notice.detail.empty() ? 0 : errdetail_internal("%s", notice.detail.c_str()),
			         notice.hint.empty() ? 0 : errhint("%s", notice.hint.c_str()),
			         errcontext("session with the region at %s", place.c_str())));
		});
	}
}

std::vector<remote::Argument> Arguments(const RawStatement &raw)
{
	std::vector<remote::Argument> arguments;
	for (int i = 0; i < raw.count; ++i) {
		remote::Argument argument;
		if (!raw.nulls[i])
			argument.text = DatumGetCString(raw.arguments[i]);
		arguments.push_back(std::move(argument));
	}
	return arguments;
}

void PutRows(Session &session, const remote::Result &result, ReturnSetInfo *out)
{
	PassOnWarnings(*session.connection, session.place);
	if (!result || PQresultStatus(result.get()) != PGRES_TUPLES_OK)
		return;
	pg::PgCall([&] {
		for (int row = 0; row < PQntuples(result.get()); ++row) {
			CHECK_FOR_INTERRUPTS();
			PutRow(result.get(), row, out);
		}
	});
}

void Query(const RawStatement &raw, ReturnSetInfo *out)
{
	Session &session = FindSession(raw.session);
	const remote::Result result = Run(session, raw.sql, Arguments(raw));
	PutRows(session, result, out);
}

}  // namespace

void RegisterPeers()
{
	sessions = new std::map<std::string, Session>;
	pg::AddEndListener(&end_listener);
	RegisterSubXactCallback(OnSubTransactionEnd, nullptr);
}

void KeepPeerSessions()
{
	keeps_sessions = true;
}

remote::Connection &PeerConnection(const std::string &name)
{
	Session &session = FindSession(name);
	RequireAllTaken(session);
	return *session.connection;
}

remote::Error AtPeer(remote::Error error, const std::string &session)
{
	auto found = sessions->find(session);
	return found == sessions->end() ? error : WithContext(std::move(error), found->second.place);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_peer_open);
PG_FUNCTION_INFO_V1(homing_peer_open_all);
PG_FUNCTION_INFO_V1(homing_peer_query);
PG_FUNCTION_INFO_V1(homing_peer_post);
PG_FUNCTION_INFO_V1(homing_peer_take);
PG_FUNCTION_INFO_V1(homing_peer_follow);
PG_FUNCTION_INFO_V1(homing_peer_close);
PG_FUNCTION_INFO_V1(homing_lock_change);
PG_FUNCTION_INFO_V1(homing_peer_give_back);
PG_FUNCTION_INFO_V1(homing_hold_change);
PG_FUNCTION_INFO_V1(homing_release_change);

static void RequireSessions()
{
	pg::RequireLoaded(sessions != nullptr);
}

PGDLLEXPORT Datum homing_peer_open(PG_FUNCTION_ARGS)
{
	RequireSessions();
	const char *session = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *conninfo = text_to_cstring(PG_GETARG_TEXT_PP(1));
	pg::PgEntry([&] { Open(session, conninfo); });
	PG_RETURN_VOID();
}

// Sessions and their connection strings; returns the sessions that could not be opened, and why.
PGDLLEXPORT Datum homing_peer_open_all(PG_FUNCTION_ARGS)
{
	RequireSessions();
	InitMaterializedSRF(fcinfo, 0);
	auto *out = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	Datum *names, *conninfos;
	int count, conninfo_count;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, nullptr,
	                  &count);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &conninfos,
	                  nullptr, &conninfo_count);
	if (count != conninfo_count)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be a connection string for each session")));
	for (int i = 0; i < count; ++i) {
		names[i] = PointerGetDatum(TextDatumGetCString(names[i]));
		conninfos[i] = PointerGetDatum(TextDatumGetCString(conninfos[i]));
	}
	pg::PgEntry([&] {
		std::map<std::string, std::string> wanted;
		for (int i = 0; i < count; ++i)
			wanted[DatumGetCString(names[i])] = DatumGetCString(conninfos[i]);
		for (const auto &failed : OpenAll(wanted)) {
			pg::PgCall([&] {
				Datum values[] = {CStringGetTextDatum(failed.first.c_str()),
				                  CStringGetTextDatum(failed.second.c_str())};
				bool nulls[] = {false, false};
				tuplestore_putvalues(out->setResult, out->setDesc, values, nulls);
			});
		}
	});
	return (Datum) 0;
}

PGDLLEXPORT Datum homing_peer_post(PG_FUNCTION_ARGS)
{
	RequireSessions();
	const RawStatement raw = ReadStatement(fcinfo);
	pg::PgEntry([&] {
		Session &session = FindSession(raw.session);
		if (session.replication)
			throw remote::Error("22023", "a replication session answers at once");
		Post(session, raw.sql, Arguments(raw));
	});
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_peer_take(PG_FUNCTION_ARGS)
{
	RequireSessions();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	auto *out = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg::PgEntry([&] {
		Session &session = FindSession(name);
		PutRows(session, Take(session), out);
	});
	return (Datum) 0;
}

PGDLLEXPORT Datum homing_peer_query(PG_FUNCTION_ARGS)
{
	RequireSessions();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	auto *out = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	const RawStatement raw = ReadStatement(fcinfo);
	pg::PgEntry([&] { Query(raw, out); });
	return (Datum) 0;
}

PGDLLEXPORT Datum homing_peer_follow(PG_FUNCTION_ARGS)
{
	RequireSessions();
	const char *session = text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg::PgEntry([&] { Follow(session); });
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_peer_close(PG_FUNCTION_ARGS)
{
	RequireSessions();
	const char *session = text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg::PgEntry([&] { Close(session); });
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_peer_give_back(PG_FUNCTION_ARGS)
{
	RequireSessions();
	const char *session = text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg::PgEntry([&] {
		if (!keeps_sessions)
			Close(session);
	});
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_lock_change(PG_FUNCTION_ARGS)
{
	pg::LockChange();
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_hold_change(PG_FUNCTION_ARGS)
{
	pg::HoldChange();
	PG_RETURN_VOID();
}

PGDLLEXPORT Datum homing_release_change(PG_FUNCTION_ARGS)
{
	pg::ReleaseChange();
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::rehome
