#include "core/key_hash.hpp"

namespace homing::core {

std::array<std::uint8_t, 8> CanonicalInteger(std::int64_t value)
{
	std::array<std::uint8_t, 8> bytes{};
	auto bits = static_cast<std::uint64_t>(value);
	for (int i = 7; i >= 0; --i) {
		bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(bits & 0xff);
		bits >>= 8;
	}
	return bytes;
}

// FNV-1a over the bytes, then an avalanche: FNV alone leaves the low bits, which choose the home, of
// short keys too regular.
std::uint64_t HashKey(const std::uint8_t *bytes, std::size_t size)
{
	std::uint64_t hash = 14695981039346656037ULL;
	for (std::size_t i = 0; i < size; ++i) {
		hash ^= bytes[i];
		hash *= 1099511628211ULL;
	}
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	hash ^= hash >> 33;
	return hash;
}

HomeId HomeOfHash(std::uint64_t hash, std::int32_t homes)
{
	return HomeId(static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(homes)));
}

}  // namespace homing::core
