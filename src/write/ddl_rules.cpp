#include "write/ddl_rules.hpp"

#include <cstring>

#include "write/ddl_targets.hpp"
#include "write/guard.hpp"

extern "C" {
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "nodes/value.h"
#include "optimizer/optimizer.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
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

[[noreturn]] void RefuseChild(const HomedRelation *target)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("homed table \"%s\" cannot have inheritance children or foreign partitions",
	                get_rel_name(target->relid)),
	         errdetail("Their rows would not pass through their homes."),
	         errhint("Use a partitioned table.")));
	pg_unreachable();
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
	case AT_AddInherit:
		RefuseChild(target);
	case AT_DetachPartition:
		if (reinterpret_cast<PartitionCmd *>(command->def)->concurrent)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			                errmsg("cannot detach a partition of homed table \"%s\" concurrently",
			                       get_rel_name(target->relid)),
			                errdetail("It cannot be done in all regions at once."),
			                errhint("Leave out CONCURRENTLY.")));
		break;
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

// --- values that differ -----------------------------------------------------------------------------------

bool IsSerial(const TypeName *type)
{
	if (list_length(type->names) != 1)
		return false;
	for (const char *name : {"smallserial", "serial2", "serial", "serial4", "bigserial", "serial8"}) {
		if (std::strcmp(strVal(linitial(type->names)), name) == 0)
			return true;
	}
	return false;
}

// Whether the column's value in a row that exists depends on where and when it is computed.
bool HasOwnValues(const ColumnDef *column)
{
	if (column->typeName != nullptr && IsSerial(column->typeName))
		return true;
	ListCell *cell;
	foreach (cell, column->constraints) {
		auto *constraint = lfirst_node(Constraint, cell);
		if (constraint->contype == CONSTR_IDENTITY)
			return true;
		if (constraint->contype != CONSTR_DEFAULT || constraint->raw_expr == nullptr)
			continue;
		ParseState *pstate = make_parsestate(nullptr);
		Node *expr = transformExpr(pstate, static_cast<Node *>(copyObjectImpl(constraint->raw_expr)),
		                           EXPR_KIND_COLUMN_DEFAULT);
		if (contain_mutable_functions(
				reinterpret_cast<Node *>(expression_planner(reinterpret_cast<Expr *>(expr)))))
			return true;
	}
	return false;
}

bool HasRows(Oid relid)
{
	bool any = false;
	List *parts = find_all_inheritors(relid, NoLock, nullptr);
	ListCell *cell;
	foreach (cell, parts) {
		Relation part = table_open(lfirst_oid(cell), AccessShareLock);
		if (part->rd_rel->relkind == RELKIND_RELATION && !any) {
			Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
			TableScanDesc scan = table_beginscan(part, snapshot, 0, nullptr);
			TupleTableSlot *slot = table_slot_create(part, nullptr);
			any = table_scan_getnextslot(scan, ForwardScanDirection, slot);
			ExecDropSingleTupleTableSlot(slot);
			table_endscan(scan);
			UnregisterSnapshot(snapshot);
		}
		table_close(part, AccessShareLock);
	}
	return any;
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
	case T_CreateStmt:
		if (castNode(CreateStmt, statement)->partbound == nullptr)
			RefuseChild(target);
		break;
	case T_CreateForeignTableStmt:
		RefuseChild(target);
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

void CheckSameEverywhere(Node *statement, List *relids)
{
	if (!IsA(statement, AlterTableStmt))
		return;
	ListCell *cell;
	foreach (cell, castNode(AlterTableStmt, statement)->cmds) {
		auto *command = lfirst_node(AlterTableCmd, cell);
		if (command->subtype != AT_AddColumn || !HasOwnValues(castNode(ColumnDef, command->def)))
			continue;
		ListCell *table;
		foreach (table, relids) {
			if (HasRows(lfirst_oid(table)))
				ereport(
					ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				     errmsg("cannot add column \"%s\" to homed table \"%s\" with a default that is not constant",
				            castNode(ColumnDef, command->def)->colname,
				            get_rel_name(lfirst_oid(table))),
				     errdetail("Its value in rows that exist would be another one in every region."),
				     errhint("Add the column without a default, set the default with ALTER COLUMN, and UPDATE the "
				             "rows.")));
		}
	}
}

}  // namespace homing::write
