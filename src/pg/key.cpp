#include "core/key_hash.hpp"

#include "pg/key.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
}

namespace homing::pg {

const char *const kKeyTypes =
	"smallint, integer, bigint, text, character varying, uuid, bytea, date, timestamp, "
	"timestamp with time zone, boolean and enums";

namespace {

bool IsInteger(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

bool IsText(Oid type)
{
	return type == TEXTOID || type == VARCHAROID;
}

KeyBytes Integer(int64 value, uint8 buffer[8])
{
	const auto bytes = core::CanonicalInteger(value);
	memcpy(buffer, bytes.data(), bytes.size());
	return {buffer, bytes.size()};
}

KeyBytes EnumLabel(Oid value)
{
	HeapTuple tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
		                errmsg("invalid internal value for enum: %u", value)));
	const char *label = pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	ReleaseSysCache(tuple);
	return {reinterpret_cast<const uint8 *>(label), strlen(label)};
}

KeyBytes Varlena(Datum value)
{
	const varlena *packed = PG_DETOAST_DATUM_PACKED(value);
	const Size size = VARSIZE_ANY_EXHDR(packed);
	if (size > kMaxKeySize)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("key of %zu bytes is too long", size),
		                errdetail("A key of a homed table has at most %zu bytes.", kMaxKeySize)));
	return {reinterpret_cast<const uint8 *>(VARDATA_ANY(packed)), size};
}

}  // namespace

bool IsKeyType(Oid type, Oid collation)
{
	switch (type) {
	case INT2OID:
	case INT4OID:
	case INT8OID:
	case UUIDOID:
	case BYTEAOID:
	case DATEOID:
	case TIMESTAMPOID:
	case TIMESTAMPTZOID:
	case BOOLOID:
		return true;
	case TEXTOID:
	case VARCHAROID:
		return !OidIsValid(collation) || get_collation_isdeterministic(collation);
	default:
		return type_is_enum(type);
	}
}

bool SharesKeyBytes(Oid key_type, Oid type)
{
	return key_type == type || (IsInteger(key_type) && IsInteger(type)) ||
	       (IsText(key_type) && IsText(type));
}

KeyBytes CanonicalKey(Datum value, Oid type, uint8 buffer[8])
{
	switch (type) {
	case INT2OID:
		return Integer(DatumGetInt16(value), buffer);
	case INT4OID:
		return Integer(DatumGetInt32(value), buffer);
	case INT8OID:
		return Integer(DatumGetInt64(value), buffer);
	case DATEOID:
		return Integer(DatumGetDateADT(value), buffer);
	case TIMESTAMPOID:
	case TIMESTAMPTZOID:
		return Integer(DatumGetTimestamp(value), buffer);
	case BOOLOID:
		return Integer(DatumGetBool(value) ? 1 : 0, buffer);
	case UUIDOID:
		return {DatumGetUUIDP(value)->data, UUID_LEN};
	case TEXTOID:
	case VARCHAROID:
	case BYTEAOID:
		return Varlena(value);
	default:
		return EnumLabel(DatumGetObjectId(value));
	}
}

[[gnu::hot]] uint64 HashOfKey(Datum value, Oid type)
{
	if (type == INT4OID)
		return core::HashInteger(DatumGetInt32(value));
	if (type == INT8OID)
		return core::HashInteger(DatumGetInt64(value));
	uint8 buffer[8];
	const KeyBytes bytes = CanonicalKey(value, type, buffer);
	return core::HashKey(bytes.data, bytes.size);
}

}  // namespace homing::pg
