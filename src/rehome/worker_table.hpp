// Which database has a worker, and what the workers heard from their peers: shared memory of the server.
//
// Times of the last answer live here and not in a table: a write a second and peer would be WAL and bloat
// for something that is worthless after a restart.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace homing::rehome {

constexpr int kMaxPeers = 64;  // of one region; more are exchanged with, but not shown

struct PeerSeen {
	int16 region_id;
	bool fenced;
	TimestampTz last_seen;
	int64 epoch;
};

// Shared memory and hooks; from _PG_init, only while shared_preload_libraries are loaded.
void RegisterWorkerTable();
bool WorkerTableExists();

// --- the worker of a database -----------------------------------------------------------------------

// False when another process serves the database, or the table is full. Given back by ReleaseDatabase
// or when the process ends.
bool ClaimDatabase(Oid database);
// The database holds a region: the launcher keeps it served from now on. Wakes the launcher.
void ConfirmRegion();
// With `forget`, the database holds no region (any more).
void ReleaseDatabase(bool forget);
void RecordPeer(const PeerSeen &seen);
// Whether TellHandedOver was called since this was asked last.
bool TakeHandedOver();

// --- others -----------------------------------------------------------------------------------------

// Copies what is known of the database's peers; returns their number.
int ReadPeers(Oid database, PeerSeen peers[kMaxPeers]);

// The database has become a region: wakes the launcher. Never fails: it runs after the commit record.
void WantWorker(Oid database) noexcept;

// A home of the database changed hands: wakes its worker. Never fails: it runs after the commit record.
void TellHandedOver(Oid database) noexcept;

enum class Served { kNo, kWanted, kRegion, kYes };
// kWanted: start a worker at once (told only once). kRegion: its worker ended, start another one.
Served LookAtDatabase(Oid database);
// Forgets databases that `exists` does not know.
void ForgetDatabases(bool (*exists)(Oid database, void *argument), void *argument);
void SetLauncherLatch(struct Latch *latch);

}  // namespace homing::rehome
