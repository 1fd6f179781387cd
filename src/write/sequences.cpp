#include "core/ids.hpp"
#include "write/sequences.hpp"

#include "pg/transaction_end.hpp"
#include "write/homed_relation.hpp"
#include "write/own_sql.hpp"

extern "C" {
#include "access/parallel.h"
#include "access/xact.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
}

namespace homing::write {

namespace {

bool set_by_hand = false;

void Realign()
{
	RunOwnSql("SELECT homing._realign_sequences() WHERE $1 IS NOT NULL", 0);
}

void OnTransactionEnd(XactEvent event, void *)
{
	if (event == XACT_EVENT_PRE_COMMIT && set_by_hand && !IsParallelWorker() && AnyHomedTable()) {
		PushActiveSnapshot(GetTransactionSnapshot());
		Realign();
		PopActiveSnapshot();
	}
	// A rollback does not undo setval: the next commit of this session sees to it.
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		set_by_hand = false;
}

}  // namespace

[[gnu::hot]] void NoteFunction(Oid function)
{
	if (function == F_SETVAL_REGCLASS_INT8 || function == F_SETVAL_REGCLASS_INT8_BOOL) {
		pg::AtTransactionEnd<OnTransactionEnd>();
		set_by_hand = true;
	}
}

void FollowAlteredSequence()
{
	CommandCounterIncrement();
	Realign();
}

}  // namespace homing::write
