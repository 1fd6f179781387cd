// The table of contents: everything that hooks into the server is registered here.
#include "rehome/declarer.hpp"
#include "rehome/launcher.hpp"
#include "rehome/peer.hpp"

#include "write/modify_node.hpp"
#include "write/outcome_table.hpp"
#include "write/own_plan.hpp"
#include "write/planner.hpp"
#include "write/remote_text.hpp"
#include "write/prepared_guard.hpp"
#include "write/read_consistency.hpp"
#include "write/read_node.hpp"
#include "write/transaction.hpp"
#include "write/utility.hpp"

#include "write/issued.hpp"

#include "pg/apply_progress.hpp"
#include "pg/catalog.hpp"
#include "pg/deadlock_victim.hpp"
#include "pg/forward_stats.hpp"
#include "pg/lease.hpp"
#include "pg/session_slots.hpp"
#include "pg/settings.hpp"

extern "C" {

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void _PG_init(void)
{
	homing::pg::DefineSettings();
	// Without shared memory there is no picture of the cluster to decide from: the guard refuses writes.
	if (!process_shared_preload_libraries_in_progress)
		return;
	homing::pg::RegisterCatalog();
	homing::pg::RegisterApplyProgress();
	homing::pg::RegisterComingMoves();
	homing::pg::RegisterDeadlockVictim();
	homing::pg::RegisterForwardStats();
	homing::pg::RegisterLease();  // before RegisterTransaction: the last look before a commit is at the lease
	homing::pg::RegisterSessionSlots();
	homing::rehome::RegisterPeers();
	homing::rehome::RegisterDeclarer();
	homing::rehome::RegisterLauncher();
	homing::write::RegisterRemoteText();
	homing::write::RegisterIssued();
	homing::write::RegisterModifyNode();
	homing::write::RegisterOutcomeTable();
	homing::write::RegisterOwnPlan();  // before what looks at the plan that was made
	homing::write::RegisterPlanner();
	homing::write::RegisterPreparedGuard();
	homing::write::RegisterReadConsistency();
	homing::write::RegisterReadNode();
	homing::write::RegisterTransaction();
	homing::write::RegisterUtility();
}

}  // extern "C"
