#include "core/statement_cache.hpp"

#include <gtest/gtest.h>

namespace homing::core {
namespace {

constexpr std::size_t kBytes = 1024;

TEST(StatementCache, PreparesWhatComesAgain)
{
	StatementCache cache(2, kBytes);
	EXPECT_EQ(cache.Plan("a").number, 0);
	const StatementCache::Use second = cache.Plan("a");
	EXPECT_EQ(second.number, 1);
	EXPECT_TRUE(second.prepare);
	const StatementCache::Use third = cache.Plan("a");
	EXPECT_EQ(third.number, 1);
	EXPECT_FALSE(third.prepare);
}

TEST(StatementCache, TheLeastRecentlyUsedLeaves)
{
	StatementCache cache(2, kBytes);
	for (const char *key : {"a", "a", "b", "b", "a", "c", "c"})
		(void) cache.Plan(key);
	EXPECT_EQ(cache.TakeEvicted(), std::vector<int>{2});  // b
	EXPECT_EQ(cache.TakeEvicted(), std::vector<int>{});
	EXPECT_EQ(cache.Plan("a").number, 1);
	EXPECT_EQ(cache.Plan("b").number, 0);
	EXPECT_EQ(cache.size(), 2u);
}

TEST(StatementCache, LongOnesLeaveEarlier)
{
	StatementCache cache(100, 80);
	const std::string a(10, 'a'), b(10, 'b'), too_long(11, 'c');
	for (const std::string &key : {a, a, b, b, too_long, too_long})
		(void) cache.Plan(key);
	EXPECT_EQ(cache.size(), 2u);
	EXPECT_EQ(cache.Plan(too_long).number, 0);
	for (const char each : {'d', 'e', 'f', 'g', 'h', 'i'}) {
		(void) cache.Plan(std::string(10, each));
		(void) cache.Plan(std::string(10, each));
	}
	EXPECT_TRUE(cache.TakeEvicted().empty());
	(void) cache.Plan("j");
	EXPECT_EQ(cache.Plan("j").number, 9);
	EXPECT_EQ(cache.TakeEvicted(), std::vector<int>{1});
	// What is forgotten makes room.
	cache.Forget(2);
	(void) cache.Plan("123456789");
	EXPECT_EQ(cache.Plan("123456789").number, 10);
	EXPECT_TRUE(cache.TakeEvicted().empty());
}

TEST(StatementCache, StatementsThatComeOnceDisplaceNone)
{
	StatementCache cache(2, kBytes);
	(void) cache.Plan("a");
	(void) cache.Plan("a");
	for (int i = 0; i < 1000; ++i)
		(void) cache.Plan("once " + std::to_string(i));
	EXPECT_EQ(cache.Plan("a").number, 1);
	EXPECT_TRUE(cache.TakeEvicted().empty());
}

TEST(StatementCache, WhatTheServerDoesNotHaveIsPreparedUnderAnotherNumber)
{
	StatementCache cache(2, kBytes);
	(void) cache.Plan("a");
	(void) cache.Plan("a");
	cache.Forget(1);
	EXPECT_EQ(cache.Plan("a").number, 0);
	const StatementCache::Use again = cache.Plan("a");
	EXPECT_EQ(again.number, 2);
	EXPECT_TRUE(again.prepare);
}

TEST(StatementCache, WhatWasNotDroppedIsDroppedLater)
{
	StatementCache cache(1, kBytes);
	for (const char *key : {"a", "a", "b", "b"})
		(void) cache.Plan(key);
	EXPECT_EQ(cache.TakeEvicted(), std::vector<int>{1});
	cache.GiveBack(1);
	EXPECT_EQ(cache.TakeEvicted(), std::vector<int>{1});
	// The server never had it.
	cache.GiveBack(1);
	cache.Forget(1);
	EXPECT_TRUE(cache.TakeEvicted().empty());
}

}  // namespace
}  // namespace homing::core
