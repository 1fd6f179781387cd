// One COPY … FROM STDIN for each home region that a COPY has rows for.
//
// Rows are collected in chunks, and a chunk goes out when the connection takes it without waiting. A region that
// is slower than the others makes us wait for it only when kUnsentLimit bytes are due to it, so memory is bounded
// whatever the size of the file.
#pragma once

#include "core/ids.hpp"

#include <map>
#include <string>

#include "write/region_session.hpp"

namespace homing::write {

class CopyStreams {
public:
	// The statement that every region executes, and what its stream begins and ends with.
	CopyStreams(std::string sql, std::string header, std::string trailer);

	// Begins the region's stream with its first row. Throws the region's error, ConnectionLost, CannotConnect.
	void Send(core::RegionId region, const char *prefix, std::size_t prefix_size, const char *row,
	          std::size_t size);
	// Offers every region what is due to it. Never waits.
	void Offer();
	// Ends all streams, waits for all answers; returns the number of rows copied.
	std::uint64_t Finish();

private:
	struct Stream {
		RegionSession *session;  // lives until our transaction ends
		std::string due;         // not given to libpq yet
		bool full;               // libpq has not sent all that it was given
	};
	void OfferTo(Stream &stream);

	std::string sql_, header_, trailer_;
	std::map<core::RegionId, Stream> streams_;
};

}  // namespace homing::write
