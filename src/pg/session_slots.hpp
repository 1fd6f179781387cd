// The sessions that this server's backends have at other regions, in shared memory: who is where, and not
// more of them at a region than homing.max_connections_per_region.
//
// Who finds no room asks for somebody else's slot: it marks one as wanted, an idle one first. Its owner gives it
// up at the end of its transaction; an idle owner is woken up for that by a catch-up interrupt, which
// makes it run an empty transaction.
#pragma once

#include "core/ids.hpp"

#include <optional>
#include <string>

#include "pg/boundary.hpp"

namespace homing::pg {

enum class SlotState : uint32 { kConnecting, kIdle, kActive, kInTransaction };

// Shared memory; from _PG_init.
void RegisterSessionSlots();

// A place at a region. Without shared memory it counts for nothing.
class SessionSlot {
public:
	// Waits for room, up to homing.connect_timeout; then throws 53300. Throws ServerError when interrupted.
	SessionSlot(core::RegionId region, const std::string &region_name);
	// Nothing: there is no room now.
	static std::optional<SessionSlot> IfFree(core::RegionId region);
	~SessionSlot();
	SessionSlot(SessionSlot &&other) noexcept : number_(other.number_) { other.number_ = -1; }
	SessionSlot(const SessionSlot &) = delete;
	SessionSlot &operator=(const SessionSlot &) = delete;

	void Connected(int remote_pid) noexcept;
	// Something is to be answered, in the transaction that is open here.
	void Active() noexcept;
	// All is answered.
	void Answered() noexcept;
	// The transaction there has ended. Look at Wanted after it.
	void Idle() noexcept;
	// Somebody waits for it.
	bool Wanted() const noexcept;

private:
	SessionSlot() = default;

	int number_ = -1;
};

}  // namespace homing::pg
