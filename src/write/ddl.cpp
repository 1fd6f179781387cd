#include "core/ids.hpp"
#include "write/ddl.hpp"

#include <cstring>

#include "pg/settings.hpp"
#include "write/ddl_rules.hpp"
#include "write/ddl_targets.hpp"
#include "write/homed_relation.hpp"
#include "write/own_sql.hpp"
#include "write/sequences.hpp"

extern "C" {
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/value.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
}

namespace homing::write {

namespace {

object_access_hook_type next_object_access = nullptr;

// DDL that was let through is running in this session: what it drops, it may drop.
int permitted_depth = 0;

// --- refusals ----------------------------------------------------------------------------------------------

bool MayChangeHere(const HomedRelation *table)
{
	return table->only_region || pg::settings.local_ddl || pg::settings.own_ddl;
}

[[noreturn]] void RefuseDdl(const char *what, const HomedRelation *table)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	     errmsg("cannot execute %s on homed table \"%s\" in one region", what,
	            get_rel_name(table->relid)),
	     errdetail("Every region must make the same change, or replication between them stops."),
	     errhint(
			 "While nothing writes to the table, run it in every region with homing.local_ddl = on.")));
	pg_unreachable();
}

bool IsDropOfHoming(Node *statement)
{
	if (!IsA(statement, DropStmt) || castNode(DropStmt, statement)->removeType != OBJECT_EXTENSION)
		return false;
	ListCell *cell;
	foreach (cell, castNode(DropStmt, statement)->objects) {
		if (std::strcmp(strVal(lfirst(cell)), "pg_homing") == 0)
			return true;
	}
	return false;
}

// The net for what parse trees do not show: DROP … CASCADE, DROP OWNED, dropping a schema or a type.
void OnObjectAccess(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *argument)
{
	if (next_object_access != nullptr)
		next_object_access(access, class_id, object_id, sub_id, argument);
	if (access == OAT_FUNCTION_EXECUTE && class_id == ProcedureRelationId)
		NoteFunction(object_id);
	if (access != OAT_DROP || permitted_depth > 0 || !AnyHomedTable())
		return;
	if ((static_cast<ObjectAccessDrop *>(argument)->dropflags & PERFORM_DELETION_INTERNAL) != 0)
		return;
	HomedRelation table;
	if (HomedTableOfObject(class_id, object_id, &table) && !MayChangeHere(&table))
		RefuseDdl("DROP", &table);
}

// --- after the statement ----------------------------------------------------------------------------------

// A partition that came gets the guard, one that left loses it.
void FollowPartitions(Node *statement)
{
	if (IsA(statement, CreateStmt) && castNode(CreateStmt, statement)->partbound != nullptr) {
		const Oid relid = RangeVarGetRelid(castNode(CreateStmt, statement)->relation, NoLock, true);
		HomedRelation table;
		if (OidIsValid(relid) && FindHomed(relid, &table))
			RunOwnSql("SELECT homing._install_guard($1)", relid);
		return;
	}
	if (!IsA(statement, AlterTableStmt))
		return;
	ListCell *cell;
	foreach (cell, castNode(AlterTableStmt, statement)->cmds) {
		auto *command = lfirst_node(AlterTableCmd, cell);
		if (command->subtype != AT_AttachPartition && command->subtype != AT_DetachPartition)
			continue;
		const Oid relid =
			RangeVarGetRelid(reinterpret_cast<PartitionCmd *>(command->def)->name, NoLock, true);
		if (!OidIsValid(relid) || (get_rel_relkind(relid) != RELKIND_RELATION &&
		                           get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE))
			continue;
		HomedRelation table;
		RunOwnSql(FindHomed(relid, &table) ? "SELECT homing._install_guard($1)"
		                                   : "SELECT homing._remove_guard($1)",
		          relid);
	}
}

void ForgetDropped(const HomedRelation *table)
{
	if (get_rel_name(table->homed) == nullptr)
		RunOwnSql("DELETE FROM homing.homed_table WHERE relid OPERATOR(pg_catalog.=) $1",
		          table->homed);
}

void RunPermitted(RunStatement run, void *argument)
{
	++permitted_depth;
	PG_TRY();
	{
		run(argument);
	}
	PG_FINALLY();
	{
		--permitted_depth;
	}
	PG_END_TRY();
}

}  // namespace

void RegisterDdl()
{
	next_object_access = object_access_hook;
	object_access_hook = OnObjectAccess;
	RegisterSequences();
}

bool IsDdl(Node *statement)
{
	switch (nodeTag(statement)) {
	case T_AlterDomainStmt:
	case T_AlterEnumStmt:
	case T_AlterObjectSchemaStmt:
	case T_AlterPolicyStmt:
	case T_AlterTableStmt:
	case T_AlterTypeStmt:
	case T_CommentStmt:
	case T_CreateForeignTableStmt:
	case T_CreatePolicyStmt:
	case T_CreateStatsStmt:
	case T_CreateStmt:
	case T_CreateTrigStmt:
	case T_DropStmt:
	case T_IndexStmt:
	case T_RenameStmt:
	case T_RuleStmt:
	case T_SecLabelStmt:
		return true;
	default:
		return false;
	}
}

void ExecuteDdl(Node *statement, RunStatement run, void *argument)
{
	if (IsDropOfHoming(statement)) {
		RunPermitted(run, argument);
		return;
	}
	List *targets = DdlTargets(statement);
	if (targets == NIL || pg::settings.own_ddl) {
		run(argument);
		return;
	}
	ListCell *cell;
	foreach (cell, targets) {
		auto *target = static_cast<HomedRelation *>(lfirst(cell));
		CheckNeverAllowed(statement, target);
		if (!MayChangeHere(target))
			RefuseDdl(CreateCommandName(statement), target);
	}
	// The names mean what they mean before the statement; core may change the tree.
	Node *original = static_cast<Node *>(copyObjectImpl(statement));
	RunPermitted(run, argument);
	CommandCounterIncrement();
	FollowPartitions(original);
	foreach (cell, targets)
		ForgetDropped(static_cast<HomedRelation *>(lfirst(cell)));
	// A column may have come with a sequence, or the numbers of one begun anew.
	if (IsA(original, AlterTableStmt))
		FollowAlteredSequence();
}

}  // namespace homing::write
