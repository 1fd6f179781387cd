#include "core/causal.hpp"

#include <algorithm>

namespace homing::core {

namespace {

std::string Hex(std::uint64_t number)
{
	static const char kDigits[] = "0123456789ABCDEF";
	std::string text;
	do {
		text.insert(text.begin(), kDigits[number & 15]);
		number >>= 4;
	} while (number != 0);
	return text;
}

// Upper case digits only, so that there is one text for each number.
std::optional<std::uint64_t> ParseHex(const std::string &text)
{
	if (text.empty() || text.size() > 16)
		return std::nullopt;
	std::uint64_t number = 0;
	for (char c : text) {
		if (c >= '0' && c <= '9')
			number = number << 4 | static_cast<std::uint64_t>(c - '0');
		else if (c >= 'A' && c <= 'F')
			number = number << 4 | static_cast<std::uint64_t>(c - 'A' + 10);
		else
			return std::nullopt;
	}
	return number;
}

std::optional<RegionId> ParseRegion(const std::string &text)
{
	if (text.empty() || text.size() > 5)
		return std::nullopt;
	int number = 0;
	for (char c : text) {
		if (c < '0' || c > '9')
			return std::nullopt;
		number = number * 10 + (c - '0');
	}
	if (number < 1 || number > 32767)
		return std::nullopt;
	return RegionId(static_cast<std::int16_t>(number));
}

}  // namespace

void CausalState::NeedPosition(RegionId region, std::uint64_t position)
{
	Needed &needed = needed_[region];
	needed.position = std::max(needed.position, position);
}

void CausalState::NeedPart(RegionId region, const OutcomeToken &part)
{
	std::vector<OutcomeToken> &parts = needed_[region].parts;
	if (std::find(parts.begin(), parts.end(), part) == parts.end())
		parts.push_back(part);
}

void CausalState::ForgetPart(RegionId region, const OutcomeToken &part) noexcept
{
	ForgetParts(region, [&](const OutcomeToken &known) { return known == part; });
}

void CausalState::Merge(const CausalState &other)
{
	for (const auto &[region, needed] : other.needed_) {
		if (needed.position != 0)
			NeedPosition(region, needed.position);
		for (const OutcomeToken &part : needed.parts)
			NeedPart(region, part);
	}
}

std::string CausalState::Text() const
{
	std::string text;
	const auto add = [&](RegionId region, const std::string &what) {
		text += (text.empty() ? "" : ",") + std::to_string(region.value) + ":" + what;
	};
	for (const auto &[region, needed] : needed_) {
		if (needed.position != 0)
			add(region, Hex(needed.position));
		for (const OutcomeToken &part : needed.parts)
			add(region, part.Text());
	}
	return text;
}

std::optional<CausalState> CausalState::Parse(const std::string &text)
{
	CausalState state;
	if (text.empty())
		return state;
	for (std::size_t start = 0; start <= text.size();) {
		const std::size_t end = std::min(text.find(',', start), text.size());
		const std::string item = text.substr(start, end - start);
		const std::size_t colon = item.find(':');
		if (colon == std::string::npos)
			return std::nullopt;
		const auto region = ParseRegion(item.substr(0, colon));
		const std::string what = item.substr(colon + 1);
		if (!region)
			return std::nullopt;
		if (const auto position = ParseHex(what); position && *position != 0) {
			state.NeedPosition(*region, *position);
		} else {
			const auto part = ParseToken(what);
			if (!part || part->Region() != *region)
				return std::nullopt;
			state.NeedPart(*region, *part);
		}
		start = end + 1;
	}
	return state;
}

}  // namespace homing::core
