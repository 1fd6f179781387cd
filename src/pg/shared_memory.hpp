// Pieces of the server's shared memory, each with a lock of the same name.
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "storage/lwlock.h"
}

namespace homing::pg {

struct SharedPiece {
	const char *name;
	Size (*bytes)();  // called when the server's limits (max_connections …) are known
	// Called when the server has the memory. `fresh`: it is zeroed, to be filled in; else another process did that.
	void (*attach)(void *memory, LWLock *lock, bool fresh);
};

// From _PG_init, while shared_preload_libraries are loaded.
void AddSharedPiece(const SharedPiece &piece);

// Raises F0000 when the server has not loaded the library, so that there is none of it. A plain server call.
void RequireLoaded(bool loaded);

}  // namespace homing::pg
