// Where a key lives, and whether what was written to it before has arrived here.
//
// A home or a key that changed hands is served when its acceptance is committed. A statement whose snapshot
// is older than that does not see all that the old owner wrote: in READ COMMITTED it must run with a new
// snapshot, in higher levels it cannot go on.
#pragma once

#include "pg/catalog.hpp"

extern "C" {
#include "utils/snapshot.h"
}

namespace homing::pg {

struct KeyHome {
	core::HomeId home;
	int64 moved =
		0;  // version of the assignment that brought the key from another region; 0: none did
	bool assigned = false;  // false: its hash says where it lives
	bool arrived = true;    // false: the key is on its way, and the catalog has changed: look again
};

// The home of a key: its newest assignment, else its hash. A claim of our own transaction counts from its commit on. Reads with a fresh snapshot; never reads the
// catalog anew. A key that is on its way to this region is waited for; 40001 after homing.handover_timeout.
// Requires: the keyspace is in the catalog. Throws ServerError and remote::Error.
KeyHome FindKeyHome(const core::Keyspace &keyspace, const uint8 *key, Size size);
// For those who do not look again: 40001 when they would have to.
core::HomeId HomeOfKey(const core::Keyspace &keyspace, const uint8 *key, Size size);
remote::Error ClusterChanged();

// Whether the snapshot contains what earlier owners wrote to the home, or key, that this region serves now.
// Throw ServerError.
bool SnapshotHasHome(const Catalog &catalog, core::KeyspaceId keyspace, core::HomeId home,
                     Snapshot snapshot);
bool SnapshotHasKey(core::KeyspaceId keyspace, const uint8 *key, Size size, int64 moved,
                    Snapshot snapshot);

}  // namespace homing::pg
