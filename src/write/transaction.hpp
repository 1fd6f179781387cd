// The user's transaction over regions.
//
// Every region that a transaction has forwarded a statement to takes part in it with one remote
// transaction. With one writer, this region counted, its COMMIT decides, so nothing needs to be prepared; it
// is sent before our own commit, which then has nothing to lose. With several, see atomic_commit.hpp.
#pragma once

#include "core/ids.hpp"
#include "remote/connection.hpp"

#include "write/region_session.hpp"

namespace homing::write {

// Callbacks; from _PG_init.
void RegisterTransaction();

// Runs a write at another region as all that our transaction does: committed on return, one round trip.
// When its answer was lost but it has committed, the result is empty and `rows` set.
// Throws the remote error, CannotConnect, NotCommitted, OutcomeUnknown.
remote::Result ForwardAlone(core::RegionId region, const RemoteStatement &statement,
                            std::uint64_t *rows);

// Sends a write into the remote transaction that follows ours, without waiting for its answer, so that
// several regions work at the same time. Throws CannotConnect, ConnectionLost.
void Post(core::RegionId region, const RemoteStatement &statement);
// The same within a savepoint of its own over there, which ends with EndAside: kept, or undone as if nothing had
// been sent. An error that ends our (sub)transaction ends it too.
void PostAside(core::RegionId region, const RemoteStatement &statement);
void EndAside(core::RegionId region, bool keep);
// The same as Post for a statement that only reads.
void PostRead(core::RegionId region, const RemoteStatement &statement);
// The answer to the last Post or PostRead there. Throws the remote error, ConnectionLost.
remote::Result Await(core::RegionId region);

// Begins COPY … FROM STDIN in the remote transaction that follows ours. The session lives until our transaction
// ends. Throws the remote error, CannotConnect, ConnectionLost.
RegionSession &BeginCopy(core::RegionId region, const std::string &sql);

// Raises 55000 when a write here would be the second writer of the transaction and the first one cannot
// prepare its part. A plain server call.
void CheckMayWriteHere();

// This session will write at the region soon: connects, as far as it goes without waiting. Call it again and again.
// `announced` tells one occasion from another: what has failed is not tried again on the same one. Throws ServerError.
void Warm(core::RegionId region, std::int64_t announced);

// At how many other regions the transaction has written so far, and one of them; and whether homed tables
// were written here as well.
struct WritePlaces {
	int elsewhere;
	core::RegionId region;
	bool here;
};
WritePlaces WhereWritten();

// True when nothing was forwarded or written in this transaction so far.
bool TransactionIsUntouched();

// True when something was sent to another region in this transaction that may have changed it.
bool WroteElsewhere();

// Other regions where a part of this transaction is going on.
std::vector<core::RegionId> RegionsInTransaction();

}  // namespace homing::write
