#include "pg/coming_move.hpp"

#include "pg/catalog.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
}

namespace homing::pg {

namespace {

constexpr int kRoom = 16;  // what does not fit is not announced

struct Entry {
	Oid database;  // invalid: free
	ComingMove move;
};

struct Announced {
	LWLock *lock;
	Entry entries[kRoom];
};

Announced *announced = nullptr;

void Attach(void *memory, LWLock *lock, bool fresh)
{
	announced = static_cast<Announced *>(memory);
	if (fresh)
		announced->lock = lock;
}

bool IsFree(const Entry &entry)
{
	return !OidIsValid(entry.database) || entry.move.Over();
}

bool IsFor(const Entry &entry, const ComingMove &move)
{
	return entry.database == MyDatabaseId && entry.move.keyspace == move.keyspace &&
	       entry.move.to == move.to;
}

// In place of what was announced of these two before. With `over`, nothing takes its place.
void Replace(const ComingMove &move, bool over)
{
	Entry *free = nullptr;
	LWLockAcquire(announced->lock, LW_EXCLUSIVE);
	for (Entry &entry : announced->entries) {
		if (IsFor(entry, move))
			entry.database = InvalidOid;
		if (IsFree(entry))
			free = &entry;
	}
	if (!over && free != nullptr)
		*free = {MyDatabaseId, move};
	LWLockRelease(announced->lock);
}

void AddHomes(ComingMove *move, ArrayType *homes)
{
	Datum *numbers;
	int count;
	deconstruct_array(homes, INT4OID, sizeof(int32), true, TYPALIGN_INT, &numbers, nullptr, &count);
	for (int i = 0; i < count; ++i) {
		const auto bit = static_cast<uint32>(DatumGetInt32(numbers[i])) % ComingMove::kBits;
		move->homes[bit / 64] |= UINT64CONST(1) << (bit % 64);
	}
}

}  // namespace

bool ComingMove::Over() const
{
	return until < GetCurrentTimestamp();
}

void RegisterComingMoves()
{
	AddSharedPiece({"pg_homing coming moves", [] { return sizeof(Announced); }, Attach});
}

std::vector<ComingMove> ComingMoves()
{
	std::vector<ComingMove> moves;
	if (announced == nullptr)
		return moves;
	moves.reserve(kRoom);  // nothing may fail under the lock
	LWLockAcquire(announced->lock, LW_SHARED);
	for (const Entry &entry : announced->entries) {
		if (entry.database == MyDatabaseId && !entry.move.Over())
			moves.push_back(entry.move);
	}
	LWLockRelease(announced->lock);
	return moves;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_announce_move);

// Keyspace, new owner, homes; no homes: it is over.
PGDLLEXPORT Datum homing_announce_move(PG_FUNCTION_ARGS)
{
	RequireLoaded(announced != nullptr);
	ComingMove move{core::KeyspaceId(PG_GETARG_INT32(0)),
	                core::RegionId(PG_GETARG_INT16(1)),
	                TimestampTzPlusMilliseconds(GetCurrentTimestamp(), settings.handover_timeout_ms),
	                {}};
	if (!PG_ARGISNULL(2))
		AddHomes(&move, PG_GETARG_ARRAYTYPE_P(2));
	Replace(move, PG_ARGISNULL(2));
	WakeWaiters();
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::pg
