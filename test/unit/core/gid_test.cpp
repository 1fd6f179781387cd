#include "core/gid.hpp"

#include <gtest/gtest.h>

namespace homing::core {
namespace {

Gid Largest()
{
	Gid gid;
	gid.cluster = "0123abcd";
	gid.coordinator = RegionId(32767);
	gid.epoch = Epoch(9223372036854775807);
	gid.database = 4294967295u;
	gid.pid = 2147483647;
	gid.counter = 18446744073709551615u;
	std::array<std::uint8_t, 16> random;
	random.fill(0x77);
	gid.token = MakeToken(random, gid.coordinator, 1700000000);
	gid.part = "32767.99";
	return gid;
}

TEST(Gid, FitsIntoTheServersLimit)
{
	EXPECT_LT(Largest().Text().size(), 200u);
}

TEST(Gid, ComesBackFromItsText)
{
	const Gid gid = Largest();
	const std::optional<Gid> parsed = ParseGid(gid.Text());
	ASSERT_TRUE(parsed);
	EXPECT_EQ(parsed->cluster, gid.cluster);
	EXPECT_EQ(parsed->coordinator, gid.coordinator);
	EXPECT_EQ(parsed->epoch, gid.epoch);
	EXPECT_EQ(parsed->database, gid.database);
	EXPECT_EQ(parsed->pid, gid.pid);
	EXPECT_EQ(parsed->counter, gid.counter);
	EXPECT_EQ(parsed->token, gid.token);
	EXPECT_EQ(parsed->part, gid.part);
}

TEST(Gid, ForeignNamesAreNone)
{
	const std::string good = Largest().Text();
	Gid other = Largest();
	other.coordinator = RegionId(1);  // its token says another region
	for (const std::string &bad : {std::string(), std::string("homing"), std::string("pg_fdw_1"),
	                               "x" + good, good + ":", good.substr(0, good.size() - 9),
	                               std::string("homing:0123abcd:1:2:3:4:5:x:1.0"), other.Text()})
		EXPECT_FALSE(ParseGid(bad)) << bad;
}

TEST(Gid, NumbersOutOfRangeAreNone)
{
	const std::string token = Largest().token.Text();
	EXPECT_TRUE(ParseGid("homing:0123abcd:32767:1:1:1:1:" + token + ":1.0"));
	for (const char *numbers :
	     {"32768:1:1:1:1", "-1:1:1:1:1", "32767:9223372036854775808:1:1:1",
	      "32767:1:4294967296:1:1", "32767:1:1:2147483648:1", "32767:1:1:1:18446744073709551616",
	      "32767:1:1:1:", "32767: 1:1:1:1"})
		EXPECT_FALSE(ParseGid(std::string("homing:0123abcd:") + numbers + ":" + token + ":1.0"))
			<< numbers;
}

}  // namespace
}  // namespace homing::core
