#include "rehome/key_value.hpp"

extern "C" {
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
}

namespace homing::rehome {

pg::KeyBytes KeyFromArgument(Datum argument, Oid type, Oid key_type, uint8 buffer[8])
{
	if (!OidIsValid(type))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("could not determine the type of the key")));
	const Oid base = getBaseType(type);
	if (base == key_type)
		return pg::CanonicalKey(argument, key_type, buffer);

	Oid function, ioparam;
	bool is_varlena;
	getTypeOutputInfo(type, &function, &is_varlena);
	char *text = OidOutputFunctionCall(function, argument);
	getTypeInputInfo(key_type, &function, &ioparam);
	return pg::CanonicalKey(OidInputFunctionCall(function, text, ioparam, -1), key_type, buffer);
}

namespace {

int64 Integer(const pg::KeyBytes &key)
{
	uint64 value = 0;
	for (Size i = 0; i < key.size; ++i)
		value = (value << 8) | key.data[i];
	return static_cast<int64>(value);
}

Datum Varlena(const pg::KeyBytes &key)
{
	return PointerGetDatum(cstring_to_text_with_len(reinterpret_cast<const char *>(key.data), static_cast<int>(key.size)));
}

bool EnumValue(const pg::KeyBytes &key, Oid type, Datum *value)
{
	if (key.size >= NAMEDATALEN)
		return false;
	const char *label = pnstrdup(reinterpret_cast<const char *>(key.data), key.size);
	const Oid found = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid, ObjectIdGetDatum(type), CStringGetDatum(label));
	*value = ObjectIdGetDatum(found);
	return OidIsValid(found);
}

}  // namespace

bool KeyValue(const pg::KeyBytes &key, Oid type, Datum *value)
{
	switch (type) {
	case TEXTOID:
	case VARCHAROID:
	case BYTEAOID:
		*value = Varlena(key);
		return true;
	case UUIDOID: {
		if (key.size != UUID_LEN)
			return false;
		auto *uuid = static_cast<pg_uuid_t *>(palloc(sizeof(pg_uuid_t)));
		memcpy(uuid->data, key.data, UUID_LEN);
		*value = UUIDPGetDatum(uuid);
		return true;
	}
	case INT2OID:
	case INT4OID:
	case INT8OID:
	case DATEOID:
	case TIMESTAMPOID:
	case TIMESTAMPTZOID:
	case BOOLOID:
		break;
	default:
		return EnumValue(key, type, value);
	}

	if (key.size != 8)
		return false;
	const int64 number = Integer(key);
	switch (type) {
	case INT2OID:
		*value = Int16GetDatum(static_cast<int16>(number));
		return number >= PG_INT16_MIN && number <= PG_INT16_MAX;
	case INT4OID:
	case DATEOID:
		*value = Int32GetDatum(static_cast<int32>(number));
		return number >= PG_INT32_MIN && number <= PG_INT32_MAX;
	case BOOLOID:
		*value = BoolGetDatum(number != 0);
		return number == 0 || number == 1;
	default:
		*value = Int64GetDatum(number);
		return true;
	}
}

}  // namespace homing::rehome
