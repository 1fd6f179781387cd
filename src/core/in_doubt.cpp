#include "core/in_doubt.hpp"

namespace homing::core {

InDoubtStep ResolveInDoubt(const InDoubt &state)
{
	if (state.decision)
		return *state.decision ? InDoubtStep::kCommit : InDoubtStep::kAbort;
	if (state.operator_decision)
		return *state.operator_decision ? InDoubtStep::kCommit : InDoubtStep::kAbort;
	// No row in all that survives: presumed abort, the same at every survivor. Whoever does not survive cannot know.
	if (state.coordinator_lost && state.lost_here)
		return InDoubtStep::kWait;
	if (state.coordinator_lost)
		return state.stream_complete ? InDoubtStep::kAbort : InDoubtStep::kWait;
	if (!state.overdue)
		return InDoubtStep::kWait;
	if (!state.answer)
		return InDoubtStep::kAsk;
	switch (state.answer->kind) {
	case CoordinatorAnswer::Kind::kCommitted:
		return state.lost_here ? InDoubtStep::kCommit : InDoubtStep::kWait;
	case CoordinatorAnswer::Kind::kNever:
		return InDoubtStep::kAbort;
	case CoordinatorAnswer::Kind::kForgotten:
		return state.applied >= state.answer->position ? InDoubtStep::kAbort : InDoubtStep::kWait;
	}
	return InDoubtStep::kWait;
}

}  // namespace homing::core
