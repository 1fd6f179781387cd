#include "pg/exact_text.hpp"

extern "C" {
#include "access/detoast.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
}

namespace homing::pg {

namespace {

// The settings that an output function looks at.
struct Display {
	int float_digits, date_style, interval_style;

	static Display Present() { return {extra_float_digits, DateStyle, IntervalStyle}; }
	void Apply() const
	{
		extra_float_digits = float_digits;
		DateStyle = date_style;
		IntervalStyle = interval_style;
	}
};

constexpr Display kExact = {1, USE_ISO_DATES, INTSTYLE_ISO_8601};

// Text of a bytea has two digits for each byte, and a value has 1 GB at most.
void CheckHasText(Oid output_function, Datum value)
{
	if (output_function != F_BYTEAOUT)
		return;
	const Size size = toast_raw_datum_size(value) - VARHDRSZ;
	if (size > (MaxAllocSize - 8) / 2)
		ereport(ERROR,
		        (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		         errmsg("bytea value of %zu bytes is too large to be sent to another region", size),
		         errhint("Write it at its home region, or in pieces of less than 512 MB.")));
}

}  // namespace

char *WithExactText(char *(*print)(void *), void *argument)
{
	const Display display = Display::Present();
	char *text = nullptr;
	PG_TRY();
	{
		kExact.Apply();
		text = print(argument);
	}
	PG_FINALLY();
	{
		display.Apply();
	}
	PG_END_TRY();
	return text;
}

char *ExactText(Oid output_function, Datum value)
{
	CheckHasText(output_function, value);
	struct Output {
		Oid function;
		Datum value;
	} output{output_function, value};
	return WithExactText(
		[](void *argument) {
			auto *what = static_cast<Output *>(argument);
			return OidOutputFunctionCall(what->function, what->value);
		},
		&output);
}

}  // namespace homing::pg
