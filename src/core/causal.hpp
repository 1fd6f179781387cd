// What a session must be able to see when it reads: the transactions that it has committed at other regions,
// or that it was told of. One position per region is enough, since a stream is applied in order; a part of a
// transaction whose position is not known is found by the token that it keeps (outcome_token.hpp).
//
// As text, for a web tier to carry: "2:1A2B3C40,3:5f0e…-…", for each region its number and a position in
// hexadecimal digits, or a token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.hpp"
#include "core/outcome_token.hpp"

namespace homing::core {

class CausalState {
public:
	struct Needed {
		std::uint64_t position = 0;  // in the region's WAL; 0: none
		std::vector<OutcomeToken> parts;
	};

	void NeedPosition(RegionId region, std::uint64_t position);
	void NeedPart(RegionId region, const OutcomeToken &part);
	// Never throws: forgets what was asked for with NeedPart.
	void ForgetPart(RegionId region, const OutcomeToken &part) noexcept;
	void Forget(RegionId region) { needed_.erase(region); }
	// Forgets the parts at the region for which `arrived` is true.
	template <typename Arrived>
	void ForgetParts(RegionId region, const Arrived &arrived)
	{
		auto found = needed_.find(region);
		if (found == needed_.end())
			return;
		std::vector<OutcomeToken> &parts = found->second.parts;
		parts.erase(std::remove_if(parts.begin(), parts.end(), arrived), parts.end());
		if (parts.empty() && found->second.position == 0)
			needed_.erase(found);
	}
	void Merge(const CausalState &other);

	bool Empty() const { return needed_.empty(); }
	const std::map<RegionId, Needed> &needed() const { return needed_; }

	std::string Text() const;
	static std::optional<CausalState> Parse(const std::string &text);

private:
	std::map<RegionId, Needed> needed_;
};

}  // namespace homing::core
