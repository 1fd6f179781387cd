// Regions in synchronous_standby_names: a write is acknowledged when another region has flushed it.
#pragma once

namespace homing::write {

// Whether commits wait for anybody: the server's synchronous_standby_names. Else there is nothing to check.
bool SomebodyIsWaitedFor();

// Requires: the transaction has written to homed tables here, and is about to commit or to prepare. Raises 55000 when
// the session would not wait for the other regions that it has to wait for (PROTOCOL §3 row 56).
void CheckWaitsForRegions();

// Requires: such a transaction has just committed. A wait for the other regions can be cancelled, and the server then
// acknowledges the commit with a warning: instead, the client does not hear of it, and finds the connection closed
// (row 54). Never fails.
void WithholdUnconfirmed() noexcept;

}  // namespace homing::write
