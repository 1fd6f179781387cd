#include "core/ownership.hpp"
#include "pg/catalog.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "pg/shared_memory.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/attnum.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"
}

namespace homing::pg {

namespace {

// Shared by all databases of the server: a change in one makes the others read anew, which is rare.
struct SharedGeneration {
	pg_atomic_uint64 catalog;
	pg_atomic_uint64 assignments;
	ConditionVariable changed;
};

SharedGeneration *shared = nullptr;

// What this transaction will announce when it has committed.
bool catalog_changed = false;
bool table_dropped = false;  // a homed table: the server announces it
bool assignments_changed = false;
bool keys_claimed = false;  // assignments of keys that had none: see PRE_PREPARE
bool claiming = false;      // what is being inserted is that

// The cache, and whether it may be used.
std::unique_ptr<Catalog> cached;  // empty while valid: no region here
bool cache_valid = false;
uint64 cache_generation = 0;
std::vector<Oid> *watched_relations = nullptr;

void Attach(void *memory, LWLock *, bool fresh)
{
	shared = static_cast<SharedGeneration *>(memory);
	if (!fresh)
		return;
	pg_atomic_init_u64(&shared->catalog, 1);
	pg_atomic_init_u64(&shared->assignments, 1);
	ConditionVariableInit(&shared->changed);
}

void OnTransactionEnd(XactEvent event)
{
	switch (event) {
	case XACT_EVENT_COMMIT:
		// The commit is visible, the locks are still held: see the head of catalog.hpp.
		if (catalog_changed)
			pg_atomic_fetch_add_u64(&shared->catalog, 1);
		if (assignments_changed || keys_claimed)
			pg_atomic_fetch_add_u64(&shared->assignments, 1);
		if (catalog_changed || assignments_changed || keys_claimed)
			ConditionVariableBroadcast(&shared->changed);
		break;
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
		if (catalog_changed || table_dropped)
			cache_valid = false;
		break;
	case XACT_EVENT_PRE_PREPARE:
		// Whoever commits a prepared transaction does not announce what it changed. Claims may go without: who
		// has taken a key for unclaimed meets the claim itself (write/claims).
		if (catalog_changed || assignments_changed)
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot PREPARE a transaction that changed the cluster, a homed table or an "
			                "assignment")));
		return;
	default:
		return;
	}
	catalog_changed = assignments_changed = keys_claimed = table_dropped = false;
}

EndListener end_listener{OnTransactionEnd};

void OnSubTransactionEnd(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && (catalog_changed || table_dropped))
		cache_valid = false;
}

void OnRelationChanged(Datum, Oid relid)
{
	if (!cache_valid)
		return;
	if (relid == InvalidOid) {
		cache_valid = false;
		return;
	}
	for (Oid watched : *watched_relations) {
		if (watched == relid)
			cache_valid = false;
	}
}

// --- reading the tables: plain server code, palloc'd plain data ------------------------------------

struct RawRow {
	Datum values[16];
	bool nulls[16];
};

struct RawTable {
	Oid relid = InvalidOid;
	RawRow *rows = nullptr;
	int count = 0;
};

struct RawCatalog {
	bool present = false;
	RawTable local_region, cluster_map, member, witness, keyspace, homed_table, activation,
		ownership;
	bool *has_assignments = nullptr;  // by row of `keyspace`
};

// Reads the named columns of a whole (small) table.
void ReadTable(const char *name, std::initializer_list<const char *> columns, Snapshot snapshot,
               RawTable *table)
{
	table->relid = HomingRelation(name);
	if (!OidIsValid(table->relid))
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table homing.%s does not exist", name),
		         errhint("The extension is damaged: drop and create it again.")));
	Relation relation = table_open(table->relid, AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	AttrNumber attnums[16];
	int ncolumns = 0;
	for (const char *column : columns)
		attnums[ncolumns++] = get_attnum(table->relid, column);

	int capacity = 16;
	table->rows = static_cast<RawRow *>(palloc(capacity * sizeof(RawRow)));
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);
	HeapTuple tuple;
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != nullptr) {
		if (table->count == capacity) {
			capacity *= 2;
			table->rows = static_cast<RawRow *>(repalloc(table->rows, capacity * sizeof(RawRow)));
		}
		RawRow *row = &table->rows[table->count++];
		for (int i = 0; i < ncolumns; ++i) {
			Datum value = heap_getattr(tuple, attnums[i], desc, &row->nulls[i]);
			Form_pg_attribute attribute = TupleDescAttr(desc, attnums[i] - 1);
			row->values[i] =
				row->nulls[i] ? value : datumCopy(value, attribute->attbyval, attribute->attlen);
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
}

// Whether any key of the keyspace is assigned.
bool HasAssignments(int32 keyspace, Snapshot snapshot)
{
	Relation relation = table_open(HomingRelation("assignment"), AccessShareLock);
	ScanKeyData key;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(keyspace));
	SysScanDesc scan =
		systable_beginscan(relation, HomingRelation("assignment_pkey"), true, snapshot, 1, &key);
	const bool any = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return any;
}

void ReadRaw(RawCatalog *raw)
{
	if (!OidIsValid(get_extension_oid("pg_homing", true)) || creating_extension ||
	    !OidIsValid(HomingRelation("local_region")))
		return;

	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	ReadTable("local_region", {"region_id", "fenced", "cluster_id", "missing"}, snapshot,
	          &raw->local_region);
	raw->present = raw->local_region.count > 0;
	if (raw->present) {
		ReadTable("cluster_map", {"epoch"}, snapshot, &raw->cluster_map);
		ReadTable("member", {"region_id", "name", "status", "heirs", "spread"}, snapshot,
		          &raw->member);
		ReadTable("witness", {"status"}, snapshot, &raw->witness);
		ReadTable("keyspace", {"keyspace_id", "recorded_owners", "placement"}, snapshot,
		          &raw->keyspace);
		ReadTable("homed_table", {"table_id", "relid", "keyspace_id", "key_attnum", "closing"},
		          snapshot, &raw->homed_table);
		ReadTable("activation", {"table_id"}, snapshot, &raw->activation);
		ReadTable("ownership",
		          {"keyspace_id", "home", "version", "from_region", "to_region", "kind"}, snapshot,
		          &raw->ownership);
		raw->has_assignments = static_cast<bool *>(palloc0(raw->keyspace.count + 1));
		for (int i = 0; i < raw->keyspace.count; ++i)
			raw->has_assignments[i] =
				HasAssignments(DatumGetInt32(raw->keyspace.rows[i].values[0]), snapshot);
	}
	UnregisterSnapshot(snapshot);
}

// --- plain data → C++ --------------------------------------------------------------------------------

std::string Text(Datum value)
{
	return PgCall([&] { return text_to_cstring(DatumGetTextPP(value)); });
}

std::vector<core::RegionId> Regions(Datum value)
{
	struct {
		Datum *elements;
		bool *nulls;
		int count;
	} array{};
	PgCall([&] {
		deconstruct_array(DatumGetArrayTypeP(value), INT2OID, sizeof(int16), true, TYPALIGN_SHORT,
		                  &array.elements, &array.nulls, &array.count);
	});
	std::vector<core::RegionId> ids;
	for (int i = 0; i < array.count; ++i)
		ids.emplace_back(DatumGetInt16(array.elements[i]));
	return ids;
}

core::RegionStatus Status(const std::string &name)
{
	if (name == "active")
		return core::RegionStatus::kActive;
	if (name == "lost")
		return core::RegionStatus::kLost;
	return core::RegionStatus::kJoining;
}

void ApplyOwnership(const RawTable &rows, std::vector<core::Keyspace> *keyspaces)
{
	for (core::Keyspace &keyspace : *keyspaces) {
		std::vector<core::OwnershipEntry> entries;
		for (int i = 0; i < rows.count; ++i) {
			const RawRow &row = rows.rows[i];
			if (DatumGetInt32(row.values[0]) == keyspace.id.value)
				entries.push_back(
					{core::HomeId(DatumGetInt32(row.values[1])), DatumGetInt64(row.values[2]),
				     core::RegionId(DatumGetInt16(row.values[3])),
				     core::RegionId(DatumGetInt16(row.values[4])), Text(row.values[5]) == "accept"});
		}
		core::ApplyOwnershipLog(entries, &keyspace);
	}
}

core::Electorate ReadElectorate(const RawCatalog &raw)
{
	core::Electorate electorate;
	const int16 here = DatumGetInt16(raw.local_region.rows[0].values[0]);
	for (int i = 0; i < raw.member.count; ++i) {
		const RawRow &row = raw.member.rows[i];
		if (DatumGetInt16(row.values[0]) == here ||
		    Status(Text(row.values[2])) == core::RegionStatus::kLost)
			continue;
		++electorate.size;
		electorate.alone = false;
	}
	for (int i = 0; i < raw.witness.count; ++i) {
		if (Text(raw.witness.rows[i].values[0]) != "removed")
			++electorate.size;
	}
	return electorate;
}

std::unique_ptr<Catalog> Build(const RawCatalog &raw)
{
	if (!raw.present)
		return nullptr;

	std::vector<core::Region> regions;
	for (int i = 0; i < raw.member.count; ++i) {
		const RawRow &row = raw.member.rows[i];
		regions.push_back({core::RegionId(DatumGetInt16(row.values[0])), Text(row.values[1]),
		                   Status(Text(row.values[2])), Regions(row.values[3]),
		                   Regions(row.values[4])});
	}
	std::vector<core::Keyspace> keyspaces;
	for (int i = 0; i < raw.keyspace.count; ++i) {
		const RawRow &row = raw.keyspace.rows[i];
		keyspaces.push_back({core::KeyspaceId(DatumGetInt32(row.values[0])), Regions(row.values[1]),
		                     raw.has_assignments[i]});
		keyspaces.back().first_write = Text(row.values[2]) == "first_write";
	}
	ApplyOwnership(raw.ownership, &keyspaces);
	const auto &here = raw.local_region.rows[0];
	const core::Epoch epoch(
		raw.cluster_map.count > 0 ? DatumGetInt64(raw.cluster_map.rows[0].values[0]) : 0);

	auto catalog = std::unique_ptr<Catalog>(new Catalog{
		core::HomeMap(epoch, core::RegionId(DatumGetInt16(here.values[0])), std::move(regions),
	                  std::move(keyspaces)),
		PgCall([&] { return DatumGetCString(DirectFunctionCall1(uuid_out, here.values[2])); }),
		here.nulls[1] ? std::string() : Text(here.values[1]),
		ReadElectorate(raw),
		{},
		ComingMoves()});
	if (catalog->fenced.empty() && catalog->map.HereIsLost())
		catalog->fenced = "this region was declared lost";
	catalog->missing = Regions(here.values[3]);
	catalog->only_lacks = catalog->fenced.empty() && !catalog->missing.empty();
	if (catalog->only_lacks)
		catalog->fenced =
			"this region lacks the last changes of a lost one, and takes a copy of them";

	for (int i = 0; i < raw.homed_table.count; ++i) {
		const RawRow &row = raw.homed_table.rows[i];
		HomedTable table;
		table.relid = DatumGetObjectId(row.values[1]);
		table.keyspace = core::KeyspaceId(DatumGetInt32(row.values[2]));
		table.key_attnum = DatumGetInt16(row.values[3]);
		const Oid column_type = PgCall([&] { return get_atttype(table.relid, table.key_attnum); });
		if (!OidIsValid(column_type))
			continue;  // the table was dropped with local_ddl
		table.key_type = PgCall([&] { return getBaseType(column_type); });
		table.closing = DatumGetBool(row.values[4]);
		if (std::none_of(catalog->coming_moves.begin(), catalog->coming_moves.end(),
		                 [&](const ComingMove &move) { return move.keyspace == table.keyspace; }))
			table.unmoved_here = catalog->map.UnmovedHere(table.keyspace);
		for (int j = 0; j < raw.activation.count; ++j) {
			if (DatumGetInt64(raw.activation.rows[j].values[0]) == DatumGetInt64(row.values[0]))
				table.active = !table.closing;
		}
		catalog->tables.emplace(table.relid, table);
	}
	return catalog;
}

void Watch(const RawCatalog &raw)
{
	watched_relations->clear();
	for (const RawTable *table : {&raw.local_region, &raw.cluster_map, &raw.member, &raw.keyspace,
	                              &raw.homed_table, &raw.activation, &raw.ownership}) {
		if (OidIsValid(table->relid))
			watched_relations->push_back(table->relid);
	}
	// So that all hear of one that was dropped, when the transaction that did it was prepared, too.
	for (int i = 0; i < raw.homed_table.count; ++i)
		watched_relations->push_back(DatumGetObjectId(raw.homed_table.rows[i].values[1]));
}

[[gnu::noinline]] void Refresh()
{
	// The counter before the snapshot: a change that raised it by now is in the snapshot.
	const uint64 generation = pg_atomic_read_u64(&shared->catalog);
	pg_memory_barrier();

	RawCatalog raw;
	MemoryContext scratch = PgCall([&] {
		return AllocSetContextCreate(CurrentMemoryContext, "homing catalog", ALLOCSET_DEFAULT_SIZES);
	});
	MemoryContext old = MemoryContextSwitchTo(scratch);
	try {
		cache_valid = true;  // an invalidation that arrives while reading clears it again
		PgCall([&] { ReadRaw(&raw); });
		Watch(raw);
		cached = Build(raw);
	} catch (...) {
		cache_valid = false;
		MemoryContextSwitchTo(old);
		throw;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	cache_generation = generation;
}

}  // namespace

const HomedTable *Catalog::Find(Oid relid) const
{
	auto found = tables.find(relid);
	if (found != tables.end())
		return &found->second;
	if (tables.empty() || !PgCall([&] { return get_rel_relispartition(relid); }))
		return nullptr;

	List *ancestors = PgCall([&] { return get_partition_ancestors(relid); });
	ListCell *cell;
	foreach (cell, ancestors) {
		found = tables.find(lfirst_oid(cell));
		if (found != tables.end())
			return &found->second;
	}
	return nullptr;
}

const std::string &Catalog::RegionName(core::RegionId id) const
{
	static const std::string kUnknown = "unknown";
	const core::Region *region = map.FindRegion(id);
	return region != nullptr ? region->name : kUnknown;
}

void RegisterCatalog()
{
	watched_relations = new std::vector<Oid>;
	AddSharedPiece({"pg_homing generation", [] { return sizeof(SharedGeneration); }, Attach});
	AddEndListener(&end_listener);
	RegisterSubXactCallback(OnSubTransactionEnd, nullptr);
	CacheRegisterRelcacheCallback(OnRelationChanged, 0);
}

Oid HomingRelation(const char *name)
{
	const Oid schema = get_namespace_oid("homing", true);
	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

bool CatalogIsShared()
{
	return shared != nullptr;
}

void WakeWaiters() noexcept
{
	pg_atomic_fetch_add_u64(&shared->catalog, 1);
	ConditionVariableBroadcast(&shared->changed);
}

[[gnu::hot]] bool CatalogIsCurrent()
{
	return cache_valid && cache_generation == pg_atomic_read_u64(&shared->catalog);
}

[[gnu::hot]] const Catalog *CurrentCatalog()
{
	if (shared == nullptr)
		return nullptr;
	// An invalidation may arrive while the tables are read; then they are read again.
	while (!CatalogIsCurrent())
		Refresh();
	return cached.get();
}

const Catalog *LastCatalog()
{
	return cached.get();
}

[[gnu::hot]] CatalogVersion CurrentVersion()
{
	return {pg_atomic_read_u64(&shared->catalog), pg_atomic_read_u64(&shared->assignments)};
}

bool AwaitChange(CatalogVersion seen, long timeout)
{
	bool changed = true;
	ConditionVariablePrepareToSleep(&shared->changed);
	while (changed && CurrentVersion() == seen)
		changed = !ConditionVariableTimedSleep(&shared->changed, timeout, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	return changed || !(CurrentVersion() == seen);
}

bool SetClaiming(bool now)
{
	const bool before = claiming;
	claiming = now;
	return before;
}

uint64 AssignmentGeneration()
{
	return pg_atomic_read_u64(&shared->assignments);
}

Oid RegionServer(const char *region_name)
{
	const Oid server = get_foreign_server_oid(region_name, true);
	if (!OidIsValid(server))
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_OBJECT),
		         errmsg("server \"%s\" does not exist", region_name),
		         errdetail("Every region of the cluster is reached through a server of its name."),
		         errhint("Create it again: CREATE SERVER %s FOREIGN DATA WRAPPER homing OPTIONS (host "
		                 "..., port ..., dbname ...).",
		                 quote_identifier(region_name))));
	return server;
}

namespace {

// A homed table was dropped and its row went with it. The server tells everybody that it was dropped, also when a
// prepared transaction did it.
bool IsOfDroppedTable(const TriggerData *trigger)
{
	if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ||
	    RelationGetRelid(trigger->tg_relation) != HomingRelation("homed_table"))
		return false;
	bool isnull;
	const AttrNumber attnum = get_attnum(RelationGetRelid(trigger->tg_relation), "relid");
	const Datum relid = heap_getattr(trigger->tg_trigtuple, attnum,
	                                 RelationGetDescr(trigger->tg_relation), &isnull);
	return !SearchSysCacheExists1(RELOID, relid);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_changed);
PG_FUNCTION_INFO_V1(homing_assignment_changed);

// Row trigger, ENABLE ALWAYS, on the tables that the cache holds.
PGDLLEXPORT Datum homing_changed(PG_FUNCTION_ARGS)
{
	cache_valid = false;
	ListenToEnd(&end_listener);
	if (IsOfDroppedTable(reinterpret_cast<TriggerData *>(fcinfo->context)))
		table_dropped = true;
	else
		catalog_changed = true;
	return PointerGetDatum(nullptr);
}

// Row trigger on homing.assignment. The cache holds only whether there is any row at all, so that a
// stream of assignments does not make every session read the tables anew.
PGDLLEXPORT Datum homing_assignment_changed(PG_FUNCTION_ARGS)
{
	ListenToEnd(&end_listener);
	if (claiming) {
		// The keyspace is known to have assignments from its start.
		keys_claimed = true;
		return PointerGetDatum(nullptr);
	}
	assignments_changed = true;
	if (!cache_valid || cached == nullptr) {
		catalog_changed = true;
		return PointerGetDatum(nullptr);
	}
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	bool isnull;
	const int32 keyspace = DatumGetInt32(
		heap_getattr(trigger->tg_trigtuple, 1, RelationGetDescr(trigger->tg_relation), &isnull));
	const core::Keyspace *known = cached->map.FindKeyspace(core::KeyspaceId(keyspace));
	if (known == nullptr || !known->has_assignments) {
		catalog_changed = true;
		cache_valid = false;
	}
	return PointerGetDatum(nullptr);
}

}  // extern "C"

}  // namespace homing::pg
