#include "core/gid.hpp"

#include <limits>
#include <vector>

namespace homing::core {

namespace {

constexpr const char *kPrefix = "homing";

std::vector<std::string> Split(const std::string &text)
{
	std::vector<std::string> fields(1);
	for (char c : text) {
		if (c == ':')
			fields.emplace_back();
		else
			fields.back() += c;
	}
	return fields;
}

// Decimal digits only, no sign, at most `highest`.
std::optional<std::uint64_t> Number(const std::string &text, std::uint64_t highest)
{
	if (text.empty() || text.size() > 20)
		return std::nullopt;
	std::uint64_t number = 0;
	for (char c : text) {
		if (c < '0' || c > '9')
			return std::nullopt;
		const auto digit = static_cast<std::uint64_t>(c - '0');
		if (number > (std::numeric_limits<std::uint64_t>::max() - digit) / 10)
			return std::nullopt;
		number = number * 10 + digit;
	}
	if (number > highest)
		return std::nullopt;
	return number;
}

template <typename Integer>
constexpr std::uint64_t Highest()
{
	return static_cast<std::uint64_t>(std::numeric_limits<Integer>::max());
}

}  // namespace

std::string Gid::Text() const
{
	std::string text = kPrefix;
	for (const std::string &field :
	     {cluster, std::to_string(coordinator.value), std::to_string(epoch.value),
	      std::to_string(database), std::to_string(pid), std::to_string(counter), token.Text(), part})
		text += ":" + field;
	return text;
}

std::optional<Gid> ParseGid(const std::string &text)
{
	const std::vector<std::string> fields = Split(text);
	if (fields.size() != 9 || fields[0] != kPrefix || fields[1].size() != 8 || fields[8].empty())
		return std::nullopt;
	const auto coordinator = Number(fields[2], Highest<std::int16_t>());
	const auto epoch = Number(fields[3], Highest<std::int64_t>());
	const auto database = Number(fields[4], Highest<std::uint32_t>());
	const auto pid = Number(fields[5], Highest<std::int32_t>());
	const auto counter = Number(fields[6], Highest<std::uint64_t>());
	const auto token = ParseToken(fields[7]);
	if (!coordinator || !epoch || !database || !pid || !counter || !token)
		return std::nullopt;
	Gid gid;
	gid.cluster = fields[1];
	gid.coordinator = RegionId(static_cast<std::int16_t>(*coordinator));
	gid.epoch = Epoch(static_cast<std::int64_t>(*epoch));
	gid.database = static_cast<std::uint32_t>(*database);
	gid.pid = static_cast<std::int32_t>(*pid);
	gid.counter = *counter;
	gid.token = *token;
	gid.part = fields[8];
	if (gid.token.Region() != gid.coordinator)
		return std::nullopt;
	return gid;
}

}  // namespace homing::core
