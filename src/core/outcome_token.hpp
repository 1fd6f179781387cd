// The name of a transaction, under which its outcome is kept and can be asked for.
//
// A token is a UUID (version 8: 66 random bits) that says at which region the transaction commits, in which hour it
// was made and, by a hash of its name, for which role: nobody else may settle it. Outcomes are kept in three buckets by the hour modulo three; the bucket two hours
// back is emptied as a whole, so an outcome is known for an hour at least and forgotten without touching
// its row.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "core/ids.hpp"

namespace homing::core {

struct OutcomeToken {
	std::array<std::uint8_t, 16> bytes{};

	RegionId Region() const;
	std::string Text() const;  // as the type uuid prints it
	friend bool operator==(const OutcomeToken &a, const OutcomeToken &b)
	{
		return a.bytes == b.bytes;
	}
};

constexpr int kOutcomeBuckets = 3;

// Makes a token from 16 random bytes. `now` in seconds since 1970, by the caller's clock.
OutcomeToken MakeToken(const std::array<std::uint8_t, 16> &random, RegionId region,
                       std::int64_t now);

// The token, made out to the role under which the transaction runs at its region.
OutcomeToken MadeOutTo(OutcomeToken token, const std::string &role);
bool IsMadeOutTo(const OutcomeToken &token, const std::string &role);

// Nothing when the text is no token: not a UUID of our version.
std::optional<OutcomeToken> ParseToken(const std::string &text);
bool IsToken(const OutcomeToken &token);

int BucketOf(const OutcomeToken &token);

// Hours since the token was made; negative when our clock is behind the clock that made it.
int AgeInHours(const OutcomeToken &token, std::int64_t now);

// Its outcome may have been forgotten, so that no row means nothing any more.
bool IsForgettable(const OutcomeToken &token, std::int64_t now);
// A transaction may keep its outcome under this token. False when the clocks of the two regions are hours
// apart, or the transaction was under way for hours.
bool IsFresh(const OutcomeToken &token, std::int64_t now);

// The bucket to be emptied now: only in the middle of an hour, because clocks differ. It holds nothing that
// is fresh for a clock that is at most 15 minutes off.
std::optional<int> BucketToEmpty(std::int64_t now);

}  // namespace homing::core
