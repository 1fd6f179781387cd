#include "core/ids.hpp"
#include "write/copy.hpp"

#include "write/homed_relation.hpp"
#include "write/serve_here.hpp"

extern "C" {
#include "catalog/namespace.h"
}

namespace homing::write {

void PrepareCopy(const CopyStmt *copy, MemoryContext context)
{
	if (!copy->is_from || copy->relation == nullptr)
		return;
	const Oid relid = RangeVarGetRelid(copy->relation, NoLock, true);
	HomedRelation table;
	if (OidIsValid(relid) && FindHomed(relid, &table))
		ServeWholeTable(&table, "COPY into", "The homes of the rows are not known before they are read.", context);
}

}  // namespace homing::write
