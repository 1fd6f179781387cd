// Differences between PostgreSQL 15 and 18: one wrapper each, with the newest signature.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "pg_homing supports PostgreSQL 15 to 18"
#endif

namespace homing::pg {

// Tree walkers take callbacks without a prototype before 16.
using Walker = bool (*)(Node *node, void *context);
using Mutator = Node *(*) (Node *node, void *context);

#if PG_VERSION_NUM < 160000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-function-type"
inline bool WalkExpression(Node *node, Walker walker, void *context)
{
	return expression_tree_walker(node, reinterpret_cast<bool (*)()>(walker), context);
}
inline bool WalkQuery(Query *query, Walker walker, void *context, int flags = 0)
{
	return query_tree_walker(query, reinterpret_cast<bool (*)()>(walker), context, flags);
}
inline Node *MutateExpression(Node *node, Mutator mutator, void *context)
{
	return expression_tree_mutator(node, reinterpret_cast<Node *(*) ()>(mutator), context);
}
inline Query *MutateQuery(Query *query, Mutator mutator, void *context)
{
	return query_tree_mutator(query, reinterpret_cast<Node *(*) ()>(mutator), context, 0);
}
#pragma GCC diagnostic pop
#else
inline bool WalkExpression(Node *node, Walker walker, void *context)
{
	return expression_tree_walker(node, walker, context);
}
inline bool WalkQuery(Query *query, Walker walker, void *context, int flags = 0)
{
	return query_tree_walker(query, walker, context, flags);
}
inline Node *MutateExpression(Node *node, Mutator mutator, void *context)
{
	return expression_tree_mutator(node, mutator, context);
}
inline Query *MutateQuery(Query *query, Mutator mutator, void *context)
{
	return query_tree_mutator(query, mutator, context, 0);
}
#endif

// As whom a table of a query is used; InvalidOid: as the caller.
inline Oid CheckedAs(const Query *query, const RangeTblEntry *entry)
{
#if PG_VERSION_NUM < 160000
	(void) query;
	return entry->checkAsUser;
#else
	return entry->perminfoindex == 0
	           ? InvalidOid
	           : getRTEPermissionInfo(query->rteperminfos, const_cast<RangeTblEntry *>(entry))
	                 ->checkAsUser;
#endif
}

// Whether the caller has the rights that the query needs on a table, if it were to use it as himself.
inline bool CallerMayUse(const Query *query, const RangeTblEntry *entry)
{
#if PG_VERSION_NUM < 160000
	(void) query;
	RangeTblEntry own = *entry;
	own.checkAsUser = InvalidOid;
	return own.requiredPerms == 0 || ExecCheckRTEPerms(&own);
#else
	if (entry->perminfoindex == 0)
		return true;
	RTEPermissionInfo own =
		*getRTEPermissionInfo(query->rteperminfos, const_cast<RangeTblEntry *>(entry));
	own.checkAsUser = InvalidOid;
	return own.requiredPerms == 0 || ExecCheckOneRelPerms(&own);
#endif
}

// A setting of the server's own. Raises when there is none of the name.
inline config_generic *FindSetting(const char *name)
{
#if PG_VERSION_NUM < 160000
	config_generic **settings = get_guc_variables();
	for (int i = 0; i < GetNumConfigOptions(); ++i) {
		if (pg_strcasecmp(settings[i]->name, name) == 0)
			return settings[i];
	}
	elog(ERROR, "unrecognized configuration parameter \"%s\"", name);
	pg_unreachable();
#else
	return find_option(name, false, false, ERROR);
#endif
}

// A set that lives as long as the session.
inline WaitEventSet *CreateLastingWaitEventSet(int events)
{
#if PG_VERSION_NUM < 170000
	return CreateWaitEventSet(TopMemoryContext, events);
#else
	return CreateWaitEventSet(nullptr, events);
#endif
}

// Runs an executor to its end, forward.
inline void RunToCompletion(QueryDesc *desc)
{
#if PG_VERSION_NUM < 180000
	ExecutorRun(desc, ForwardScanDirection, 0, true);
#else
	ExecutorRun(desc, ForwardScanDirection, 0);
#endif
}

// The local number of the transaction that a process is in; invalid: in none.
inline LocalTransactionId LocalTransactionOf(const PGPROC *process)
{
#if PG_VERSION_NUM < 170000
	return process->lxid;
#else
	return process->vxid.lxid;
#endif
}

}  // namespace homing::pg
