// Points in time and spans of it. Core has no clock: whoever calls says what time it is, by a clock that runs
// on while the machine sleeps (CLOCK_BOOTTIME) and is never set.
#pragma once

#include <cstdint>
#include <limits>

namespace homing::core {

struct Duration {
	std::int64_t us = 0;
	friend constexpr bool operator==(Duration a, Duration b) { return a.us == b.us; }
	friend constexpr bool operator<(Duration a, Duration b) { return a.us < b.us; }
	friend constexpr Duration operator+(Duration a, Duration b) { return {a.us + b.us}; }
};

constexpr Duration Milliseconds(std::int64_t ms)
{
	return {ms * 1000};
}

// Instants of different machines, or of one before and after a restart, say nothing about each other.
struct Instant {
	std::int64_t us = std::numeric_limits<std::int64_t>::min();  // before all others
	friend constexpr bool operator==(Instant a, Instant b) { return a.us == b.us; }
	friend constexpr bool operator<(Instant a, Instant b) { return a.us < b.us; }
	friend constexpr bool operator<=(Instant a, Instant b) { return a.us <= b.us; }
	friend constexpr Instant operator+(Instant a, Duration d) { return {a.us + d.us}; }
	friend constexpr Duration operator-(Instant a, Instant b) { return {a.us - b.us}; }
};

}  // namespace homing::core
