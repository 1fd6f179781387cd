#include "write/ddl_rules.hpp"

#include <cstring>

#include "write/ddl_targets.hpp"

extern "C" {
#include "nodes/value.h"
#include "utils/lsyscache.h"
}

namespace homing::write {

namespace {

[[noreturn]] void RefuseKeyChange(const HomedRelation *target, const char *key)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("cannot change or drop column \"%s\" of homed table \"%s\"", key,
	                get_rel_name(target->relid)),
	         errdetail("It is the key that decides where a row is at home."),
	         errhint("Take the table out of the cluster first: SELECT homing.unhome_table('%s').",
	                 get_rel_name(target->homed))));
	pg_unreachable();
}

void CheckNotGuard(const char *trigger, const HomedRelation *target)
{
	if (trigger != nullptr && std::strcmp(trigger, kGuardTrigger) == 0)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot change trigger \"%s\" of homed table \"%s\"", kGuardTrigger,
		                get_rel_name(target->relid)),
		         errdetail("It keeps writes from passing by the rows' homes."),
		         errhint("Take the table out of the cluster first: SELECT homing.unhome_table('%s').",
		                 get_rel_name(target->homed))));
}

void CheckCommand(AlterTableCmd *command, const HomedRelation *target)
{
	switch (command->subtype) {
	case AT_DropColumn:
	case AT_AlterColumnType: {
		const char *key = KeyColumn(target);
		if (std::strcmp(command->name, key) == 0)
			RefuseKeyChange(target, key);
		break;
	}
	case AT_SetUnLogged:
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot make homed table \"%s\" unlogged", get_rel_name(target->relid)),
		         errdetail("Changes of unlogged tables are not replicated.")));
		break;
	case AT_EnableTrig:
	case AT_EnableAlwaysTrig:
	case AT_EnableReplicaTrig:
	case AT_DisableTrig:
		CheckNotGuard(command->name, target);
		break;
	case AT_EnableTrigAll:
	case AT_DisableTrigAll:
	case AT_EnableTrigUser:
	case AT_DisableTrigUser:
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("cannot enable or disable all triggers of homed table \"%s\" at once",
		                       get_rel_name(target->relid)),
		                errdetail("The guard of the table is one of them."),
		                errhint("Name the triggers one by one.")));
		break;
	default:
		break;
	}
}

void CheckEnumRename(AlterEnumStmt *alter, const HomedRelation *target)
{
	const Oid type = TypeNamed(reinterpret_cast<Node *>(alter->typeName));
	if (alter->oldVal != nullptr && TypeUses(get_atttype(target->homed, target->key_attnum), type))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot rename label \"%s\" of an enum that is the key of homed table \"%s\"",
		                alter->oldVal, get_rel_name(target->homed)),
		         errdetail("The label decides where a row is at home.")));
}

}  // namespace

void CheckNeverAllowed(Node *statement, const HomedRelation *target)
{
	ListCell *cell;
	switch (nodeTag(statement)) {
	case T_AlterTableStmt:
		foreach (cell, castNode(AlterTableStmt, statement)->cmds)
			CheckCommand(lfirst_node(AlterTableCmd, cell), target);
		break;
	case T_RenameStmt: {
		auto *rename = castNode(RenameStmt, statement);
		if (rename->renameType == OBJECT_TRIGGER) {
			CheckNotGuard(rename->subname, target);
			CheckNotGuard(rename->newname, target);
		}
		break;
	}
	case T_CreateTrigStmt:
		CheckNotGuard(castNode(CreateTrigStmt, statement)->trigname, target);
		break;
	case T_DropStmt: {
		auto *drop = castNode(DropStmt, statement);
		if (drop->removeType == OBJECT_TRIGGER)
			CheckNotGuard(strVal(llast(linitial_node(List, drop->objects))), target);
		break;
	}
	case T_AlterEnumStmt:
		CheckEnumRename(castNode(AlterEnumStmt, statement), target);
		break;
	default:
		break;
	}
}

}  // namespace homing::write
