#include "core/outcome_token.hpp"

#include <gtest/gtest.h>

namespace homing::core {
namespace {

constexpr std::int64_t kHour = 3600;
constexpr std::int64_t kNow = 1700000000 / kHour * kHour;  // the start of an hour

OutcomeToken Token(std::int64_t now, int region = 7, std::uint8_t fill = 0xff)
{
	std::array<std::uint8_t, 16> random;
	random.fill(fill);
	return MakeToken(random, RegionId(static_cast<std::int16_t>(region)), now);
}

TEST(OutcomeToken, SaysItsRegion)
{
	for (int region : {1, 255, 256, 32767})
		EXPECT_EQ(Token(kNow, region).Region().value, region);
}

TEST(OutcomeToken, IsAUuidOfVersion8)
{
	const std::string text = Token(kNow).Text();
	ASSERT_EQ(text.size(), 36u);
	EXPECT_EQ(text[14], '8');
	EXPECT_EQ(text[19], 'b');
}

TEST(OutcomeToken, ComesBackFromItsText)
{
	const OutcomeToken token = Token(kNow, 300, 0x5a);
	const std::optional<OutcomeToken> parsed = ParseToken(token.Text());
	ASSERT_TRUE(parsed);
	EXPECT_EQ(*parsed, token);
}

TEST(OutcomeToken, OtherTextIsNone)
{
	const std::string good = Token(kNow).Text();
	std::string version4 = good, no_region = good, dash = good, letter = good;
	version4[14] = '4';
	no_region.replace(28, 4, "0000");
	dash[8] = '0';
	letter[0] = 'g';
	for (const std::string &bad :
	     {std::string(), good.substr(1), good + "0", version4, no_region, dash, letter})
		EXPECT_FALSE(ParseToken(bad)) << bad;
}

TEST(OutcomeToken, IsFreshInItsHourAndTheOnesBeside)
{
	const OutcomeToken token = Token(kNow);
	EXPECT_TRUE(IsFresh(token, kNow - 1));  // our clock is behind
	EXPECT_TRUE(IsFresh(token, kNow + 2 * kHour - 1));
	EXPECT_FALSE(IsFresh(token, kNow + 2 * kHour));
	EXPECT_FALSE(IsFresh(token, kNow - kHour - 1));
}

TEST(OutcomeToken, AgeGoesOnWhereTheCountOfHoursStartsAnew)
{
	const std::int64_t wrap = 65536 * kHour * 7;
	EXPECT_EQ(AgeInHours(Token(wrap - 1), wrap + kHour), 2);
	EXPECT_EQ(AgeInHours(Token(wrap), wrap - 1), -1);
}

// What is emptied at any moment holds no token that is fresh for a clock 15 minutes off or less.
TEST(OutcomeToken, NoFreshOneIsEmptied)
{
	for (std::int64_t now = kNow; now < kNow + 6 * kHour; now += 60) {
		const std::optional<int> bucket = BucketToEmpty(now);
		if (!bucket)
			continue;
		for (std::int64_t made = now - 3 * kHour; made <= now + kHour / 4; made += 60) {
			if (BucketOf(Token(made)) != *bucket)
				continue;
			EXPECT_TRUE(IsForgettable(Token(made), now))
				<< "made at " << made << ", emptied at " << now;
		}
	}
}

TEST(OutcomeToken, BelongsToOneRole)
{
	const OutcomeToken token = MadeOutTo(Token(kNow), "alice");
	EXPECT_TRUE(IsToken(token));
	EXPECT_EQ(token.Region(), Token(kNow).Region());
	EXPECT_EQ(BucketOf(token), BucketOf(Token(kNow)));
	EXPECT_TRUE(IsMadeOutTo(token, "alice"));
	for (const char *other : {"", "alic", "alice ", "Alice", "bob", "ecila"})
		EXPECT_FALSE(IsMadeOutTo(token, other)) << other;
}

TEST(OutcomeToken, EveryBucketIsEmptied)
{
	bool emptied[kOutcomeBuckets] = {};
	for (std::int64_t now = kNow; now < kNow + kOutcomeBuckets * kHour; now += 60) {
		if (const std::optional<int> bucket = BucketToEmpty(now))
			emptied[*bucket] = true;
	}
	for (bool one : emptied)
		EXPECT_TRUE(one);
}

}  // namespace
}  // namespace homing::core
