#include "write/statement_params.hpp"

#include "pg/compat.hpp"

namespace homing::write {

namespace {

bool HighestParamWalker(Node *node, void *context)
{
	if (node == nullptr)
		return false;
	auto *highest = static_cast<int *>(context);
	if (IsA(node, Param)) {
		auto *param = reinterpret_cast<Param *>(node);
		if (param->paramkind == PARAM_EXTERN && param->paramid > *highest)
			*highest = param->paramid;
		return false;
	}
	if (IsA(node, Query))
		return pg::WalkQuery(reinterpret_cast<Query *>(node), HighestParamWalker, context);
	return pg::WalkExpression(node, HighestParamWalker, context);
}

struct AppendedParams {
	ParamListInfo original;  // nullptr: none
	int first;
	int count;
	ParamExternData values[FLEXIBLE_ARRAY_MEMBER];
};

ParamExternData *FetchParam(ParamListInfo list, int number, bool speculative,
                            ParamExternData *workspace)
{
	auto *appended = static_cast<AppendedParams *>(list->paramFetchArg);
	if (number >= appended->first && number < appended->first + appended->count)
		return &appended->values[number - appended->first];
	ParamListInfo original = appended->original;
	if (original == nullptr || number > original->numParams) {
		memset(workspace, 0, sizeof(*workspace));
		workspace->isnull = true;
		return workspace;
	}
	if (original->paramFetch != nullptr)
		return original->paramFetch(original, number, speculative, workspace);
	return &original->params[number - 1];
}

}  // namespace

int HighestParam(Query *query, ParamListInfo list)
{
	int highest = list != nullptr ? list->numParams : 0;
	(void) pg::WalkQuery(query, HighestParamWalker, &highest);
	return highest;
}

ParamListInfo AppendParams(ParamListInfo original, List *values, int first)
{
	const int count = list_length(values);
	auto *appended = static_cast<AppendedParams *>(
		palloc0(offsetof(AppendedParams, values) + sizeof(ParamExternData) * count));
	appended->original = original;
	appended->first = first;
	appended->count = count;
	ListCell *cell;
	foreach (cell, values)
		appended->values[foreach_current_index(cell)] =
			*static_cast<ParamExternData *>(lfirst(cell));

	auto *list = static_cast<ParamListInfo>(palloc0(offsetof(ParamListInfoData, params)));
	list->paramFetch = FetchParam;
	list->paramFetchArg = appended;
	list->numParams = first + count - 1;
	if (original != nullptr) {
		list->parserSetup = original->parserSetup;
		list->parserSetupArg = original->parserSetupArg;
		if (original->numParams > list->numParams)
			list->numParams = original->numParams;
	}
	return list;
}

}  // namespace homing::write
