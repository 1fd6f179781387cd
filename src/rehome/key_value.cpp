#include "rehome/key_value.hpp"

extern "C" {
#include "utils/lsyscache.h"
}

namespace homing::rehome {

pg::KeyBytes KeyFromArgument(Datum argument, Oid type, Oid key_type, uint8 buffer[8])
{
	if (!OidIsValid(type))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("could not determine the type of the key")));
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

}  // namespace homing::rehome
