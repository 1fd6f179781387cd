#include "write/written_keys.hpp"

#include "pg/compat.hpp"
#include "pg/key.hpp"
#include "write/statement_params.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/params.h"
#include "nodes/value.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
}

namespace homing::write {

namespace {

void AddRoutedParams(EState *estate, List *values, int first)
{
	ParamListInfo list = AppendParams(estate->es_param_list_info, values, first);
	estate->es_param_list_info = list;
	if (estate->es_per_tuple_exprcontext != nullptr)
		estate->es_per_tuple_exprcontext->ecxt_param_list_info = list;
}

bool IsUnknownParam(Node *node, EState *estate)
{
	return IsA(node, Param) && estate->es_param_list_info == nullptr;
}

bool UnknownParamWalker(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	return IsUnknownParam(node, static_cast<EState *>(context)) ||
	       pg::WalkExpression(node, UnknownParamWalker, context);
}

// nullptr: there is none of that number and type.
const ParamExternData *FindParam(ParamListInfo list, int number, Oid type,
                                 ParamExternData *workspace)
{
	if (list == nullptr || number > list->numParams)
		return nullptr;
	const ParamExternData *param = list->paramFetch != nullptr
	                                   ? list->paramFetch(list, number, false, workspace)
	                                   : &list->params[number - 1];
	return param->ptype == type ? param : nullptr;
}

// The value of a constant or parameter.
bool FindValue(Expr *expr, ParamListInfo list, Datum *value, bool *isnull)
{
	if (IsA(expr, Const)) {
		*isnull = reinterpret_cast<Const *>(expr)->constisnull;
		*value = reinterpret_cast<Const *>(expr)->constvalue;
		return true;
	}
	if (!IsA(expr, Param))
		return false;
	ParamExternData workspace;
	const ParamExternData *param = FindParam(list, reinterpret_cast<Param *>(expr)->paramid,
	                                         reinterpret_cast<Param *>(expr)->paramtype, &workspace);
	if (param == nullptr)
		return false;
	*isnull = param->isnull;
	*value = param->value;
	return true;
}

Datum Evaluate(Expr *expr, EState *estate, bool *isnull)
{
	Datum value;
	if (FindValue(expr, estate->es_param_list_info, &value, isnull))
		return value;
	ExprState *state = ExecInitExpr(expr, nullptr);
	ExprContext *context = GetPerTupleExprContext(estate);
	context->ecxt_param_list_info = estate->es_param_list_info;
	return ExecEvalExpr(state, context, isnull);
}

void AddKey(WrittenTarget *target, Datum value, Oid type)
{
	auto *buffer = static_cast<uint8 *>(palloc(8));
	const pg::KeyBytes bytes = pg::CanonicalKey(value, getBaseType(type), buffer);
	target->keys[target->key_count++] = {bytes.data, bytes.size};
}

void Reserve(WrittenTarget *target, int more)
{
	const Size size = sizeof(KeyValue) * (target->key_count + more);
	target->keys = static_cast<KeyValue *>(
		target->keys == nullptr ? palloc(size) : repalloc_huge(target->keys, size));
}

void AddArray(WrittenTarget *target, Datum value, Oid type)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	const Oid element = get_element_type(getBaseType(type));
	int16 length;
	bool by_value;
	char align;
	get_typlenbyvalalign(element, &length, &by_value, &align);
	Datum *elements;
	bool *nulls;
	int count;
	deconstruct_array(array, element, length, by_value, align, &elements, &nulls, &count);
	Reserve(target, count);
	for (int i = 0; i < count; ++i) {
		if (!nulls[i])
			AddKey(target, elements[i], element);
	}
}

void AddHomes(WrittenTarget *target, Datum value)
{
	Datum *elements;
	deconstruct_array(DatumGetArrayTypeP(value), INT4OID, sizeof(int32), true, TYPALIGN_INT,
	                  &elements, nullptr, &target->home_count);
	target->homes = static_cast<int32 *>(palloc(sizeof(int32) * (target->home_count + 1)));
	for (int i = 0; i < target->home_count; ++i)
		target->homes[i] = DatumGetInt32(elements[i]);
}

void AddSource(WrittenTarget *target, SourceKind kind, Datum value, bool isnull, Oid type)
{
	switch (kind) {
	case SourceKind::kKey:
		Reserve(target, 1);
		if (isnull)
			target->keys[target->key_count++] = {nullptr, 0};
		else
			AddKey(target, value, type);
		break;
	case SourceKind::kKeys:
		if (!isnull)
			AddArray(target, value, type);
		break;
	case SourceKind::kHomes:
		if (!isnull)
			AddHomes(target, value);
		break;
	}
}

}  // namespace

List *StoreKeys(CustomScan *scan, const WriteAnalysis *analysis)
{
	List *stored = NIL;
	ListCell *cell;
	foreach (cell, analysis->targets) {
		auto *target = static_cast<WriteTarget *>(lfirst(cell));
		List *kinds = NIL, *params = NIL;
		ListCell *source_cell;
		foreach (source_cell, target->sources) {
			auto *source = static_cast<KeySource *>(lfirst(source_cell));
			scan->custom_exprs = lappend(scan->custom_exprs, expression_planner(source->expr));
			kinds = lappend_int(kinds, static_cast<int>(source->kind));
			params = lappend_int(params, source->param);
		}
		const char *unproved = target->unproved != nullptr ? target->unproved : "";
		List *one =
			list_make5(list_make2_oid(target->relid, target->homed), makeString(pstrdup(unproved)),
		               kinds, params, makeInteger(static_cast<int>(target->sharing)));
		one = lappend(one, makeInteger(static_cast<int>(target->claiming)));
		stored = lappend(stored, one);
	}
	return stored;
}

WrittenKeys EvaluateKeys(CustomScan *scan, List *stored, EState *estate, bool explain_only)
{
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	WrittenKeys keys{};
	keys.targets =
		static_cast<WrittenTarget *>(palloc0(sizeof(WrittenTarget) * list_length(stored)));
	List *routed = NIL;
	int first_routed = 0;
	ListCell *expr_cell = list_head(scan->custom_exprs);
	ListCell *cell;
	foreach (cell, stored) {
		auto *one = lfirst_node(List, cell);
		WrittenTarget *target = &keys.targets[keys.target_count++];
		target->relid = linitial_oid(linitial_node(List, one));
		target->homed = lsecond_oid(linitial_node(List, one));
		const char *unproved = strVal(lsecond(one));
		target->unproved = unproved[0] != '\0' ? unproved : nullptr;
		target->known = true;
		target->sharing = static_cast<Sharing>(intVal(list_nth(one, 4)));
		target->claiming = static_cast<Claiming>(intVal(list_nth(one, 5)));

		ListCell *kind_cell, *param_cell;
		forboth(kind_cell, static_cast<List *>(lthird(one)), param_cell,
		        static_cast<List *>(lfourth(one)))
		{
			auto *expr = static_cast<Expr *>(lfirst(expr_cell));
			expr_cell = lnext(scan->custom_exprs, expr_cell);
			if (explain_only && (lfirst_int(param_cell) != 0 ||
			                     UnknownParamWalker(reinterpret_cast<Node *>(expr), estate))) {
				target->known = false;
				continue;
			}
			bool isnull;
			const Oid type = exprType(reinterpret_cast<Node *>(expr));
			const Datum value = Evaluate(expr, estate, &isnull);
			if (lfirst_int(param_cell) != 0) {
				if (routed == NIL)
					first_routed = lfirst_int(param_cell);
				auto *param = static_cast<ParamExternData *>(palloc0(sizeof(ParamExternData)));
				param->value = value;
				param->isnull = isnull;
				param->pflags = PARAM_FLAG_CONST;
				param->ptype = type;
				routed = lappend(routed, param);
			}
			AddSource(target, static_cast<SourceKind>(lfirst_int(kind_cell)), value, isnull, type);
		}
	}
	if (routed != NIL)
		AddRoutedParams(estate, routed, first_routed);
	MemoryContextSwitchTo(old);
	return keys;
}

Node *StorePlainWrite(CustomScan *scan, List *stored)
{
	if (list_length(stored) != 1 || list_length(scan->custom_exprs) != 1)
		return nullptr;
	const auto *one = linitial_node(List, stored);
	const bool is_key =
		linitial_int(static_cast<List *>(lthird(one))) == static_cast<int>(SourceKind::kKey);
	const bool routed = linitial_int(static_cast<List *>(lfourth(one))) != 0;
	auto *expr = static_cast<Node *>(linitial(scan->custom_exprs));
	const bool constant = IsA(expr, Const) && !castNode(Const, expr)->constisnull;
	const bool param = IsA(expr, Param) && castNode(Param, expr)->paramkind == PARAM_EXTERN;
	if (!is_key || routed || strVal(lsecond(one))[0] != '\0' || (!constant && !param))
		return nullptr;
	auto *write = static_cast<PlainWrite *>(palloc0(sizeof(PlainWrite)));
	write->relid = linitial_oid(linitial_node(List, one));
	write->homed = lsecond_oid(linitial_node(List, one));
	write->declared = exprType(expr);
	write->type = getBaseType(write->declared);
	if (param)
		write->param = castNode(Param, expr)->paramid;
	else
		write->hash = pg::HashOfKey(castNode(Const, expr)->constvalue, write->type);
	return reinterpret_cast<Node *>(makeConst(INTERNALOID, -1, InvalidOid, sizeof(PlainWrite),
	                                          PointerGetDatum(write), false, false));
}

[[gnu::hot]] bool HashOfPlainKey(const PlainWrite &write, ParamListInfo params, uint64 *hash)
{
	*hash = write.hash;
	if (write.param == 0)
		return true;
	ParamExternData workspace;
	const ParamExternData *param = FindParam(params, write.param, write.declared, &workspace);
	if (param == nullptr || param->isnull)
		return false;
	*hash = pg::HashOfKey(param->value, write.type);
	return true;
}

}  // namespace homing::write
