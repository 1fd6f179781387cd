#include "write/copy_streams.hpp"

#include <cstdlib>
#include <utility>

#include "write/transaction.hpp"

namespace homing::write {

namespace {

constexpr std::size_t kChunk = 64 * 1024;          // bytes
constexpr std::size_t kUnsentLimit = 1024 * 1024;  // bytes

}  // namespace

CopyStreams::CopyStreams(std::string sql, std::string header, std::string trailer)
	: sql_(std::move(sql)), header_(std::move(header)), trailer_(std::move(trailer))
{
}

void CopyStreams::OfferTo(Stream &stream)
{
	if (stream.full)
		stream.full = !stream.session->OfferCopy({});
	if (stream.full && stream.due.size() >= kUnsentLimit) {
		stream.session->SendOffered();
		stream.full = false;
	}
	if (!stream.full) {
		stream.full = !stream.session->OfferCopy(stream.due);
		stream.due.clear();
	}
}

void CopyStreams::Send(core::RegionId region, const char *prefix, std::size_t prefix_size,
                       const char *row, std::size_t size)
{
	auto found = streams_.find(region);
	if (found == streams_.end())
		found = streams_.emplace(region, Stream{&BeginCopy(region, sql_), header_, false}).first;
	Stream &stream = found->second;
	stream.due.append(prefix, prefix_size).append(row, size);
	if (stream.due.size() >= kChunk)
		OfferTo(stream);
}

void CopyStreams::Offer()
{
	for (auto &[region, stream] : streams_) {
		if (stream.full || !stream.due.empty())
			OfferTo(stream);
	}
}

std::uint64_t CopyStreams::Finish()
{
	for (auto &[region, stream] : streams_) {
		stream.due += trailer_;
		(void) stream.session->OfferCopy(std::exchange(stream.due, {}));
	}
	for (auto &[region, stream] : streams_)
		stream.session->EndCopy();
	std::uint64_t rows = 0;
	for (auto &[region, stream] : streams_)
		rows += std::strtoull(PQcmdTuples(stream.session->FinishCopy().get()), nullptr, 10);
	return rows;
}

}  // namespace homing::write
