#include "core/ids.hpp"
#include "write/ddl.hpp"

#include <cstring>

#include "pg/settings.hpp"
#include "write/ddl_concurrently.hpp"
#include "write/ddl_rules.hpp"
#include "write/ddl_targets.hpp"
#include "write/everywhere.hpp"
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
// The extension itself is being dropped, and its tables may not be read any more.
bool dropping_homing = false;
// A homed table was dropped, and is still among ours.
bool table_dropped = false;

// --- refusals ----------------------------------------------------------------------------------------------

bool MayChangeHere(const HomedRelation *table)
{
	return table->only_region || pg::settings.local_ddl || pg::settings.own_ddl;
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
[[gnu::hot]] void OnObjectAccess(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
                                 void *argument)
{
	if (next_object_access != nullptr)
		next_object_access(access, class_id, object_id, sub_id, argument);
	if (access == OAT_FUNCTION_EXECUTE && class_id == ProcedureRelationId)
		NoteFunction(object_id);
	if (access != OAT_DROP || dropping_homing || !AnyHomedTable())
		return;
	if ((static_cast<ObjectAccessDrop *>(argument)->dropflags & PERFORM_DELETION_INTERNAL) != 0)
		return;
	HomedRelation table;
	if (!HomedTableOfObject(class_id, object_id, &table))
		return;
	if (permitted_depth == 0 && !MayChangeHere(&table))
		RefuseDdl("DROP", table.relid);
	if (class_id == RelationRelationId && sub_id == 0 && table.homed == object_id)
		table_dropped = true;
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

void ForgetDropped()
{
	if (!table_dropped)
		return;
	table_dropped = false;
	CommandCounterIncrement();
	RunOwnSql("DELETE FROM homing.homed_table h "
	          "WHERE $1 IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) "
	          "h.relid)",
	          0);
}

// --- the statement --------------------------------------------------------------------------------------------

bool IsConcurrent(Node *statement)
{
	return (IsA(statement, IndexStmt) && castNode(IndexStmt, statement)->concurrent) ||
	       (IsA(statement, DropStmt) && castNode(DropStmt, statement)->concurrent);
}

// Runs core's part, and what follows from it here.
void RunHere(const DdlStatement *statement)
{
	// Core may change the tree; CONCURRENTLY commits meanwhile.
	Node *original = static_cast<Node *>(copyObjectImpl(statement->tree));
	RunPermitted(statement->run, statement->argument);
	CommandCounterIncrement();
	FollowPartitions(original);
	ForgetDropped();
	// A column may have come with a sequence, or the numbers of one begun anew.
	if (IsA(original, AlterTableStmt))
		FollowAlteredSequence();
}

bool AllMayChangeHere(List *targets)
{
	ListCell *cell;
	foreach (cell, targets) {
		if (!MayChangeHere(static_cast<HomedRelation *>(lfirst(cell))))
			return false;
	}
	return true;
}

List *Relids(List *targets)
{
	List *relids = NIL;
	ListCell *cell;
	foreach (cell, targets)
		relids = list_append_unique_oid(relids, static_cast<HomedRelation *>(lfirst(cell))->relid);
	return relids;
}

}  // namespace

void RegisterDdl()
{
	next_object_access = object_access_hook;
	object_access_hook = OnObjectAccess;
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
	case T_DropOwnedStmt:
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

void RunPermitted(RunStatement run, void *argument)
{
	++permitted_depth;
	ErrorData *error = pg::CallGuarded(run, argument);
	--permitted_depth;
	if (error != nullptr)
		ReThrowError(error);
}

void RefuseDdl(const char *what, Oid relid)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	     errmsg("cannot execute %s on homed table \"%s\" in one region", what, get_rel_name(relid)),
	     errdetail("Every region must make the same change, or replication between them stops."),
	     errhint(
			 "Use a statement that names the table, which runs in every region, or homing.run_everywhere.")));
	pg_unreachable();
}

void ExecuteDdl(const DdlStatement *statement)
{
	if (IsDropOfHoming(statement->tree)) {
		dropping_homing = true;
		ErrorData *error = pg::CallGuarded(statement->run, statement->argument);
		dropping_homing = false;
		if (error != nullptr)
			ReThrowError(error);
		return;
	}
	table_dropped = false;
	List *targets =
		permitted_depth == 0 && !pg::settings.own_ddl ? DdlTargets(statement->tree) : NIL;
	if (targets == NIL) {
		statement->run(statement->argument);
		ForgetDropped();
		return;
	}
	ListCell *cell;
	foreach (cell, targets)
		CheckNeverAllowed(statement->tree, static_cast<HomedRelation *>(lfirst(cell)));
	if (!AllMayChangeHere(targets)) {
		if (!statement->top_level)
			RefuseDdl(CreateCommandName(statement->tree), linitial_oid(Relids(targets)));
		if (IsConcurrent(statement->tree)) {
			PreventInTransactionBlock(statement->alone, CreateCommandName(statement->tree));
			ExecuteConcurrently(statement->text);
		} else {
			ExecuteElsewhere(statement->text, Relids(targets), false);
			CheckSameEverywhere(statement->tree, Relids(targets));
		}
	}
	RunHere(statement);
}

}  // namespace homing::write
