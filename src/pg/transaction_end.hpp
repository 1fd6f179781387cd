// What parts of the extension do at the end of transactions. All sessions of the server pay for a callback with each
// transaction, so there is one for all parts that need one always, and those that few sessions need are added by the
// first who does.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
}

namespace homing::pg {

// A part that hears of the end of those transactions that it wants to hear of.
struct EndListener {
	void (*on_end)(XactEvent event);
	bool listens = false;
	EndListener *next = nullptr;
};

// From _PG_init. Who is added later hears earlier.
void AddEndListener(EndListener *listener);

extern bool anybody_listens;

// To the end of this transaction or, at its end, of the next one. In apply workers all hear everything.
inline void ListenToEnd(EndListener *listener)
{
	listener->listens = anybody_listens = true;
}

// Adds the callback to this session, once; it is called before all listeners. A plain server call.
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
