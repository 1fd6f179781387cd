#include "write/sync_mode.hpp"

#include "pg/boundary.hpp"
#include "pg/transaction_end.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
}

namespace homing::write {

namespace {

// How the names of all streams between regions begin.
constexpr char kStreamPrefix[] = "homing_";

bool NamesRegions()
{
	if (!SomebodyIsWaitedFor())
		return false;
	const char *name = SyncRepConfig->member_names;
	for (int i = 0; i < SyncRepConfig->nmembers; ++i, name += strlen(name) + 1) {
		// "*" takes whichever comes first, and a stream may.
		if (strncmp(name, kStreamPrefix, sizeof(kStreamPrefix) - 1) == 0 || strcmp(name, "*") == 0)
			return true;
	}
	return false;
}

}  // namespace

[[gnu::hot]] bool SomebodyIsWaitedFor()
{
	return SyncRepConfig != nullptr;
}

void CheckWaitsForRegions()
{
	if (synchronous_commit >= SYNCHRONOUS_COMMIT_REMOTE_FLUSH || !NamesRegions())
		return;
	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("cannot commit writes to homed tables with synchronous_commit = %s",
	                GetConfigOption("synchronous_commit", false, false)),
	         errdetail(
				 "synchronous_standby_names has streams to other regions: what is acknowledged must be "
				 "flushed at another region."),
	         errhint("SET synchronous_commit = on, or remote_apply.")));
}

void WithholdUnconfirmed() noexcept
{
	if (!NamesRegions())
		return;
	const int mode = synchronous_commit == SYNCHRONOUS_COMMIT_REMOTE_APPLY ? SYNC_REP_WAIT_APPLY
	                                                                       : SYNC_REP_WAIT_FLUSH;
	LWLockAcquire(SyncRepLock, LW_SHARED);
	const bool confirmed = XactLastCommitEnd <= WalSndCtl->lsn[mode];
	LWLockRelease(SyncRepLock);
	if (!confirmed)
		pg::WithholdAcknowledgement(
			"closing the connection because no other region has confirmed a commit",
			"The transaction is committed here, but may not survive the loss of this region.");
}

}  // namespace homing::write
