#include "pg/exact_text.hpp"

extern "C" {
#include "utils/float.h"
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
