#include "core/key_hash.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>
#include <vector>

using namespace homing::core;

namespace {

std::uint64_t HashText(const std::string &text)
{
	return HashKey(reinterpret_cast<const std::uint8_t *>(text.data()), text.size());
}

TEST(KeyHash, AnIntegerIsHashedAsItsCanonicalBytes)
{
	for (std::int64_t value :
	     {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, std::int64_t{0x0102030405060708},
	      std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
		const auto bytes = CanonicalInteger(value);
		EXPECT_EQ(HashInteger(value), HashKey(bytes.data(), bytes.size())) << value;
	}
}

TEST(KeyHash, CanonicalIntegerIsBigEndianTwosComplement)
{
	using Bytes = std::array<std::uint8_t, 8>;
	EXPECT_EQ(CanonicalInteger(0), (Bytes{0, 0, 0, 0, 0, 0, 0, 0}));
	EXPECT_EQ(CanonicalInteger(1), (Bytes{0, 0, 0, 0, 0, 0, 0, 1}));
	EXPECT_EQ(CanonicalInteger(-1), (Bytes{255, 255, 255, 255, 255, 255, 255, 255}));
	EXPECT_EQ(CanonicalInteger(0x0102030405060708), (Bytes{1, 2, 3, 4, 5, 6, 7, 8}));
	EXPECT_EQ(CanonicalInteger(std::numeric_limits<std::int64_t>::min()),
	          (Bytes{0x80, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(KeyHash, IntegersOfAllWidthsShareBytes)
{
	for (std::int32_t value : {-2147483647 - 1, -32768, -1, 0, 5, 32767, 2147483647}) {
		EXPECT_EQ(CanonicalInteger(value), CanonicalInteger(static_cast<std::int64_t>(value)));
	}
	EXPECT_EQ(CanonicalInteger(std::int16_t{-5}), CanonicalInteger(std::int64_t{-5}));
}

// On-disk contract: these values never change. Made by an independent implementation.
TEST(KeyHash, Pinned)
{
	EXPECT_EQ(HashText(""), 0xefd01f60ba992926ULL);
	EXPECT_EQ(HashText("a"), 0x82a2a958a9bece5bULL);
	EXPECT_EQ(HashText("eu"), 0xab53f147ca0b949fULL);
	EXPECT_EQ(HashText("customer-42"), 0xe5c7993df9de03b9ULL);
	EXPECT_EQ(HashText("Gr\xc3\xbc\xc3\x9f\x65"), 0x18ee3acd8b57a4feULL);
	EXPECT_EQ(HashInteger(0), 0x7bd3144f29c0cc9eULL);
	EXPECT_EQ(HashInteger(1), 0x0d4ad0eb39c50357ULL);
	EXPECT_EQ(HashInteger(-1), 0x6a92c0228678c02eULL);
	EXPECT_EQ(HashInteger(42), 0x641dede4f0973e8cULL);
	EXPECT_EQ(HashInteger(4294967296), 0x2e1ad68a92034c44ULL);
	EXPECT_EQ(HomeOfHash(HashInteger(1), 128), HomeId(87));
	EXPECT_EQ(HomeOfHash(HashInteger(2), 128), HomeId(115));
	EXPECT_EQ(HomeOfHash(HashInteger(42), 128), HomeId(12));
	EXPECT_EQ(HomeOfHash(HashInteger(100000), 128), HomeId(0));
}

TEST(KeyHash, EveryByteCounts)
{
	std::set<std::uint64_t> seen;
	std::string key(32, 'a');
	seen.insert(HashText(key));
	for (char &byte : key) {
		byte = 'b';
		EXPECT_TRUE(seen.insert(HashText(key)).second);
		byte = 'a';
	}
	EXPECT_NE(HashText("a"), HashText(std::string("a\0", 2)));
	EXPECT_NE(HashText(""), HashText(std::string("\0", 1)));
}

TEST(KeyHash, HomeIsInRange)
{
	for (std::int32_t homes : {1, 2, 3, 127, 128, 4096}) {
		for (std::int64_t key = -1000; key < 1000; ++key) {
			const HomeId home = HomeOfHash(HashInteger(key), homes);
			EXPECT_GE(home.value, 0);
			EXPECT_LT(home.value, homes);
		}
	}
	EXPECT_EQ(HomeOfHash(std::numeric_limits<std::uint64_t>::max(), 128), HomeId(127));
}

// Chi-squared over 128 homes: 127 degrees of freedom, mean 127, standard deviation 16. Far beyond what
// chance does, and the keys are fixed, so the test cannot flicker.
double ChiSquared(const std::vector<std::uint64_t> &hashes, std::int32_t homes)
{
	std::vector<int> count(static_cast<std::size_t>(homes));
	for (std::uint64_t hash : hashes)
		++count[static_cast<std::size_t>(HomeOfHash(hash, homes).value)];
	const double expected = static_cast<double>(hashes.size()) / homes;
	double sum = 0;
	for (int n : count)
		sum += (n - expected) * (n - expected) / expected;
	return sum;
}

TEST(KeyHash, SpreadsSequentialKeysEvenly)
{
	std::vector<std::uint64_t> sequential, strided, text;
	for (int i = 0; i < 100000; ++i) {
		sequential.push_back(HashInteger(i));
		strided.push_back(HashInteger(static_cast<std::int64_t>(i) * 1024));
		text.push_back(HashText("customer-" + std::to_string(i)));
	}
	EXPECT_LT(ChiSquared(sequential, 128), 127 + 6 * 16);
	EXPECT_LT(ChiSquared(strided, 128), 127 + 6 * 16);
	EXPECT_LT(ChiSquared(text, 128), 127 + 6 * 16);
}

}  // namespace
