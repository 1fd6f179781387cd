// What a mesh of streams needs that SQL commands do not offer.
#include "remote/connection.hpp"

#include "pg/boundary.hpp"

extern "C" {
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_subscription.h"
#include "funcapi.h"
#include "replication/slot.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
}

namespace homing::replicate {

extern "C" {

PG_FUNCTION_INFO_V1(homing_add_stream_table);
PG_FUNCTION_INFO_V1(homing_advance_slot);
PG_FUNCTION_INFO_V1(homing_conninfo_options);

// Lets a subscription apply changes of a table from now on, without asking the publisher for its list as
// REFRESH PUBLICATION does: what the publisher commits together with this may not be visible there yet.
PGDLLEXPORT Datum homing_add_stream_table(PG_FUNCTION_ARGS)
{
	const Oid subscription = get_subscription_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
	const Oid table = PG_GETARG_OID(1);
	// As ALTER SUBSCRIPTION does, so that it takes turns with that.
	LockSharedObject(SubscriptionRelationId, subscription, 0, AccessExclusiveLock);
	XLogRecPtr position;
	if (GetSubscriptionRelState(subscription, table, &position) == SUBREL_STATE_UNKNOWN)
		AddSubscriptionRelState(subscription, table, SUBREL_STATE_READY, InvalidXLogRecPtr);
	PG_RETURN_VOID();
}

// pg_replication_slot_advance, but durable: a slot that went back after a crash would send a new region
// what it has copied already.
PGDLLEXPORT Datum homing_advance_slot(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const XLogRecPtr target = PG_GETARG_LSN(1);

	ReplicationSlotAcquire(name, true);
	SpinLockAcquire(&MyReplicationSlot->mutex);
	const XLogRecPtr reached = MyReplicationSlot->data.confirmed_flush;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotRelease();
	if (reached >= target)
		PG_RETURN_VOID();

	NameData slot_name;
	namestrcpy(&slot_name, name);
	FmgrInfo function;
	fmgr_info(F_PG_REPLICATION_SLOT_ADVANCE, &function);
	(void) FunctionCall2(&function, NameGetDatum(&slot_name), LSNGetDatum(target));

	ReplicationSlotAcquire(name, true);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	ReplicationSlotRelease();
	PG_RETURN_VOID();
}

// The options of a connection string, and whether each is a matter of the user (a USER MAPPING) or of
// the server.
PGDLLEXPORT Datum homing_conninfo_options(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	char *complaint = nullptr;
	PQconninfoOption *options = PQconninfoParse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &complaint);
	if (complaint != nullptr)
		PQfreemem(complaint);  // quotes the string, and with it perhaps a password
	if (options == nullptr)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid connection string"),
		         errhint("It has the form of libpq: \"host=... port=... dbname=... user=...\".")));
	PG_TRY();
	{
		for (const PQconninfoOption *option = options; option->keyword != nullptr; ++option) {
			if (option->val == nullptr)
				continue;
			const bool of_user =
				strchr(option->dispchar, '*') != nullptr || strcmp(option->keyword, "user") == 0;
			Datum values[] = {CStringGetTextDatum(option->keyword),
			                  CStringGetTextDatum(option->val), BoolGetDatum(of_user)};
			bool nulls[] = {false, false, false};
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
	}
	PG_FINALLY();
	{
		PQconninfoFree(options);
	}
	PG_END_TRY();
	return (Datum) 0;
}

}  // extern "C"

}  // namespace homing::replicate
