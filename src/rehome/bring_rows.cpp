// Rows of a table of another region, copied in by COPY as an initial table synchronisation does.
#include "rehome/peer.hpp"

#include <cstdint>
#include <cstring>

#include "pg/boundary.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/namespace.h"
#include "commands/copy.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "replication/origin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace homing::rehome {

namespace {

// The copy that is running in this backend; COPY hands its data source no argument.
struct Source {
	remote::Connection *connection;
	const char *session;
};
Source source;

// The part of the last message that COPY has had no room for yet. Outlives the jump of an error.
std::string *rest = nullptr;
std::size_t rest_used = 0;

int ReadCopyData(void *buffer, int, int room)
{
	return pg::PgEntry([&]() -> int {
		if (rest_used == rest->size()) {
			std::optional<std::string> data;
			try {
				data = source.connection->ReceiveCopyData();
			} catch (const remote::Error &error) {
				throw AtPeer(error, source.session);
			}
			if (!data)
				return 0;
			*rest = std::move(*data);
			rest_used = 0;
		}
		const std::size_t size = std::min(rest->size() - rest_used, static_cast<std::size_t>(room));
		std::memcpy(buffer, rest->data() + rest_used, size);
		rest_used += size;
		return static_cast<int>(size);
	});
}

// Rows travel as texts, which say the same at both ends only if both write and read them alike. They are those of
// _bucket_digests: the condition may be about buckets and digests (_renew_rows).
constexpr struct {
	const char *name;
	const char *value;
} kTextSettings[] = {{"datestyle", "ISO, YMD"},     {"timezone", "UTC"},
                     {"intervalstyle", "postgres"}, {"extra_float_digits", "3"},
                     {"bytea_output", "hex"},       {"lc_monetary", "C"}};

std::string StatementOfTextSettings()
{
	std::string statement = "SELECT ";
	for (const auto &setting : kTextSettings)
		statement += std::string(&setting == kTextSettings ? "" : ", ") + "set_config('" +
		             setting.name + "', '" + setting.value + "', false)";
	return statement;
}

struct CopyPlan {
	List *columns;
	const char *statement;
};

// A partitioned table and a parent are read through a query: COPY reads neither as we want it.
CopyPlan PlanCopy(Relation table, const char *condition)
{
	CopyPlan plan{NIL, nullptr};
	StringInfoData columns, statement;
	initStringInfo(&columns);
	initStringInfo(&statement);
	TupleDesc description = RelationGetDescr(table);
	for (int i = 0; i < description->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(description, i);
		if (attribute->attisdropped || attribute->attgenerated != '\0')
			continue;
		plan.columns = lappend(plan.columns, makeString(pstrdup(NameStr(attribute->attname))));
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
		                 quote_identifier(NameStr(attribute->attname)));
	}
	const bool partitioned = table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	appendStringInfo(&statement, "COPY (SELECT %s FROM %s%s WHERE %s) TO STDOUT", columns.data,
	                 partitioned ? "" : "ONLY ",
	                 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
	                                            RelationGetRelationName(table)),
	                 condition);
	plan.statement = statement.data;
	return plan;
}

std::uint64_t CopyIn(Relation table, List *columns)
{
	std::uint64_t copied = 0;
	// As in an apply worker: only triggers that are enabled always or for replicas fire.
	const int nest = NewGUCNestLevel();
	(void) set_config_option("session_replication_role", "replica", PGC_SUSET, PGC_S_SESSION,
	                         GUC_ACTION_SAVE, true, 0, false);
	for (const auto &setting : kTextSettings)
		(void) set_config_option(setting.name, setting.value, PGC_USERSET, PGC_S_SESSION,
		                         GUC_ACTION_SAVE, true, 0, false);
	const RepOriginId before = replorigin_session_origin;
	PG_TRY();
	{
		// The mark that logical decoding knows for "applied, not written here": it is not sent on.
		replorigin_session_origin = DoNotReplicateId;
		ParseState *state = make_parsestate(nullptr);
		(void) addRangeTableEntryForRelation(state, table, RowExclusiveLock, nullptr, false, false);
		CopyFromState copy =
			BeginCopyFrom(state, table, nullptr, nullptr, false, ReadCopyData, columns, NIL);
		copied = CopyFrom(copy);
		EndCopyFrom(copy);
		free_parsestate(state);
	}
	PG_FINALLY();
	{
		replorigin_session_origin = before;
	}
	PG_END_TRY();
	AtEOXact_GUC(false, nest);
	return copied;
}

std::uint64_t BringRows(const char *session, Relation table, const char *condition, Relation into)
{
	if (rest == nullptr)
		rest = new std::string;
	rest->clear();
	rest_used = 0;
	remote::Connection &connection = PeerConnection(session);
	source = {&connection, session};
	const CopyPlan plan = pg::PgCall([&] { return PlanCopy(table, condition); });
	try {
		(void) connection.Execute(StatementOfTextSettings().c_str());
		connection.BeginCopy(plan.statement);
	} catch (const remote::Error &error) {
		throw AtPeer(error, session);
	}
	return pg::PgCall([&] { return CopyIn(into, plan.columns); });
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_bring_rows);

PGDLLEXPORT Datum homing_bring_rows(PG_FUNCTION_ARGS)
{
	const char *session = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Relation table = table_open(PG_GETARG_OID(1), RowExclusiveLock);
	const char *condition = text_to_cstring(PG_GETARG_TEXT_PP(2));
	const Oid other = PG_GETARG_OID(3);
	Relation into = OidIsValid(other) ? table_open(other, RowExclusiveLock) : table;
	const std::uint64_t copied =
		pg::PgEntry([&] { return BringRows(session, table, condition, into); });
	if (into != table)
		table_close(into, NoLock);
	table_close(table, NoLock);
	PG_RETURN_INT64(static_cast<int64>(copied));
}

}  // extern "C"

}  // namespace homing::rehome
