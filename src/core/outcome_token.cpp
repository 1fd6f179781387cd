#include "core/outcome_token.hpp"

namespace homing::core {

namespace {

constexpr std::int64_t kHour = 3600;

std::uint16_t HourOf(std::int64_t now)
{
	return static_cast<std::uint16_t>(now / kHour);
}

std::uint16_t HourOf(const OutcomeToken &token)
{
	return static_cast<std::uint16_t>(token.bytes[14] << 8 | token.bytes[15]);
}

// FNV-1a, folded to the 24 bits that a token has for it.
std::uint32_t MarkOf(const std::string &role)
{
	std::uint32_t hash = 2166136261u;
	for (char c : role)
		hash = (hash ^ static_cast<std::uint8_t>(c)) * 16777619u;
	return (hash >> 24) ^ (hash & 0xffffff);
}

int HexDigit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

}  // namespace

RegionId OutcomeToken::Region() const
{
	return RegionId(static_cast<std::int16_t>(bytes[12] << 8 | bytes[13]));
}

std::string OutcomeToken::Text() const
{
	static const char kDigits[] = "0123456789abcdef";
	std::string text;
	text.reserve(36);
	for (std::size_t i = 0; i < bytes.size(); ++i) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			text += '-';
		text += kDigits[bytes[i] >> 4];
		text += kDigits[bytes[i] & 15];
	}
	return text;
}

OutcomeToken MakeToken(const std::array<std::uint8_t, 16> &random, RegionId region, std::int64_t now)
{
	OutcomeToken token{random};
	token.bytes[6] = static_cast<std::uint8_t>(0x80 | (random[6] & 0x0f));  // version 8
	token.bytes[8] =
		static_cast<std::uint8_t>(0x80 | (random[8] & 0x3f));  // the variant of RFC 9562
	token.bytes[12] = static_cast<std::uint8_t>(region.value >> 8);
	token.bytes[13] = static_cast<std::uint8_t>(region.value);
	token.bytes[14] = static_cast<std::uint8_t>(HourOf(now) >> 8);
	token.bytes[15] = static_cast<std::uint8_t>(HourOf(now));
	return token;
}

OutcomeToken MadeOutTo(OutcomeToken token, const std::string &role)
{
	const std::uint32_t mark = MarkOf(role);
	token.bytes[9] = static_cast<std::uint8_t>(mark >> 16);
	token.bytes[10] = static_cast<std::uint8_t>(mark >> 8);
	token.bytes[11] = static_cast<std::uint8_t>(mark);
	return token;
}

bool IsMadeOutTo(const OutcomeToken &token, const std::string &role)
{
	return MadeOutTo(token, role) == token;
}

bool IsToken(const OutcomeToken &token)
{
	return (token.bytes[6] & 0xf0) == 0x80 && (token.bytes[8] & 0xc0) == 0x80 &&
	       token.Region().value > 0;
}

std::optional<OutcomeToken> ParseToken(const std::string &text)
{
	if (text.size() != 36)
		return std::nullopt;
	OutcomeToken token;
	std::size_t digits = 0;
	for (std::size_t i = 0; i < text.size(); ++i) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return std::nullopt;
			continue;
		}
		const int digit = HexDigit(text[i]);
		if (digit < 0)
			return std::nullopt;
		std::uint8_t &byte = token.bytes[digits++ / 2];
		byte = static_cast<std::uint8_t>(byte << 4 | digit);
	}
	if (!IsToken(token))
		return std::nullopt;
	return token;
}

int BucketOf(const OutcomeToken &token)
{
	return HourOf(token) % kOutcomeBuckets;
}

int AgeInHours(const OutcomeToken &token, std::int64_t now)
{
	// Hours are counted modulo 2^16, seven years.
	return static_cast<std::int16_t>(HourOf(now) - HourOf(token));
}

bool IsForgettable(const OutcomeToken &token, std::int64_t now)
{
	const int age = AgeInHours(token, now);
	return age >= 2 || age < -1;
}

bool IsFresh(const OutcomeToken &token, std::int64_t now)
{
	return !IsForgettable(token, now);
}

std::optional<int> BucketToEmpty(std::int64_t now)
{
	const std::int64_t into_hour = now % kHour;
	if (into_hour < kHour / 4 || into_hour >= kHour - kHour / 4)
		return std::nullopt;
	// The last one was two hours ago, and the next one is an hour away.
	return (HourOf(now) + 1) % kOutcomeBuckets;
}

}  // namespace homing::core
