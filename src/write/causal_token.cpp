#include "write/causal_token.hpp"

#include <chrono>
#include <vector>

#include "pg/apply_progress.hpp"
#include "pg/catalog.hpp"
#include "pg/shared_memory.hpp"
#include "write/outcome_table.hpp"
#include "write/read_consistency.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
}

namespace homing::write {

namespace {

constexpr std::size_t kManyParts = 64;

core::CausalState *told = nullptr;

core::CausalState &Told()
{
	if (told == nullptr)
		told = new core::CausalState;
	return *told;
}

// A part that has arrived here is in the region's stream before what has been applied of that by now: one position
// stands for all of them.
void Condense(core::RegionId region)
{
	auto known = Told().needed().find(region);
	if (known == Told().needed().end() || known->second.parts.empty())
		return;
	std::vector<core::OutcomeToken> arrived;
	for (const core::OutcomeToken &part : known->second.parts) {
		if (PartHasArrived(part))
			arrived.push_back(part);
	}
	const Oid subscription = StreamFrom(region);
	if (arrived.empty() || !OidIsValid(subscription))
		return;
	const std::uint64_t position = pg::PgCall([&] { return pg::AppliedPosition(subscription); });
	if (position == 0)
		return;
	Told().NeedPosition(region, position);
	for (const core::OutcomeToken &part : arrived)
		Told().ForgetPart(region, part);
}

// All of it, with a mark behind what the session has committed here.
std::string Token()
{
	core::CausalState state = Told();
	const pg::Catalog *catalog = pg::CurrentCatalog();
	if (catalog == nullptr)
		return state.Text();
	std::vector<core::RegionId> regions;
	for (const auto &[region, what] : state.needed())
		regions.push_back(region);
	for (core::RegionId region : regions) {
		if (region != pg::CurrentCatalog()->map.here())
			Condense(region);
	}
	state = Told();
	catalog = pg::CurrentCatalog();
	if (!XactReadOnly && catalog->fenced.empty()) {
		core::OutcomeToken mark;
		const core::RegionId here = catalog->map.here();
		pg::PgCall([&] { LeaveMark(here.value, mark.bytes.data()); });
		state.Forget(here);
		state.NeedPart(here, mark);
	}
	return state.Text();
}

}  // namespace

void TellPosition(core::RegionId region, std::uint64_t position)
{
	Told().NeedPosition(region, position);
}

void TellPart(core::RegionId region, const core::OutcomeToken &part)
{
	static std::size_t many = kManyParts;
	Told().NeedPart(region, part);
	if (Told().needed().at(region).parts.size() < many)
		return;
	Condense(region);
	many = std::max(kManyParts, 2 * Told().needed().at(region).parts.size());
}

std::string ToldBeyond(core::RegionId region)
{
	if (told == nullptr)
		return {};
	core::CausalState state = *told;
	state.Forget(region);
	// What a lost region had is what the survivors have.
	if (const pg::Catalog *catalog = pg::CurrentCatalog(); catalog != nullptr) {
		for (const core::Region &known : catalog->map.regions()) {
			if (known.status == core::RegionStatus::kLost)
				state.Forget(known.id);
		}
	}
	return state.Empty() ? std::string() : state.Text();
}

void TakeBackPart(core::RegionId region, const core::OutcomeToken &part) noexcept
{
	if (told != nullptr)
		told->ForgetPart(region, part);
}

void ForgetTold(core::RegionId region)
{
	Told().Forget(region);
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_causal_token);
PG_FUNCTION_INFO_V1(homing_wait_for);

static void RequireShared()
{
	pg::RequireLoaded(pg::CatalogIsShared());
}

PGDLLEXPORT Datum homing_causal_token(PG_FUNCTION_ARGS)
{
	RequireShared();
	const char *token = pg::PgEntry([&] {
		const std::string written = Token();
		return pg::PgCall([&] { return pstrdup(written.c_str()); });
	});
	PG_RETURN_TEXT_P(cstring_to_text(token));
}

PGDLLEXPORT Datum homing_wait_for(PG_FUNCTION_ARGS)
{
	RequireShared();
	const char *token = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const Interval *interval = PG_GETARG_INTERVAL_P(1);
	const double patience = static_cast<double>(interval->time) / 1000.0 +
	                        (interval->day + 30.0 * interval->month) * SECS_PER_DAY * 1000.0;
	if (patience < 0 || patience > 1e12)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid timeout")));
	const bool arrived = pg::PgEntry([&] {
		const std::optional<core::CausalState> state = core::CausalState::Parse(token);
		if (!state) {
			remote::Error error("22023", "invalid causal token");
			error.hint = "It is what homing.causal_token() returned.";
			throw error;
		}
		Told().Merge(*state);
		return AwaitTold(*state, std::chrono::milliseconds(
									 static_cast<std::chrono::milliseconds::rep>(patience)));
	});
	PG_RETURN_BOOL(arrived);
}

}  // extern "C"

}  // namespace homing::write
