// Callbacks at the end of transactions for what few sessions do: added by the first who does it, so that the other
// sessions do not pay for it with each transaction. A plain server call.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "access/xact.h"
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

}  // namespace homing::pg
