// The process that keeps a region's lease (core/lease).
//
// It does nothing else, so that no other duty of the region can hold up a renewal. It asks every voter each third of
// homing.lease_duration, this region first; who does not answer takes no more than its share of a lease, so that a
// minority that is gone does not cost the lease that the others give.
#pragma once

namespace homing::rehome {

// Starts it in this database unless it runs. A plain server call, outside a transaction too.
void StartLeaseKeeper();

}  // namespace homing::rehome
