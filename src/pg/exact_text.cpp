#include "pg/exact_text.hpp"

extern "C" {
#include "utils/float.h"
}

namespace homing::pg {

char *ExactText(Oid output_function, Datum value)
{
	if (extra_float_digits >= 1)
		return OidOutputFunctionCall(output_function, value);

	const int digits = extra_float_digits;
	char *text = nullptr;
	extra_float_digits = 1;
	PG_TRY();
	{
		text = OidOutputFunctionCall(output_function, value);
	}
	PG_FINALLY();
	{
		extra_float_digits = digits;
	}
	PG_END_TRY();
	return text;
}

}  // namespace homing::pg
