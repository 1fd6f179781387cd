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

namespace {

// FNV-1a over the bytes, then an avalanche: FNV alone leaves the low bits, which choose the home, of
// short keys too regular.
constexpr std::uint64_t kStart = 14695981039346656037ULL;

constexpr std::uint64_t AddByte(std::uint64_t hash, std::uint64_t byte)
{
	return (hash ^ byte) * 1099511628211ULL;
}

constexpr std::uint64_t Avalanche(std::uint64_t hash)
{
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	hash ^= hash >> 33;
	return hash;
}

}  // namespace

std::uint64_t HashKey(const std::uint8_t *bytes, std::size_t size)
{
	std::uint64_t hash = kStart;
	for (std::size_t i = 0; i < size; ++i)
		hash = AddByte(hash, bytes[i]);
	return Avalanche(hash);
}

std::uint64_t HashInteger(std::int64_t value)
{
	const auto bits = static_cast<std::uint64_t>(value);
	std::uint64_t hash = kStart;
// A write at home comes here once: the loop as it stands is less to fetch than eight times its body.
#pragma GCC unroll 1
	for (int shift = 56; shift >= 0; shift -= 8)
		hash = AddByte(hash, (bits >> shift) & 0xff);
	return Avalanche(hash);
}

HomeId HomeOfHash(std::uint64_t hash, std::int32_t homes)
{
	return HomeId(static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(homes)));
}

}  // namespace homing::core
