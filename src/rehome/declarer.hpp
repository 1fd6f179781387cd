// The process that declares losses for those who ask it to.
//
// A session that declares a loss by itself has to connect to every survivor first, which over a WAN takes longer than
// all the rest of the loss. This process keeps its sessions with the survivors open.
//
//  1. Who asks puts the request into a segment of shared memory, with a queue for the answer, and its handle on the
//     desk of the database.
//  2. The declarer takes it from there and does the steps (parts/declare.sql). What a server would tell its client,
//     notices, an error, the result, goes into the queue.
//  3. Who has asked passes that on. When it is cancelled, so is the declarer.
//
// Without a result or an error the steps may have been done in part: the declarer has ended, or a session that it kept
// was dead. Then who has asked does them with sessions of its own, as if nobody were at the desk. That is safe, as it is
// safe to call declare_lost again after any failure.
#pragma once

namespace homing::rehome {

// Shared memory; from _PG_init.
void RegisterDeclarer();

// Starts it in this database unless it runs. A plain server call, outside a transaction too.
void StartDeclarer();

}  // namespace homing::rehome
