// Numbers that are the same everywhere for one seed.
#pragma once

#include <cstdint>

namespace homing::sim {

class Random {
public:
	explicit Random(std::uint64_t seed) : state_(seed) {}

	// SplitMix64.
	std::uint64_t Next()
	{
		std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		return z ^ (z >> 31);
	}
	// Requires: bound > 0.
	std::int64_t Below(std::int64_t bound)
	{
		return static_cast<std::int64_t>(Next() % static_cast<std::uint64_t>(bound));
	}
	bool Chance(double probability)
	{
		return static_cast<double>(Next() >> 11) * 0x1p-53 < probability;
	}

private:
	std::uint64_t state_;
};

}  // namespace homing::sim
