// What a region does with a prepared part of a transaction whose coordinator is elsewhere.
//
// The decision is a row of homing.outcome that the coordinator commits with its own part. "Commit" is only
// ever learned from that row as it arrives in the coordinator's stream, never from an answer: so when the
// coordinator is lost, either every survivor has the row, and the coordinator's own part with it, or none
// has. "Abort" may be learned from an answer: the coordinator gives it only after it has ruled out, durably,
// that the row will ever be written (PROTOCOL 2i).
//
// A region that was declared lost hears no stream any more, and what it commits counts for nobody else: there an
// answer is as good as the row. The part becomes one of its writes that no other region has.
#pragma once

#include <cstdint>
#include <optional>

namespace homing::core {

enum class InDoubtStep {
	kCommit,
	kAbort,
	kAsk,  // the coordinator
	kWait
};

// What the coordinator said when it was asked.
struct CoordinatorAnswer {
	enum class Kind {
		kCommitted,  // the row exists there and is on its way
		kNever,      // it can never exist
		kForgotten   // too long ago; if it exists it is in the stream before `position`
	} kind;
	std::uint64_t position = 0;
};

struct InDoubt {
	std::optional<bool> operator_decision;  // true: commit
	std::optional<bool> decision;           // of the row here, if it has arrived; true: commit
	bool coordinator_lost = false;
	bool stream_complete =
		false;  // of a lost coordinator: all of it that survives has been applied here
	std::uint64_t applied = 0;  // position of the coordinator's stream here, read before `decision`
	bool lost_here = false;     // this region was declared lost: no stream comes here any more
	bool overdue = false;       // the coordinator has had its time
	std::optional<CoordinatorAnswer> answer;
};

InDoubtStep ResolveInDoubt(const InDoubt &state);

}  // namespace homing::core
