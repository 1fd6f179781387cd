#include "core/claim.hpp"
#include "core/key_hash.hpp"
#include "write/claims.hpp"

#include <algorithm>
#include <cstring>

#include "pg/catalog.hpp"
#include "pg/compat.hpp"
#include "pg/home_lock.hpp"
#include "pg/key_home.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
}

namespace homing::write {

namespace {

struct NewClaim {
	KeyBytes key;
	int32 home;
	bool moves;
};

// --- plain server code ----------------------------------------------------------------------------------

Datum ArrayOf(const NewClaim *claims, int count, Oid type)
{
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * count));
	for (int i = 0; i < count; ++i) {
		if (type == INT4OID) {
			values[i] = Int32GetDatum(claims[i].home);
		} else if (type == BOOLOID) {
			values[i] = BoolGetDatum(claims[i].moves);
		} else {
			const Size size = claims[i].key.size;
			auto *bytes = static_cast<bytea *>(palloc(VARHDRSZ + size));
			SET_VARSIZE(bytes, VARHDRSZ + size);
			memcpy(VARDATA(bytes), claims[i].key.data, size);
			values[i] = PointerGetDatum(bytes);
		}
	}
	if (type == INT4OID)
		return PointerGetDatum(
			construct_array(values, count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	if (type == BOOLOID)
		return PointerGetDatum(construct_array(values, count, BOOLOID, 1, true, TYPALIGN_CHAR));
	return PointerGetDatum(construct_array(values, count, BYTEAOID, -1, false, TYPALIGN_INT));
}

SPIPlanPtr InsertPlan()
{
	static SPIPlanPtr plan = nullptr;
	if (plan != nullptr)
		return plan;
	Oid types[] = {INT4OID, BYTEAARRAYOID, INT4ARRAYOID, BOOLARRAYOID, INT2OID};
	SPIPlanPtr made = SPI_prepare(
		"INSERT INTO homing.assignment (keyspace_id, key, version, home, from_region) "
		"SELECT $1, u.key, 1, u.home, CASE WHEN u.moves THEN $5 END "
		"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) "
		"AS u (key, home, moves) ON CONFLICT DO NOTHING",
		5, types);
	if (made == nullptr || SPI_keepplan(made) != 0)
		elog(ERROR, "could not prepare the insertion of claims");
	return plan = made;
}

// Those that are not free are left as they are. Requires: in the order of their bytes, each once.
void Insert(core::KeyspaceId keyspace, const NewClaim *claims, int count, int16 here)
{
	Oid user;
	int context;
	GetUserIdAndSecContext(&user, &context);
	const bool outer = pg::SetClaiming(true);
	PG_TRY();
	{
		SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
		SPI_connect();
		Datum values[] = {Int32GetDatum(keyspace.value), ArrayOf(claims, count, BYTEAOID),
		                  ArrayOf(claims, count, INT4OID), ArrayOf(claims, count, BOOLOID),
		                  Int16GetDatum(here)};
		if (SPI_execute_plan(InsertPlan(), values, nullptr, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not insert claims");
		SPI_finish();
	}
	PG_FINALLY();
	{
		SetUserIdAndSecContext(user, context);
		(void) pg::SetClaiming(outer);
	}
	PG_END_TRY();
}

// Whether the transaction has locked so many keys that it must lock them all instead: each takes a place in
// the shared lock table.
bool LocksMany(std::size_t more)
{
	constexpr std::size_t kMany = 32;
	static LocalTransactionId transaction = InvalidLocalTransactionId;
	static std::size_t locked = 0;
	if (transaction != pg::LocalTransactionOf(MyProc)) {
		transaction = pg::LocalTransactionOf(MyProc);
		locked = 0;
	}
	locked += more;
	return locked > kMany;
}

// --- what each key needs ----------------------------------------------------------------------------------

// The region that this session writes for.
core::RegionId Writer(const core::HomeMap &map)
{
	const char *name = pg::settings.forwarded_from;
	if (name[0] == '\0')
		return map.here();
	const core::Region *region = map.FindRegion(std::string(name));
	return region != nullptr ? region->id : core::RegionId();
}

bool IsBefore(const KeyBytes &left, const KeyBytes &right)
{
	const int order = std::memcmp(left.data, right.data, std::min(left.size, right.size));
	return order != 0 ? order < 0 : left.size < right.size;
}

bool IsStillUnassigned(const core::Keyspace &keyspace, const KeyBytes &key)
{
	return !pg::FindKeyHome(keyspace, key.data, key.size).assigned;
}

std::uint64_t Mark(core::KeyspaceId keyspace, const KeyBytes &key)
{
	return (core::HashKey(key.data, key.size) + static_cast<std::uint64_t>(keyspace.value)) | 1;
}

}  // namespace

OwnClaims own_claims;

bool OwnClaims::Has(core::KeyspaceId keyspace, const KeyBytes &key) const
{
	return many_ || std::find(hashes_.begin(), hashes_.end(), Mark(keyspace, key)) != hashes_.end();
}

void OwnClaims::Add(core::KeyspaceId keyspace, const KeyBytes &key)
{
	hashes_[next_++ % hashes_.size()] = Mark(keyspace, key);
}

void OwnClaims::Forget()
{
	hashes_.fill(0);
	many_ = false;
}

bool SettleClaims(const core::HomeMap &map, core::KeyspaceId keyspace,
                  const std::vector<KeyBytes> &unassigned, bool claim, bool many)
{
	const core::RegionId writer = Writer(map);
	std::vector<NewClaim> claims;
	std::vector<KeyBytes> kept;
	std::vector<KeyBytes> keys = unassigned;
	// In one order, so that two writers of the same keys do not wait for each other.
	std::sort(keys.begin(), keys.end(), IsBefore);
	keys.erase(std::unique(keys.begin(), keys.end(),
	                       [](const KeyBytes &left, const KeyBytes &right) {
							   return !IsBefore(left, right) && !IsBefore(right, left);
						   }),
	           keys.end());
	for (const KeyBytes &key : keys) {
		const core::Claim step =
			core::ClaimFor(map, keyspace, core::HashKey(key.data, key.size), writer, claim, false);
		if (step.step == core::ClaimStep::kClaim)
			claims.push_back({key, step.home.value, step.moves});
		else if (step.step == core::ClaimStep::kKeepOpen)
			kept.push_back(key);
	}

	many = many || LocksMany(claims.size() + kept.size());
	if (!kept.empty()) {
		if (many)
			pg::PgCall([&] { pg::KeepKeysOpen(keyspace); });
		for (const KeyBytes &key : kept) {
			if (!many)
				pg::PgCall([&] { pg::KeepKeyOpen(keyspace, core::HashKey(key.data, key.size)); });
			if (!IsStillUnassigned(*map.FindKeyspace(keyspace), key))
				return false;
		}
	}
	if (claims.empty())
		return true;
	if (many)
		pg::PgCall([&] { pg::LockKeysForClaim(keyspace); });
	for (const NewClaim &one : claims) {
		if (!many)
			pg::PgCall(
				[&] { pg::LockKeyForClaim(keyspace, core::HashKey(one.key.data, one.key.size)); });
	}
	const int16 here = map.here().value;
	const NewClaim *first = claims.data();
	const int count = static_cast<int>(claims.size());
	pg::PgCall([&] { Insert(keyspace, first, count, here); });
	return false;
}

}  // namespace homing::write
