// Sessions with peers, by name, for the functions that change the cluster (parts/peer.sql).
//
// A session belongs to the transaction that opened it and is closed at its end, unless the process keeps those that are
// idle then. It runs each statement in a
// transaction of its own, or follows ours: then it is committed just before ours, one session after the
// other in the order of names. A crash in between leaves it committed there but not here, so what is done in
// a following session must be harmless on its own and repeatable.
#pragma once

#include <string>

#include "remote/connection.hpp"

namespace homing::rehome {

// Transaction callbacks; from _PG_init.
void RegisterPeers();

// From now on this process keeps its sessions from one transaction that commits to the next, which opens them without
// a round trip. One that turns out to be dead fails with 08006 within a second.
void KeepPeerSessions();

// The connection of an open session, ready for a statement and still owned by the session.
// Throws remote::Error (08003 when there is none of that name, 08006 when it is broken).
remote::Connection &PeerConnection(const std::string &session);

// Adds to the error where it happened.
remote::Error AtPeer(remote::Error error, const std::string &session);

}  // namespace homing::rehome
