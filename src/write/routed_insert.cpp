#include "core/ids.hpp"
#include "write/routed_insert.hpp"

#include "pg/catalog.hpp"
#include "pg/compat.hpp"
#include "pg/exact_text.hpp"
#include "pg/home_lock.hpp"
#include "pg/key.hpp"
#include "pg/key_home.hpp"
#include "write/claims.hpp"
#include "write/execute_here.hpp"
#include "write/forward.hpp"
#include "write/references.hpp"
#include "write/remote_text.hpp"
#include "write/statement_params.hpp"
#include "write/routing.hpp"
#include "write/transaction.hpp"

extern "C" {
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
}

namespace homing::write {

namespace {

constexpr int kBatchRows = 1000;
constexpr Size kBatchBytes = 1024 * 1024;

// One column that is computed here and sent.
struct SentColumn {
	AttrNumber attnum;  // in the table
	Oid type;
	int32 typmod;
	Oid collation;
	Oid output;
};

struct Batch {
	core::RegionId region;
	MemoryContext context;
	ArrayBuildState **columns;  // of text
	int rows;
	Size bytes;
	bool posted;       // an answer is outstanding
	ArrayType *homes;  // of the region
};

struct RoutedInsert {
	DestReceiver receiver;  // first: the executor knows us as this
	EState *estate;
	TupleDesc returning;
	Tuplestorestate *rows;
	Query *batch_query;  // inserts one batch: the columns are parameters from first_param on, text[]
	int first_param;     // behind the columns follows the region's homes, int4[]
	SentColumn *columns;
	int column_count;
	int key_column;  // index into columns; -1: no key is given
	Oid key_type;    // base type of the key's value
	core::KeyspaceId keyspace;
	bool first_write;
	core::RegionId here;
	core::RegionId *owners;  // by home, as of the start
	int home_count;
	Batch *batches;
	int batch_count;
};

// --- the two queries -----------------------------------------------------------------------------------

bool IsKeyColumn(const TargetEntry *entry, AttrNumber key)
{
	return entry->resno == key && !entry->resjunk;
}

// What is computed here: all but defaults, and the key even if it is one.
List *SentEntries(Query *insert, AttrNumber key)
{
	List *sent = NIL;
	ListCell *cell;
	foreach (cell, insert->targetList) {
		auto *entry = lfirst_node(TargetEntry, cell);
		if (!IsDefault(insert, entry) || IsKeyColumn(entry, key))
			sent = lappend(sent, entry);
	}
	return sent;
}

Query *SourceQuery(Query *insert, List *sent)
{
	auto *select = static_cast<Query *>(copyObjectImpl(insert));
	select->commandType = CMD_SELECT;
	// The table is not read. Whoever may not write it has been refused already.
	auto *nothing = makeNode(RangeTblEntry);
	nothing->rtekind = RTE_RESULT;
	nothing->eref = makeAlias("*RESULT*", NIL);
	lfirst(list_nth_cell(select->rtable, select->resultRelation - 1)) = nothing;
	if (select->onConflict != nullptr && select->onConflict->exclRelIndex > 0)
		lfirst(list_nth_cell(select->rtable, select->onConflict->exclRelIndex - 1)) = nothing;
	select->resultRelation = 0;
	select->onConflict = nullptr;
	select->returningList = NIL;
	select->withCheckOptions = NIL;
	select->override = OVERRIDING_NOT_SET;
	select->targetList = NIL;
	ListCell *cell;
	foreach (cell, sent) {
		auto *entry = static_cast<TargetEntry *>(copyObjectImpl(lfirst(cell)));
		entry->resno = list_length(select->targetList) + 1;
		select->targetList = lappend(select->targetList, entry);
	}
	return select;
}

// SELECT u.c1::type1, … FROM ROWS FROM (unnest($first), …) AS u (c1, …), with the key inside _routed: the
// home checks that it is one of its own.
Query *BatchSource(const RoutedInsert *insert)
{
	StringInfoData sql, from, names;
	initStringInfo(&sql);
	initStringInfo(&from);
	initStringInfo(&names);
	const int last = insert->first_param + insert->column_count;
	auto *types = static_cast<Oid *>(palloc0(sizeof(Oid) * last));
	for (int i = 0; i < insert->column_count; ++i) {
		const bits16 flags = FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_TYPEMOD_GIVEN;
		const char *separator = i > 0 ? ", " : "";
		const char *column = psprintf("(u.c%d)::%s", i + 1,
		                              format_type_extended(insert->columns[i].type, -1, flags));
		if (i == insert->key_column)
			column =
				insert->first_write
					? psprintf("homing._routed(%d, $%d, %s, $%d)", insert->keyspace.value, last,
			                   column, insert->first_param + i)
					: psprintf("homing._routed(%d, $%d, %s)", insert->keyspace.value, last, column);
		appendStringInfo(&sql, "%s%s", separator, column);
		appendStringInfo(&from, "%spg_catalog.unnest($%d)", separator, insert->first_param + i);
		appendStringInfo(&names, "%sc%d", separator, i + 1);
		types[insert->first_param + i - 1] = TEXTARRAYOID;
	}
	types[last - 1] = INT4ARRAYOID;
	char *text =
		psprintf("SELECT %s FROM ROWS FROM (%s) AS u (%s)", sql.data, from.data, names.data);
	List *parsed = raw_parser(text, RAW_PARSE_DEFAULT);
	List *queries = pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, parsed), text, types,
	                                                   last, nullptr);
	return linitial_node(Query, queries);
}

Query *BatchQuery(Query *query, List *sent, const RoutedInsert *insert)
{
	auto *batch = static_cast<Query *>(copyObjectImpl(query));
	const int source = linitial_node(RangeTblRef, batch->jointree->fromlist)->rtindex;
	RangeTblEntry *rows = rt_fetch(source, batch->rtable);
	rows->rtekind = RTE_SUBQUERY;
	rows->values_lists = rows->coltypes = rows->coltypmods = rows->colcollations = NIL;
	rows->subquery = BatchSource(insert);
	if (!batch->hasSubLinks)
		batch->cteList = NIL;
	List *targets = NIL;
	ListCell *cell;
	foreach (cell, query->targetList) {
		auto *entry = static_cast<TargetEntry *>(copyObjectImpl(lfirst(cell)));
		ListCell *sent_cell;
		int column = 0;
		foreach (sent_cell, sent) {
			const SentColumn *values = &insert->columns[column++];
			if (lfirst_node(TargetEntry, sent_cell)->resno == entry->resno)
				entry->expr = reinterpret_cast<Expr *>(
					makeVar(source, column, values->type, values->typmod, values->collation, 0));
		}
		targets = lappend(targets, entry);
	}
	batch->targetList = targets;
	return batch;
}

// --- batches ---------------------------------------------------------------------------------------------

// The statement's own parameters and the batch's columns.
ParamListInfo BatchParams(const RoutedInsert *insert, Batch *batch)
{
	List *values = NIL;
	for (int i = 0; i < insert->column_count; ++i) {
		auto *param = static_cast<ParamExternData *>(palloc0(sizeof(ParamExternData)));
		param->value = makeArrayResult(batch->columns[i], CurrentMemoryContext);
		param->ptype = TEXTARRAYOID;
		param->pflags = PARAM_FLAG_CONST;
		values = lappend(values, param);
	}
	auto *homes = static_cast<ParamExternData *>(palloc0(sizeof(ParamExternData)));
	homes->value = PointerGetDatum(batch->homes);
	homes->ptype = INT4ARRAYOID;
	homes->pflags = PARAM_FLAG_CONST;
	return AppendParams(insert->estate->es_param_list_info, lappend(values, homes),
	                    insert->first_param);
}

void AwaitBatch(RoutedInsert *insert, Batch *batch)
{
	if (!batch->posted)
		return;
	batch->posted = false;
	const remote::Result result = Answer(batch->region);
	TakeAnswer(result, insert->estate, insert->returning, insert->rows);
}

void Flush(RoutedInsert *insert, Batch *batch)
{
	if (batch->rows == 0)
		return;
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	ParamListInfo params = pg::PgCall([&] { return BatchParams(insert, batch); });
	if (batch->region == insert->here) {
		pg::PgCall([&] {
			Tuplestorestate *rows = insert->returning->natts > 0 ? insert->rows : nullptr;
			insert->estate->es_processed +=
				WriteHere(static_cast<Query *>(copyObjectImpl(insert->batch_query)), insert->estate,
			              params, rows);
		});
	} else {
		AwaitBatch(insert, batch);
		const Outgoing outgoing =
			pg::PgCall([&] { return Prepare(DeparseForRegion(insert->batch_query), params); });
		Post(batch->region, ToRemote(outgoing));
		batch->posted = true;
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->context);
	batch->rows = 0;
	batch->bytes = 0;
}

ArrayType *HomesOf(const RoutedInsert *insert, core::RegionId region)
{
	auto *homes = static_cast<Datum *>(palloc(sizeof(Datum) * insert->home_count));
	int count = 0;
	for (int home = 0; home < insert->home_count; ++home) {
		if (insert->owners[home] == region)
			homes[count++] = Int32GetDatum(home);
	}
	return construct_array(homes, count, INT4OID, sizeof(int32), true, TYPALIGN_INT);
}

Batch *BatchFor(RoutedInsert *insert, core::RegionId region)
{
	for (int i = 0; i < insert->batch_count; ++i) {
		if (insert->batches[i].region == region)
			return &insert->batches[i];
	}
	Batch *batch = &insert->batches[insert->batch_count++];
	batch->region = region;
	pg::PgCall([&] {
		MemoryContext old = MemoryContextSwitchTo(insert->estate->es_query_cxt);
		batch->context =
			AllocSetContextCreate(CurrentMemoryContext, "homing batch", ALLOCSET_DEFAULT_SIZES);
		batch->homes = HomesOf(insert, region);
		MemoryContextSwitchTo(old);
	});
	return batch;
}

void AddRow(RoutedInsert *insert, Batch *batch, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	if (batch->rows == 0)
		batch->columns = static_cast<ArrayBuildState **>(
			palloc0(sizeof(ArrayBuildState *) * insert->column_count));
	for (int i = 0; i < insert->column_count; ++i) {
		Datum text = 0;
		if (!slot->tts_isnull[i]) {
			char *value = pg::ExactText(insert->columns[i].output, slot->tts_values[i]);
			text = CStringGetTextDatum(value);
			batch->bytes += VARSIZE_ANY(DatumGetPointer(text));
			pfree(value);
		}
		batch->columns[i] =
			accumArrayResult(batch->columns[i], text, slot->tts_isnull[i], TEXTOID, batch->context);
		if (!slot->tts_isnull[i])
			pfree(DatumGetPointer(text));
	}
	++batch->rows;
	MemoryContextSwitchTo(old);
}

core::RegionId RegionOf(RoutedInsert *insert, TupleTableSlot *slot)
{
	const int key = insert->key_column;
	if (key < 0 || slot->tts_isnull[key])
		return insert->here;  // whose NOT NULL constraint refuses it
	uint8 buffer[8];
	const pg::KeyBytes bytes = pg::PgCall(
		[&] { return pg::CanonicalKey(slot->tts_values[key], insert->key_type, buffer); });
	const core::Keyspace *keyspace = pg::CurrentCatalog()->map.FindKeyspace(insert->keyspace);
	if (keyspace == nullptr)
		throw remote::Error("40001", "homed table changed while the statement was running");
	return insert->owners[pg::HomeOfKey(*keyspace, bytes.data, bytes.size).value];
}

// --- the receiver of the computed rows ---------------------------------------------------------------------

void StartReceiver(DestReceiver *, int, TupleDesc) {}

bool ReceiveRow(TupleTableSlot *slot, DestReceiver *self)
{
	auto *insert = reinterpret_cast<RoutedInsert *>(self);
	slot_getallattrs(slot);
	pg::PgEntry([&] {
		Batch *batch = BatchFor(insert, RegionOf(insert, slot));
		pg::PgCall([&] { AddRow(insert, batch, slot); });
		if (batch->rows >= kBatchRows || batch->bytes >= kBatchBytes)
			Flush(insert, batch);
	});
	return true;
}

void EndReceiver(DestReceiver *) {}

// --- set-up ----------------------------------------------------------------------------------------------

void PrepareColumns(RoutedInsert *insert, List *sent, AttrNumber key)
{
	insert->column_count = list_length(sent);
	insert->columns =
		static_cast<SentColumn *>(palloc0(sizeof(SentColumn) * (insert->column_count + 1)));
	insert->key_column = -1;
	ListCell *cell;
	int i = 0;
	foreach (cell, sent) {
		auto *entry = lfirst_node(TargetEntry, cell);
		auto *expr = reinterpret_cast<Node *>(entry->expr);
		bool is_varlena;
		SentColumn *column = &insert->columns[i];
		column->attnum = entry->resno;
		column->type = exprType(expr);
		column->typmod = exprTypmod(expr);
		column->collation = exprCollation(expr);
		getTypeOutputInfo(column->type, &column->output, &is_varlena);
		if (IsKeyColumn(entry, key)) {
			insert->key_column = i;
			insert->key_type = getBaseType(column->type);
		}
		++i;
	}
}

// The lock on the keyspace comes before the look at the owners: no home can be handed over afterwards.
void FixOwners(RoutedInsert *insert, Oid homed)
{
	for (bool current = false; !current;) {
		const uint64 seen = pg::CurrentVersion().catalog;
		const pg::Catalog *catalog = pg::CurrentCatalog();
		auto found = catalog->tables.find(homed);
		if (found == catalog->tables.end())
			throw remote::Error("40001", "homed table changed while the statement was running");
		insert->keyspace = found->second.keyspace;
		insert->here = catalog->map.here();
		pg::PgCall([&] { pg::LockKeyspaceForWrite(insert->keyspace); });
		AwaitArrivals(insert->keyspace);
		current = pg::CurrentVersion().catalog == seen;
	}
	const pg::Catalog *catalog = pg::CurrentCatalog();
	insert->first_write = catalog->map.FindKeyspace(insert->keyspace)->first_write;
	const std::size_t homes = catalog->map.FindKeyspace(insert->keyspace)->recorded_owners.size();
	const std::size_t regions = catalog->map.regions().size();
	insert->home_count = static_cast<int>(homes);
	insert->owners = static_cast<core::RegionId *>(
		pg::PgCall([&] { return palloc0(sizeof(core::RegionId) * homes); }));
	insert->batches =
		static_cast<Batch *>(pg::PgCall([&] { return palloc0(sizeof(Batch) * (regions + 1)); }));
	for (std::size_t home = 0; home < homes; ++home) {
		const auto owner =
			catalog->map.Owner(insert->keyspace, core::HomeId(static_cast<std::int32_t>(home)));
		if (!owner)
			throw remote::Error(
				"08001",
				"a home of the rows that the statement writes is lost, and so are all its heirs");
		insert->owners[home] = *owner;
	}
	if (insert->first_write)
		PrepareManyClaims();
}

AttrNumber KeyOf(Query *query, Oid homed)
{
	const pg::Catalog *catalog = pg::CurrentCatalog();
	const AttrNumber attnum = catalog->tables.at(homed).key_attnum;
	const Oid relid = rt_fetch(query->resultRelation, query->rtable)->relid;
	return pg::PgCall([&] {
		return relid == homed ? attnum : get_attnum(relid, get_attname(homed, attnum, false));
	});
}

// Everything but the rows. `query` is the INSERT, `sent` what is computed for it here.
RoutedInsert *StartRoutedInsert(Query *query, Oid homed, List *sent, AttrNumber key, EState *estate,
                                TupleDesc returning, Tuplestorestate *rows)
{
	auto *insert = static_cast<RoutedInsert *>(palloc0(sizeof(RoutedInsert)));
	insert->receiver.receiveSlot = ReceiveRow;
	insert->receiver.rStartup = StartReceiver;
	insert->receiver.rShutdown = EndReceiver;
	insert->receiver.rDestroy = EndReceiver;
	insert->receiver.mydest = DestNone;
	insert->estate = estate;
	insert->returning = returning;
	insert->rows = rows;
	pg::PgEntry([&] { FixOwners(insert, homed); });
	PrepareColumns(insert, sent, key);
	insert->first_param = HighestParam(query, estate->es_param_list_info) + 1;
	insert->batch_query = BatchQuery(query, sent, insert);
	return insert;
}

void FinishRoutedInsert(RoutedInsert *insert)
{
	pg::PgEntry([&] {
		for (int i = 0; i < insert->batch_count; ++i)
			Flush(insert, &insert->batches[i]);
		for (int i = 0; i < insert->batch_count; ++i)
			AwaitBatch(insert, &insert->batches[i]);
	});
}

// --- UPDATE of the key ------------------------------------------------------------------------------------

// The new row: what SET gives, else the old value. Not generated columns, which compute themselves.
List *NewRow(Query *update)
{
	RangeTblEntry *entry = rt_fetch(update->resultRelation, update->rtable);
	Relation relation = table_open(entry->relid, NoLock);
	TupleDesc desc = RelationGetDescr(relation);
	List *row = NIL;
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		if (attribute->attisdropped || attribute->attgenerated != '\0')
			continue;
		void *value = makeVar(update->resultRelation, attribute->attnum, attribute->atttypid,
		                      attribute->atttypmod, attribute->attcollation, 0);
		ListCell *cell;
		foreach (cell, update->targetList) {
			auto *set = lfirst_node(TargetEntry, cell);
			if (set->resno == attribute->attnum && !set->resjunk)
				value = set->expr;
		}
		row = lappend(row, makeTargetEntry(static_cast<Expr *>(value), attribute->attnum,
		                                   pstrdup(NameStr(attribute->attname)), false));
		entry->selectedCols = bms_add_member(entry->selectedCols,
		                                     attribute->attnum - FirstLowInvalidHeapAttributeNumber);
	}
	table_close(relation, NoLock);
	return row;
}

// DELETE … RETURNING the new row, and behind it that nothing refers to the old one.
Query *DeletePart(Query *update, List *row, AttrNumber key)
{
	auto *part = static_cast<Query *>(copyObjectImpl(update));
	part->commandType = CMD_DELETE;
	part->targetList = NIL;
	part->withCheckOptions = NIL;
	part->returningList = NIL;
	RangeTblEntry *entry = rt_fetch(part->resultRelation, part->rtable);
	entry->requiredPerms = ACL_DELETE | ACL_SELECT;
	entry->updatedCols = nullptr;
	ListCell *cell;
	foreach (cell, row) {
		auto *value = static_cast<TargetEntry *>(copyObjectImpl(lfirst(cell)));
		value->resno = list_length(part->returningList) + 1;
		part->returningList = lappend(part->returningList, value);
	}
	Relation relation = table_open(entry->relid, NoLock);
	foreach (cell, row) {
		auto *value = lfirst_node(TargetEntry, cell);
		if (value->resno == key && IsReferenced(relation))
			part->returningList =
				lappend(part->returningList,
			            makeTargetEntry(CheckUnreferenced(relation, part->resultRelation,
			                                              value->expr),
			                            list_length(part->returningList) + 1,
			                            pstrdup("unreferenced"), false));
	}
	table_close(relation, NoLock);
	return part;
}

// INSERT … SELECT with the UPDATE's RETURNING. The values come from outside: only their types count.
Query *InsertPart(Query *update, List *row)
{
	auto *part = makeNode(Query);
	part->commandType = CMD_INSERT;
	part->querySource = update->querySource;
	part->canSetTag = update->canSetTag;
	part->override = OVERRIDING_SYSTEM_VALUE;
	part->resultRelation = 1;
	auto *target = static_cast<RangeTblEntry *>(
		copyObjectImpl(rt_fetch(update->resultRelation, update->rtable)));
	target->requiredPerms = ACL_INSERT | (update->returningList != NIL ? ACL_SELECT : 0);
	target->updatedCols = nullptr;
	auto *source = makeNode(RangeTblEntry);
	source->rtekind = RTE_SUBQUERY;
	source->eref = makeAlias("rows", NIL);
	source->alias = makeAlias("rows", NIL);
	source->inFromCl = true;
	part->rtable = list_make2(target, source);
	auto *from = makeNode(RangeTblRef);
	from->rtindex = 2;
	part->jointree = makeFromExpr(list_make1(from), nullptr);
	ListCell *cell;
	foreach (cell, row) {
		auto *entry = lfirst_node(TargetEntry, cell);
		source->eref->colnames =
			lappend(source->eref->colnames, makeString(pstrdup(entry->resname)));
		target->insertedCols =
			bms_add_member(target->insertedCols, entry->resno - FirstLowInvalidHeapAttributeNumber);
		part->targetList = lappend(part->targetList, copyObjectImpl(entry));
	}
	part->returningList = static_cast<List *>(copyObjectImpl(update->returningList));
	ChangeVarNodes(reinterpret_cast<Node *>(part->returningList), update->resultRelation, 1, 0);
	// Policies have checks of their own for an INSERT.
	foreach (cell, update->withCheckOptions) {
		if (lfirst_node(WithCheckOption, cell)->kind == WCO_VIEW_CHECK)
			part->withCheckOptions = lappend(part->withCheckOptions, copyObjectImpl(lfirst(cell)));
	}
	ChangeVarNodes(reinterpret_cast<Node *>(part->withCheckOptions), update->resultRelation, 1, 0);
	return part;
}

bool NeedsOtherRelation(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Var))
		return reinterpret_cast<Var *>(node)->varno != 1;
	if (IsA(node, SubLink))
		return true;
	return pg::WalkExpression(node, NeedsOtherRelation, nullptr);
}

bool IsMultiAssign(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Param) && reinterpret_cast<Param *>(node)->paramkind == PARAM_MULTIEXPR)
		return true;
	return pg::WalkExpression(node, IsMultiAssign, nullptr);
}

void CheckMovable(Query *update, Query *insert)
{
	const char *why = nullptr;
	if (NeedsOtherRelation(reinterpret_cast<Node *>(insert->returningList), nullptr))
		why = "RETURNING refers to other tables than the one that is updated.";
	else if (NeedsOtherRelation(reinterpret_cast<Node *>(insert->withCheckOptions), nullptr))
		why = "The check option of a view reads other tables than the one that is updated.";
	else if (IsMultiAssign(reinterpret_cast<Node *>(update->targetList), nullptr))
		why = "SET assigns several columns from one subquery.";
	if (why != nullptr)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("cannot change the key of a row to one whose home is at another region"),
		         errdetail("%s", why), errhint("Use DELETE and INSERT in one transaction.")));
}

}  // namespace

void ExecuteRoutedInsert(Query *query, Oid homed, EState *estate, TupleDesc returning,
                         Tuplestorestate *rows)
{
	const AttrNumber key = pg::PgEntry([&] { return KeyOf(query, homed); });
	List *sent = SentEntries(query, key);
	RoutedInsert *insert = StartRoutedInsert(query, homed, sent, key, estate, returning, rows);
	(void) ExecuteByHome(SourceQuery(query, sent), estate, estate->es_param_list_info,
	                     &insert->receiver);
	FinishRoutedInsert(insert);
}

void ExecuteMovingUpdate(Query *update, Oid homed, EState *estate, TupleDesc returning,
                         Tuplestorestate *rows)
{
	const AttrNumber key = pg::PgEntry([&] { return KeyOf(update, homed); });
	auto *query = static_cast<Query *>(copyObjectImpl(update));
	List *row = NewRow(query);
	Query *part = InsertPart(query, row);
	CheckMovable(query, part);
	RoutedInsert *insert = StartRoutedInsert(part, homed, row, key, estate, returning, rows);
	(void) ExecuteByHome(DeletePart(query, row, key), estate, estate->es_param_list_info,
	                     &insert->receiver);
	FinishRoutedInsert(insert);
}

}  // namespace homing::write
