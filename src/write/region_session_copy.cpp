// COPY in a session at another region.
#include "write/region_session.hpp"

#include <cstdlib>

#include "pg/boundary.hpp"

namespace homing::write {

// What the region says is an error of the user's statement; a COPY that it ended is over.
template <typename Body>
auto RegionSession::InCopy(const Body &body) -> decltype(body())
{
	try {
		return body();
	} catch (remote::Error &error) {
		copying_ = connection_->Broken();
		settings_.clear();
		meter_.Failed(error.sqlstate);
		AddContext(error);
		throw;
	}
}

void RegionSession::BeginCopy(const std::string &sql, int nest_level)
{
	TakeEarly();
	EnterTransaction(nest_level);
	meter_.Count(pg::Forwarded::kStatements);
	Sync();
	(void) Collect();
	copying_ = true;
	InCopy([&] { connection_->BeginCopy(sql); });
}

bool RegionSession::OfferCopy(const std::string &data)
{
	const bool sent = InCopy([&] { return connection_->OfferCopyData(data.data(), data.size()); });
	ReportNotices();
	return sent;
}

void RegionSession::SendOffered()
{
	InCopy([&] { connection_->SendOffered(); });
	ReportNotices();
}

void RegionSession::EndCopy()
{
	InCopy([&] { connection_->OfferCopyEnd(); });
}

remote::Result RegionSession::FinishCopy()
{
	remote::Result result = InCopy([&] { return connection_->ReceiveCopyEnd(); });
	copying_ = false;
	meter_.Count(pg::Forwarded::kRows, std::strtoull(PQcmdTuples(result.get()), nullptr, 10));
	ReportNotices();
	return result;
}

}  // namespace homing::write
