#include "pg/key_home.hpp"

#include "core/key_hash.hpp"

#include <chrono>

#include "pg/settings.hpp"

extern "C" {
#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
}

namespace homing::pg {

namespace {

// A table of ours and its primary key's index, looked up once and again when they were made anew.
struct Indexed {
	const char *table, *index;
	Oid table_oid = InvalidOid, index_oid = InvalidOid;

	Indexed(const char *table_name, const char *index_name) : table(table_name), index(index_name)
	{
	}
	void Find()
	{
		if (OidIsValid(table_oid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(index_oid)))
			return;
		table_oid = HomingRelation(table);
		index_oid = HomingRelation(index);
	}
};

Indexed assignment("assignment", "assignment_pkey");
Indexed ownership("ownership", "ownership_pkey");
Indexed key_acceptance("key_acceptance", "key_acceptance_pkey");

// Calls `body` with the slot of the first row in index order from the end that has these leading columns.
// Body returns whether to go on.
template <typename Body>
void Scan(Indexed *of, ScanKeyData *keys, int key_count, Snapshot snapshot, const Body &body)
{
	of->Find();
	Relation relation = table_open(of->table_oid, AccessShareLock);
	Relation index = index_open(of->index_oid, AccessShareLock);
	IndexScanDesc scan = index_beginscan(relation, index, snapshot, key_count, 0);
	index_rescan(scan, keys, key_count, nullptr, 0);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	while (index_getnext_slot(scan, BackwardScanDirection, slot) && body(slot))
		;
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
}

bytea *ToBytea(const uint8 *key, Size size)
{
	auto *bytes = static_cast<bytea *>(palloc(VARHDRSZ + size));
	SET_VARSIZE(bytes, VARHDRSZ + size);
	memcpy(VARDATA(bytes), key, size);
	return bytes;
}

void InitKeyScan(ScanKeyData *keys, core::KeyspaceId keyspace, bytea *key)
{
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(keyspace.value));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(key));
}

// --- plain server code -----------------------------------------------------------------------------------

struct Assigned {
	int32 home;  // -1: the key is not assigned
	int64 moved;
	bool any;  // false: nobody has claimed it either
};

// The first assignment of a key, to another region, by our own transaction: until the commit it is as it was.
bool IsOwnClaim(TupleTableSlot *slot, bool moved, int64 version)
{
	bool isnull;
	if (!moved || version != 1)
		return false;
	const Datum xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);
	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

// The newest assignment of a key. Versions ascend in the index.
Assigned NewestAssignment(core::KeyspaceId keyspace, const uint8 *key, Size size)
{
	bytea *bytes = ToBytea(key, size);
	ScanKeyData keys[2];
	InitKeyScan(keys, keyspace, bytes);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Assigned assigned{-1, 0, false};
	Scan(&assignment, keys, 2, snapshot, [&](TupleTableSlot *slot) {
		bool isnull, stays;
		const int64 version = DatumGetInt64(slot_getattr(slot, 3, &isnull));
		(void) slot_getattr(slot, 5, &stays);
		assigned.any = true;
		if (IsOwnClaim(slot, !stays, version))
			return false;
		assigned.home = DatumGetInt32(slot_getattr(slot, 4, &isnull));
		assigned.moved = stays ? 0 : version;
		return false;
	});
	UnregisterSnapshot(snapshot);
	pfree(bytes);
	return assigned;
}

bool KeyIsAccepted(core::KeyspaceId keyspace, const uint8 *key, Size size, int64 version,
                   Snapshot snapshot)
{
	bytea *bytes = ToBytea(key, size);
	ScanKeyData keys[3];
	InitKeyScan(keys, keyspace, bytes);
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(version));
	bool found = false;
	Scan(&key_acceptance, keys, 3, snapshot, [&](TupleTableSlot *) {
		found = true;
		return false;
	});
	pfree(bytes);
	return found;
}

bool KeyIsAcceptedNow(core::KeyspaceId keyspace, const uint8 *key, Size size, int64 version)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	const bool accepted = KeyIsAccepted(keyspace, key, size, version, snapshot);
	UnregisterSnapshot(snapshot);
	return accepted;
}

bool HomeIsAccepted(core::KeyspaceId keyspace, core::HomeId home, int64 version, Snapshot snapshot)
{
	ScanKeyData keys[3];
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(keyspace.value));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(home.value));
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(version));
	bool found = false;
	Scan(&ownership, keys, 3, snapshot, [&](TupleTableSlot *slot) {
		bool isnull;
		found = strcmp(TextDatumGetCString(slot_getattr(slot, 4, &isnull)), "accept") == 0;
		return !found;
	});
	return found;
}

int64 EpochIn(Snapshot snapshot)
{
	Relation relation = table_open(HomingRelation("cluster_map"), AccessShareLock);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	int64 epoch = 0;
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
		bool isnull;
		epoch = DatumGetInt64(slot_getattr(slot, 1, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	return epoch;
}

}  // namespace

KeyHome FindKeyHome(const core::Keyspace &keyspace, const uint8 *key, Size size)
{
	using Clock = std::chrono::steady_clock;
	const core::HomeId by_hash =
		core::HomeOfHash(core::HashKey(key, size),
	                     static_cast<int32>(keyspace.recorded_owners.size()));
	if (!keyspace.has_assignments)
		return {by_hash};

	const core::KeyspaceId id = keyspace.id;
	std::optional<Clock::time_point> give_up;
	for (;;) {
		const CatalogVersion seen = CurrentVersion();
		const Assigned assigned = PgCall([&] { return NewestAssignment(id, key, size); });
		if (assigned.home < 0)
			return {by_hash, 0, assigned.any};
		KeyHome found{core::HomeId(assigned.home), assigned.moved, true};
		if (found.moved == 0 || PgCall([&] { return KeyIsAcceptedNow(id, key, size, found.moved); }))
			return found;
		found.arrived = false;
		if (!CatalogIsCurrent())
			return found;
		// Somewhere else it is for others to wait.
		const core::HomeMap &map = LastCatalog()->map;
		if (map.Owner(id, found.home) != map.here()) {
			found.arrived = true;
			return found;
		}
		if (!give_up)
			give_up = Clock::now() + std::chrono::milliseconds(settings.handover_timeout_ms);
		const auto left =
			std::chrono::ceil<std::chrono::milliseconds>(*give_up - Clock::now()).count();
		if (left <= 0) {
			remote::Error error("40001",
			                    "a key is being moved to this region and has not arrived in time");
			error.hint = "Try again. homing.handover_timeout says how long a write waits.";
			throw error;
		}
		PgCall([&] { return AwaitChange(seen, static_cast<long>(left)); });
	}
}

remote::Error ClusterChanged()
{
	remote::Error error("40001", "the cluster changed while the statement was running");
	error.hint = "Try again.";
	return error;
}

core::HomeId HomeOfKey(const core::Keyspace &keyspace, const uint8 *key, Size size)
{
	const KeyHome found = FindKeyHome(keyspace, key, size);
	if (!found.arrived)
		throw ClusterChanged();
	return found.home;
}

bool SnapshotHasHome(const Catalog &catalog, core::KeyspaceId keyspace, core::HomeId home,
                     Snapshot snapshot)
{
	const core::Handover handover = catalog.map.LastHandover(keyspace, home);
	const core::RegionId recorded =
		catalog.map.FindKeyspace(keyspace)->recorded_owners[static_cast<std::size_t>(home.value)];
	const bool taken_over = recorded != catalog.map.here();
	if (handover.version == 0 && !taken_over)
		return true;
	return PgCall([&] {
		if (handover.version > 0 && !HomeIsAccepted(keyspace, home, handover.version, snapshot))
			return false;
		// Taken over from a lost region: by an epoch that the snapshot must know.
		return !taken_over || EpochIn(snapshot) == catalog.map.epoch().value;
	});
}

bool SnapshotHasKey(core::KeyspaceId keyspace, const uint8 *key, Size size, int64 moved,
                    Snapshot snapshot)
{
	return moved == 0 || PgCall([&] { return KeyIsAccepted(keyspace, key, size, moved, snapshot); });
}

}  // namespace homing::pg
