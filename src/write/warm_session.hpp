// A session at a region where this one will write in a moment (pg/coming_move), begun while it goes on here.
#pragma once

#include "write/region_session.hpp"

#include <memory>

namespace homing::write {

class WarmSession {
public:
	// Connects, and does not wait. Throws CannotConnect, ServerError.
	WarmSession(Place place, pg::SessionSlot slot);

	// Whether it is connected by now. Never waits. Throws CannotConnect.
	bool Advance(pg::LatchWaiter &waiter) { return connecting_.Advance(waiter); }
	// Waits until it is connected. Throws CannotConnect, ServerError.
	std::unique_ptr<RegionSession> Finish(pg::LatchWaiter &waiter);

	const Place &place() const { return place_; }

private:
	Place place_;
	pg::SessionSlot slot_;
	remote::Connecting connecting_;
};

}  // namespace homing::write
