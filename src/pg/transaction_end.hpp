// Callbacks at the end of transactions for what few sessions do: added by the first who does it, so that the other
// sessions do not pay for it with each transaction. A plain server call.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
}

namespace homing::pg {

// Adds the callback to this session, once.
template <XactCallback callback>
void AtTransactionEnd()
{
	static bool added = false;
	if (!added)
		RegisterXactCallback(callback, nullptr);
	added = true;
}

template <SubXactCallback callback>
void AtSubTransactionEnd()
{
	static bool added = false;
	if (!added)
		RegisterSubXactCallback(callback, nullptr);
	added = true;
}

// The transaction has committed: no error may be raised any more. The client does not hear of it, and finds the
// connection closed, as after any loss of the connection.
inline void WithholdAcknowledgement(const char *message, const char *detail)
{
	ereport(WARNING, (errcode(ERRCODE_ADMIN_SHUTDOWN), errmsg_internal("%s", message),
	                  errdetail_internal("%s", detail)));
	whereToSendOutput = DestNone;
	ProcDiePending = true;
	InterruptPending = true;
}

}  // namespace homing::pg
