#include "pg/transaction_end.hpp"

extern "C" {
#include "replication/worker_internal.h"
}

namespace homing::pg {

bool anybody_listens = false;

namespace {

EndListener *first = nullptr;

[[gnu::hot]] void OnTransactionEnd(XactEvent event, void *)
{
	const bool applies = MyLogicalRepWorker != nullptr;
	if (!anybody_listens && !applies)
		return;
	const bool over =
		event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE;
	if (over)
		anybody_listens = false;
	for (EndListener *listener = first; listener != nullptr; listener = listener->next) {
		if (!listener->listens && !applies)
			continue;
		if (over)
			listener->listens = false;
		listener->on_end(event);
	}
}

}  // namespace

void AddEndListener(EndListener *listener)
{
	if (first == nullptr)
		RegisterXactCallback(OnTransactionEnd, nullptr);
	listener->next = first;
	first = listener;
}

}  // namespace homing::pg
