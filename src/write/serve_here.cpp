#include "write/serve_here.hpp"

#include "write/guard.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "utils/lsyscache.h"
}

namespace homing::write {

bool FindReady(Oid relid, HomedRelation *found)
{
	if (!FindHomed(relid, found))
		return false;
	if (found->ready)
		return true;
	WrittenTarget target{};
	target.relid = relid;
	target.homed = found->homed;
	target.known = true;
	const WrittenKeys keys{&target, 1};
	(void) pg::PgEntry([&] { return Decide(keys, true); });
	return FindHomed(relid, found);
}

void ServeWholeTable(const HomedRelation *table, const char *what, const char *detail,
                     MemoryContext context)
{
	if (!table->all_here && !table->fenced)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("cannot %s homed table \"%s\" whose rows live in several regions", what,
		            get_rel_name(table->relid)),
		     errdetail("%s", detail),
		     errhint(
				 "Use INSERT or DELETE statements that name the key, or run it where all homes are.")));
	WrittenTarget target{};
	target.relid = table->relid;
	target.homed = table->homed;
	target.unproved = detail;
	target.known = true;
	const WrittenKeys keys{&target, 1};
	(void) pg::PgEntry([&] { return Decide(keys, true); });
	CheckMayWriteHere();
	ApproveWrites(table->relid, context);
}

}  // namespace homing::write
