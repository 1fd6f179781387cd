#include "core/ids.hpp"
#include "write/copy.hpp"

#include <optional>
#include <string>
#include <vector>

#include "pg/catalog.hpp"
#include "pg/home_lock.hpp"
#include "pg/key_home.hpp"
#include "pg/settings.hpp"
#include "write/binary_rows.hpp"
#include "write/claims.hpp"
#include "write/copy_rows.hpp"
#include "write/copy_statement.hpp"
#include "write/copy_streams.hpp"
#include "write/everywhere.hpp"
#include "write/forward.hpp"
#include "write/guard.hpp"
#include "write/homed_relation.hpp"
#include "write/portable_type.hpp"
#include "write/routing.hpp"
#include "write/serve_here.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "nodes/value.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
}

namespace homing::write {

namespace {

// Who owns the homes of the table, as of when the catalog was last looked at.
struct Owners {
	core::Keyspace keyspace;
	std::vector<std::optional<core::RegionId>> regions;  // by home
	core::RegionId here;
};

struct RoutedCopy {
	HomedRelation table;
	CopyTarget target;
	CopyRows rows;
	Owners *owners;
	CopyStreams *streams;
	uint64 rows_read;

	// core's COPY of the rows of this region
	CopyFromState local;
	bool row_ready;  // the current row has not been given to it entirely
	int given;       // bytes of the current row that were
	bool header_due, ended;
	ErrorContextCallback *outer_context;
};

// The one whose local COPY runs; a trigger of it may run another.
RoutedCopy *active = nullptr;

// --- routing ----------------------------------------------------------------------------------------------------

void LoadOwners(RoutedCopy *copy)
{
	for (;;) {
		const uint64 seen = pg::CurrentVersion().catalog;
		const pg::Catalog *catalog = pg::CurrentCatalog();
		const core::Keyspace *keyspace =
			catalog != nullptr ? catalog->map.FindKeyspace(copy->table.keyspace) : nullptr;
		if (keyspace == nullptr)
			throw remote::Error("40001", "the homed table changed while COPY was running");
		Owners owners{*keyspace, {}, catalog->map.here()};
		for (std::size_t i = 0; i < keyspace->recorded_owners.size(); ++i)
			owners.regions.push_back(
				catalog->map.Owner(keyspace->id, core::HomeId(static_cast<std::int32_t>(i))));
		*copy->owners = std::move(owners);
		// Before anything is looked up that counts.
		pg::PgCall([&] { pg::LockKeyspaceForWrite(copy->table.keyspace); });
		AwaitArrivals(copy->table.keyspace);
		if (pg::CurrentVersion().catalog == seen)
			return;
	}
}

core::RegionId RegionOfRow(RoutedCopy *copy)
{
	return pg::PgEntry([&] {
		if (!pg::CatalogIsCurrent())
			LoadOwners(copy);
		for (;;) {
			const pg::KeyHome home =
				pg::FindKeyHome(copy->owners->keyspace, copy->rows.key.data, copy->rows.key.size);
			if (!home.arrived) {
				LoadOwners(copy);
				continue;
			}
			const std::optional<core::RegionId> region =
				copy->owners->regions.at(static_cast<std::size_t>(home.home.value));
			if (!region)
				throw remote::Error("08001",
				                    "the home of the row is lost, and so are all its heirs");
			if (*region != copy->owners->here && pg::settings.forwarded_from[0] != '\0')
				throw remote::Error(kNotHomeState, "the home of the row is not in this region");
			if (home.assigned || !copy->owners->keyspace.first_write ||
			    *region != copy->owners->here ||
			    SettleClaims(pg::CurrentCatalog()->map, copy->owners->keyspace.id,
			                 {{copy->rows.key.data, copy->rows.key.size}}, true, true))
				return *region;
		}
	});
}

// --- other regions -----------------------------------------------------------------------------------------------

template <typename Body>
auto AtRegions(const Body &body) -> decltype(body())
{
	return pg::PgEntry([&] {
		try {
			return body();
		} catch (const remote::Error &error) {
			if (error.sqlstate != kNotHomeState)
				throw;
			remote::Error moved = HomeMoved();
			moved.context = error.context;
			throw moved;
		}
	});
}

// An error of another region has told its own line: the one we have read up to says nothing.
template <typename Body>
void WithoutLine(const Body &body)
{
	ErrorContextCallback *reading = error_context_stack;
	error_context_stack = reading->previous;
	AtRegions(body);
	error_context_stack = reading;
}

// Requires: the top of the error context is that of our reading.
void SendRow(RoutedCopy *copy, core::RegionId region)
{
	// The first field: the number of the line.
	char prefix[32];
	std::size_t size;
	const CopyFormatOptions *options = &copy->rows.source->opts;
	StringInfo row = &copy->rows.row;
	const char *rest = row->data;
	auto rest_size = static_cast<std::size_t>(row->len);
	if (options->binary) {
		uint16 count;
		memcpy(&count, row->data, sizeof(count));
		count = pg_hton16(static_cast<uint16>(pg_ntoh16(count) + 1));
		const uint32 field_size = pg_hton32(sizeof(uint64));
		const uint64 line = pg_hton64(copy->rows.line);
		memcpy(prefix, &count, 2);
		memcpy(prefix + 2, &field_size, 4);
		memcpy(prefix + 6, &line, 8);
		size = 14;
		rest += 2;
		rest_size -= 2;
	} else {
		size = static_cast<std::size_t>(pg_ulltoa_n(copy->rows.line, prefix));
		prefix[size++] = options->delim[0];
	}
	WithoutLine([&] { copy->streams->Send(region, prefix, size, rest, rest_size); });
}

void CheckBinaryIsPortable(RoutedCopy *copy)
{
	TupleDesc desc = RelationGetDescr(copy->target.relation);
	ListCell *cell;
	if (pg_get_client_encoding() != GetDatabaseEncoding())
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("cannot copy into homed table \"%s\" in binary format and client encoding %s",
		            RelationGetRelationName(copy->target.relation), pg_get_client_encoding_name()),
		     errdetail("In this format texts are not converted before they are sent to their homes."),
		     errhint("SET client_encoding = %s, or use the format text or csv.",
		             GetDatabaseEncodingName())));
	foreach (cell, copy->rows.source->attnumlist) {
		Form_pg_attribute attribute = TupleDescAttr(desc, lfirst_int(cell) - 1);
		if (HoldsObjectNumbers(attribute->atttypid))
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot copy column \"%s\" of homed table \"%s\" in binary format",
			                NameStr(attribute->attname),
			                RelationGetRelationName(copy->target.relation)),
			         errdetail("In this format type %s holds numbers of objects, which are others in "
			                   "other regions.",
			                   format_type_be(attribute->atttypid)),
			         errhint("Use the format text or csv.")));
	}
}

void MakeStreams(RoutedCopy *copy, const CopyStmt *statement, List *columns)
{
	const char *sql = RemoteCopy(&copy->target, statement, columns);
	StringInfoData header, trailer;
	initStringInfo(&header);
	initStringInfo(&trailer);
	if (copy->rows.source->opts.binary) {
		AppendBinaryHeader(&header);
		AppendBinaryTrailer(&trailer);
	}
	pg::PgEntry([&] {
		copy->streams =
			new CopyStreams(sql, std::string(header.data, static_cast<std::size_t>(header.len)),
		                    std::string(trailer.data, static_cast<std::size_t>(trailer.len)));
	});
}

// --- rows of this region --------------------------------------------------------------------------------------------

// Reads on to the next row of this region; those before it go to theirs. False: there is none.
bool FindLocalRow(RoutedCopy *copy)
{
	constexpr uint64 kOfferEvery = 1024;  // rows
	while (NextRow(&copy->rows)) {
		if (++copy->rows_read % kOfferEvery == 0)
			WithoutLine([&] { copy->streams->Offer(); });
		if (copy->rows.key_is_null)
			return true;  // for this region's NOT NULL constraint, or a condition that leaves it out
		MemoryContext old = MemoryContextSwitchTo(copy->rows.row_context);
		const core::RegionId region = RegionOfRow(copy);
		MemoryContextSwitchTo(old);
		if (region == copy->owners->here)
			return true;
		SendRow(copy, region);
	}
	return false;
}

// Errors in the source are told with its own line, not that of core's COPY, which only sees its rows.
bool NextLocalRow(RoutedCopy *copy, ErrorContextCallback *outer)
{
	ErrorContextCallback *inner = error_context_stack;
	ErrorContextCallback reading{outer, CopyFromErrorCallback, copy->rows.source};
	error_context_stack = &reading;
	const bool found = FindLocalRow(copy);
	error_context_stack = inner;
	copy->row_ready = found;
	copy->given = 0;
	copy->ended = !found;
	return found;
}

int Give(StringInfo bytes, int from, void *out, int size)
{
	const int count = bytes->len - from < size ? bytes->len - from : size;
	memcpy(out, bytes->data + from, count);
	return count;
}

// Where core's COPY gets its data: one row at a time, so that it does not read ahead of the line number.
int LocalData(void *out, int, int size)
{
	RoutedCopy *copy = active;
	StringInfoData bytes;
	if (copy->header_due) {
		copy->header_due = false;
		initStringInfo(&bytes);
		AppendBinaryHeader(&bytes);
		return Give(&bytes, 0, out, size);
	}
	if (copy->ended)
		return 0;
	if (!copy->row_ready && !NextLocalRow(copy, copy->outer_context)) {
		if (!copy->rows.source->opts.binary)
			return 0;
		initStringInfo(&bytes);
		AppendBinaryTrailer(&bytes);
		return Give(&bytes, 0, out, size);
	}
	if (copy->given == 0)
		copy->local->cur_lineno = copy->rows.line + 1;
	const int count = Give(&copy->rows.row, copy->given, out, size);
	copy->given += count;
	copy->row_ready = copy->given < copy->rows.row.len;
	return count;
}

// Requires: a row of this region is ready.
uint64 CopyLocalRows(RoutedCopy *copy, ParseState *pstate, const CopyStmt *statement, List *columns,
                     MemoryContext context)
{
	CheckMayWriteHere();
	ApproveWrites(RelationGetRelid(copy->target.relation), context);
	RoutedCopy *outer = active;
	active = copy;
	copy->outer_context = error_context_stack;
	copy->header_due = copy->rows.source->opts.binary;
	copy->local =
		BeginCopyFrom(pstate, copy->target.relation, reinterpret_cast<Node *>(copy->target.where),
	                  nullptr, false, LocalData, columns, RowOptions(statement));
	const uint64 rows = CopyFrom(copy->local);
	EndCopyFrom(copy->local);
	active = outer;
	return rows;
}

// --- the statement ----------------------------------------------------------------------------------------------------

void Destroy(void *argument)
{
	auto *copy = static_cast<RoutedCopy *>(argument);
	delete copy->streams;
	delete copy->owners;
}

List *ColumnNames(const RoutedCopy *copy)
{
	List *names = NIL;
	TupleDesc desc = RelationGetDescr(copy->target.relation);
	ListCell *cell;
	foreach (cell, copy->target.attnums)
		names =
			lappend(names, makeString(NameStr(TupleDescAttr(desc, lfirst_int(cell) - 1)->attname)));
	if (copy->rows.key_field < 0)
		names =
			lappend(names,
		            makeString(NameStr(TupleDescAttr(desc, copy->rows.key_attnum - 1)->attname)));
	return names;
}

uint64 RouteCopy(RoutedCopy *copy, ParseState *pstate, const CopyStmt *statement,
                 MemoryContext context)
{
	pg::PgEntry([&] {
		copy->owners = new Owners;
		LoadOwners(copy);
		if (copy->owners->keyspace.first_write)
			PrepareManyClaims();
	});
	Relation relation = copy->target.relation;
	copy->rows.source =
		BeginCopyFrom(pstate, relation, nullptr, statement->filename, statement->is_program,
	                  nullptr, statement->attlist, SourceOptions(statement));
	BeginRows(&copy->rows, get_attnum(RelationGetRelid(relation), KeyColumn(&copy->table)));
	if (copy->rows.source->opts.binary)
		CheckBinaryIsPortable(copy);
	List *columns = ColumnNames(copy);
	MakeStreams(copy, statement, columns);

	uint64 rows = 0;
	if (NextLocalRow(copy, error_context_stack))
		rows = CopyLocalRows(copy, pstate, statement, columns, context);
	rows += AtRegions([&] { return static_cast<uint64>(copy->streams->Finish()); });
	EndRows(&copy->rows);
	return rows;
}

}  // namespace

bool ExecuteCopy(ParseState *pstate, const CopyStmt *statement, MemoryContext context,
                 uint64 *processed)
{
	if (!statement->is_from || statement->relation == nullptr)
		return false;
	const Oid relid = RangeVarGetRelid(statement->relation, NoLock, true);
	HomedRelation table;
	if (!OidIsValid(relid) || !FindReady(relid, &table))
		return false;
	const bool numbered = HasNumberedRows(statement);
	if (numbered && pg::settings.forwarded_from[0] == '\0')
		return false;  // no option of core's, which says so
	if (table.fenced || (table.all_here && !table.first_write && !numbered)) {
		ServeWholeTable(&table, "COPY into",
		                "The homes of the rows are not known before they are read.", context);
		return false;
	}

	CheckMayWriteRows();
	MemoryContext old = MemoryContextSwitchTo(context);
	auto *copy = static_cast<RoutedCopy *>(palloc0(sizeof(RoutedCopy)));
	auto *destroy = static_cast<MemoryContextCallback *>(palloc0(sizeof(MemoryContextCallback)));
	destroy->func = Destroy;
	destroy->arg = copy;
	MemoryContextRegisterResetCallback(context, destroy);
	copy->rows.numbered = numbered;
	copy->target = OpenCopyTarget(pstate, statement);
	if (!FindHomed(RelationGetRelid(copy->target.relation), &copy->table))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		                errmsg("homed table \"%s\" changed while the statement was starting",
		                       statement->relation->relname)));
	*processed = RouteCopy(copy, pstate, statement, context);
	table_close(copy->target.relation, NoLock);
	MemoryContextSwitchTo(old);
	return true;
}

}  // namespace homing::write
