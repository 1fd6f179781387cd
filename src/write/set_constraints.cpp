#include "write/set_constraints.hpp"

#include <utility>
#include <vector>

#include "write/transaction.hpp"

#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
}

namespace homing::write {

namespace {

struct Setting {
	int level;  // nesting level of the subtransaction that it belongs to
	std::string sql;
};

std::vector<Setting> *settings = nullptr;

void OnTransactionEnd(XactEvent event, void *)
{
	if (settings != nullptr &&
	    (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
		settings->clear();
}

void OnSubTransactionEnd(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	if (settings == nullptr)
		return;
	const int level = GetCurrentTransactionNestLevel();
	if (event == SUBXACT_EVENT_ABORT_SUB) {
		while (!settings->empty() && settings->back().level >= level)
			settings->pop_back();
	} else if (event == SUBXACT_EVENT_COMMIT_SUB) {
		for (Setting &setting : *settings) {
			if (setting.level >= level)
				setting.level = level - 1;
		}
	}
}

}  // namespace

void FollowSetConstraints(const char *sql)
{
	pg::AtTransactionEnd<OnTransactionEnd>();
	pg::AtSubTransactionEnd<OnSubTransactionEnd>();
	const int level = GetCurrentTransactionNestLevel();
	pg::PgEntry([&] {
		if (settings == nullptr)
			settings = new std::vector<Setting>;
		settings->push_back({level, sql});
		for (core::RegionId region : RegionsInTransaction()) {
			PostRead(region, {sql, {}, false});
			(void) Await(region);
		}
	});
}

std::size_t SetConstraintsCount()
{
	return settings == nullptr ? 0 : settings->size();
}

const std::string &SetConstraintsText(std::size_t index)
{
	return (*settings)[index].sql;
}

}  // namespace homing::write
