#include "write/ddl_targets.hpp"

#include <cstring>

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "parser/parse_type.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
}

namespace homing::write {

namespace {

bool RelationUsesType(Oid relid, Oid type)
{
	for (AttrNumber attnum = 1;
	     SearchSysCacheExists2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum)); ++attnum) {
		const Oid column = get_atttype(relid, attnum);
		if (OidIsValid(column) && TypeUses(column, type))
			return true;
	}
	return false;
}

void Add(List **targets, Oid relid)
{
	HomedRelation found;
	if (!OidIsValid(relid))
		return;
	const char kind = get_rel_relkind(relid);
	if (kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX)
		relid = IndexGetRelation(relid, true);
	if (FindHomed(relid, &found)) {
		auto *target = static_cast<HomedRelation *>(palloc(sizeof(HomedRelation)));
		*target = found;
		*targets = lappend(*targets, target);
		return;
	}
	// A change of a parent goes on to its children.
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		return;
	if (!has_subclass(relid))
		return;
	List *children = find_inheritance_children(relid, NoLock);
	ListCell *cell;
	foreach (cell, children)
		Add(targets, lfirst_oid(cell));
}

void AddNamed(List **targets, const RangeVar *name)
{
	if (name != nullptr)
		Add(targets, RangeVarGetRelid(name, NoLock, true));
}

// `names` qualify a table or, with one more name at the end, something that belongs to one.
void AddNameList(List **targets, List *names, bool member)
{
	List *table = list_copy(names);
	if (member)
		table = list_truncate(table, list_length(names) - 1);
	if (table != NIL)
		AddNamed(targets, makeRangeVarFromNameList(table));
}

void AddRangeVars(List **targets, List *names)
{
	ListCell *cell;
	foreach (cell, names) {
		if (IsA(lfirst(cell), RangeVar))
			AddNamed(targets, lfirst_node(RangeVar, cell));
	}
}

void AddUsersOfType(List **targets, Oid type)
{
	if (!OidIsValid(type))
		return;
	int count;
	const Oid *homed = HomedTables(&count);
	for (int i = 0; i < count; ++i) {
		if (RelationUsesType(homed[i], type))
			Add(targets, homed[i]);
	}
}

Oid CompositeType(const RangeVar *name)
{
	const Oid relid = RangeVarGetRelid(name, NoLock, true);
	return OidIsValid(relid) ? get_rel_type_id(relid) : InvalidOid;
}

void AddTablesInSchema(List **targets, const char *schema)
{
	const Oid namespace_id = get_namespace_oid(schema, true);
	int count;
	const Oid *homed = HomedTables(&count);
	for (int i = 0; i < count; ++i) {
		if (OidIsValid(namespace_id) && get_rel_namespace(homed[i]) == namespace_id)
			Add(targets, homed[i]);
	}
}

// --- statements ----------------------------------------------------------------------------------------

// Objects named by list: of a table, or of something that belongs to one.
void AddObject(List **targets, ObjectType kind, Node *object)
{
	switch (kind) {
	case OBJECT_TABLE:
	case OBJECT_INDEX:
	case OBJECT_FOREIGN_TABLE:
		AddNameList(targets, castNode(List, object), false);
		break;
	case OBJECT_COLUMN:
	case OBJECT_TABCONSTRAINT:
	case OBJECT_TRIGGER:
	case OBJECT_POLICY:
	case OBJECT_RULE:
		AddNameList(targets, castNode(List, object), true);
		break;
	default:
		break;
	}
}

void AddAltered(List **targets, AlterTableStmt *alter)
{
	if (alter->objtype == OBJECT_TYPE) {
		AddUsersOfType(targets, CompositeType(alter->relation));
		return;
	}
	AddNamed(targets, alter->relation);
	ListCell *cell;
	foreach (cell, alter->cmds) {
		auto *command = lfirst_node(AlterTableCmd, cell);
		if (command->def == nullptr)
			continue;
		if (IsA(command->def, PartitionCmd))
			AddNamed(targets, reinterpret_cast<PartitionCmd *>(command->def)->name);
		else if (IsA(command->def, RangeVar))
			AddNamed(targets, reinterpret_cast<RangeVar *>(command->def));
	}
}

void AddRenamed(List **targets, RenameStmt *rename)
{
	switch (rename->renameType) {
	case OBJECT_SCHEMA:
		AddTablesInSchema(targets, rename->subname);
		break;
	case OBJECT_TYPE:
	case OBJECT_DOMAIN:
	case OBJECT_DOMCONSTRAINT:
		AddUsersOfType(targets, TypeNamed(rename->object));
		break;
	case OBJECT_ATTRIBUTE:
		AddUsersOfType(targets, CompositeType(rename->relation));
		break;
	default:
		AddNamed(targets, rename->relation);
	}
}

void AddDropped(List **targets, DropStmt *drop)
{
	ListCell *cell;
	foreach (cell, drop->objects)
		AddObject(targets, drop->removeType, static_cast<Node *>(lfirst(cell)));
}

// --- owners of objects -------------------------------------------------------------------------------------

// The table in column `attnum` of the catalog's row for the object.
Oid TableInCatalog(Oid catalog, Oid oid_index, AttrNumber oid_attnum, AttrNumber attnum,
                   Oid object_id)
{
	Relation relation = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	ScanKeyInit(&key, oid_attnum, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object_id));
	SysScanDesc scan = systable_beginscan(relation, oid_index, true, nullptr, 1, &key);
	HeapTuple tuple = systable_getnext(scan);
	Oid table = InvalidOid;
	if (HeapTupleIsValid(tuple)) {
		bool isnull;
		table = DatumGetObjectId(heap_getattr(tuple, attnum, RelationGetDescr(relation), &isnull));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return table;
}

}  // namespace

Oid TypeNamed(Node *name)
{
	auto *type = IsA(name, TypeName) ? reinterpret_cast<TypeName *>(name)
	                                 : makeTypeNameFromNameList(reinterpret_cast<List *>(name));
	return LookupTypeNameOid(nullptr, type, true);
}

bool TypeUses(Oid type, Oid wanted)
{
	check_stack_depth();
	if (type == wanted)
		return true;
	const Oid base = getBaseType(type);
	if (base != type)
		return TypeUses(base, wanted);
	const Oid element = get_element_type(type);
	if (OidIsValid(element))
		return TypeUses(element, wanted);
	if (type_is_range(type) || type_is_multirange(type)) {
		const Oid range = type_is_range(type) ? type : get_multirange_range(type);
		return range == wanted || TypeUses(get_range_subtype(range), wanted);
	}
	const Oid relid = get_typ_typrelid(type);
	return OidIsValid(relid) && RelationUsesType(relid, wanted);
}

List *DdlTargets(Node *statement)
{
	List *targets = NIL;
	switch (nodeTag(statement)) {
	case T_AlterTableStmt:
		AddAltered(&targets, castNode(AlterTableStmt, statement));
		break;
	case T_RenameStmt:
		AddRenamed(&targets, castNode(RenameStmt, statement));
		break;
	case T_AlterObjectSchemaStmt: {
		auto *alter = castNode(AlterObjectSchemaStmt, statement);
		if (alter->relation != nullptr)
			AddNamed(&targets, alter->relation);
		else if (alter->objectType == OBJECT_TYPE || alter->objectType == OBJECT_DOMAIN)
			AddUsersOfType(&targets, TypeNamed(alter->object));
		break;
	}
	case T_DropStmt:
		AddDropped(&targets, castNode(DropStmt, statement));
		break;
	case T_CreateStmt:
		AddRangeVars(&targets, castNode(CreateStmt, statement)->inhRelations);
		break;
	case T_CreateForeignTableStmt:
		AddRangeVars(&targets,
		             reinterpret_cast<CreateForeignTableStmt *>(statement)->base.inhRelations);
		break;
	case T_IndexStmt:
		AddNamed(&targets, castNode(IndexStmt, statement)->relation);
		break;
	case T_CreateTrigStmt:
		AddNamed(&targets, castNode(CreateTrigStmt, statement)->relation);
		break;
	case T_RuleStmt:
		AddNamed(&targets, castNode(RuleStmt, statement)->relation);
		break;
	case T_CreatePolicyStmt:
		AddNamed(&targets, castNode(CreatePolicyStmt, statement)->table);
		break;
	case T_AlterPolicyStmt:
		AddNamed(&targets, castNode(AlterPolicyStmt, statement)->table);
		break;
	case T_CreateStatsStmt:
		AddRangeVars(&targets, castNode(CreateStatsStmt, statement)->relations);
		break;
	case T_CommentStmt: {
		auto *comment = castNode(CommentStmt, statement);
		AddObject(&targets, comment->objtype, comment->object);
		break;
	}
	case T_SecLabelStmt: {
		auto *label = castNode(SecLabelStmt, statement);
		AddObject(&targets, label->objtype, label->object);
		break;
	}
	case T_AlterEnumStmt:
		AddUsersOfType(&targets, TypeNamed(reinterpret_cast<Node *>(
									 castNode(AlterEnumStmt, statement)->typeName)));
		break;
	case T_AlterDomainStmt:
		AddUsersOfType(&targets, TypeNamed(reinterpret_cast<Node *>(
									 castNode(AlterDomainStmt, statement)->typeName)));
		break;
	case T_AlterTypeStmt:
		AddUsersOfType(&targets, TypeNamed(reinterpret_cast<Node *>(
									 castNode(AlterTypeStmt, statement)->typeName)));
		break;
	default:
		break;
	}
	return targets;
}

bool HomedTableOfObject(Oid class_id, Oid object_id, HomedRelation *found)
{
	Oid table = InvalidOid;
	switch (class_id) {
	case RelationRelationId: {
		const char kind = get_rel_relkind(object_id);
		const bool index = kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX;
		table = index ? IndexGetRelation(object_id, true) : object_id;
		break;
	}
	case ConstraintRelationId:
		table = TableInCatalog(ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid,
		                       Anum_pg_constraint_conrelid, object_id);
		break;
	case TriggerRelationId:
		table = TableInCatalog(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid,
		                       Anum_pg_trigger_tgrelid, object_id);
		break;
	case PolicyRelationId:
		table = TableInCatalog(PolicyRelationId, PolicyOidIndexId, Anum_pg_policy_oid,
		                       Anum_pg_policy_polrelid, object_id);
		break;
	case RewriteRelationId:
		table = TableInCatalog(RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid,
		                       Anum_pg_rewrite_ev_class, object_id);
		break;
	case AttrDefaultRelationId:
		table = TableInCatalog(AttrDefaultRelationId, AttrDefaultOidIndexId, Anum_pg_attrdef_oid,
		                       Anum_pg_attrdef_adrelid, object_id);
		break;
	default:
		break;
	}
	return OidIsValid(table) && FindHomed(table, found);
}

}  // namespace homing::write
