// Key → home, the same on every platform and PostgreSQL version.
//
// A key is hashed over its canonical bytes: every value that the key type calls equal has the same
// bytes. Integers of all widths are widened to 8 bytes, so that int4 5 and int8 5 share a home.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/ids.hpp"

namespace homing::core {

// Big-endian two's complement, 8 bytes: the canonical form of integers, dates and timestamps.
std::array<std::uint8_t, 8> CanonicalInteger(std::int64_t value);

// 64-bit hash of canonical bytes. Part of the on-disk contract: it never changes.
std::uint64_t HashKey(const std::uint8_t *bytes, std::size_t size);

// The hash of an integer's canonical bytes, without making them.
std::uint64_t HashInteger(std::int64_t value);

// Requires: homes > 0.
HomeId HomeOfHash(std::uint64_t hash, std::int32_t homes);

}  // namespace homing::core
