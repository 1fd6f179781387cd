#include "write/warm_session.hpp"

#include <utility>

namespace homing::write {

WarmSession::WarmSession(Place place, pg::SessionSlot slot)
	: place_(std::move(place)), slot_(std::move(slot)),
	  connecting_(pg::BeginConnectingTo(place_.server, place_.user))
{
}

std::unique_ptr<RegionSession> WarmSession::Finish(pg::LatchWaiter &waiter)
{
	pg::RegionConnection connection =
		pg::FinishConnectingTo(place_.server, place_.user, std::move(connecting_), waiter);
	return std::make_unique<RegionSession>(std::move(place_), std::move(slot_),
	                                       std::move(connection), waiter);
}

}  // namespace homing::write
