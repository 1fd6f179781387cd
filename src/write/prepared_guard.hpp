// Keeps COMMIT PREPARED and ROLLBACK PREPARED, whoever types them, from splitting a transaction over several
// regions: a part is committed when the decision has arrived in its coordinator's stream, and not before.
#pragma once

namespace homing::write {

// Hook; from _PG_init.
void RegisterPreparedGuard();

}  // namespace homing::write
