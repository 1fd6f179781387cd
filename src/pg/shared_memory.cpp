#include "pg/shared_memory.hpp"

#include <vector>

extern "C" {
#include "storage/ipc.h"
#include "storage/shmem.h"
}

namespace homing::pg {

namespace {

std::vector<SharedPiece> *pieces = nullptr;
shmem_request_hook_type next_request = nullptr;
shmem_startup_hook_type next_startup = nullptr;

void Request()
{
	if (next_request != nullptr)
		next_request();
	for (const SharedPiece &piece : *pieces) {
		RequestAddinShmemSpace(MAXALIGN(piece.bytes()));
		RequestNamedLWLockTranche(piece.name, 1);
	}
}

void Start()
{
	if (next_startup != nullptr)
		next_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (const SharedPiece &piece : *pieces) {
		bool found;
		void *memory = ShmemInitStruct(piece.name, piece.bytes(), &found);
		if (!found)
			memset(memory, 0, piece.bytes());
		piece.attach(memory, &GetNamedLWLockTranche(piece.name)->lock, !found);
	}
	LWLockRelease(AddinShmemInitLock);
}

}  // namespace

void AddSharedPiece(const SharedPiece &piece)
{
	if (pieces == nullptr) {
		pieces = new std::vector<SharedPiece>;
		next_request = shmem_request_hook;
		shmem_request_hook = Request;
		next_startup = shmem_startup_hook;
		shmem_startup_hook = Start;
	}
	pieces->push_back(piece);
}

void RequireLoaded(bool loaded)
{
	if (!loaded)
		ereport(ERROR,
		        (errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("pg_homing is not loaded by the server"),
		         errhint("Add pg_homing to shared_preload_libraries and restart the server.")));
}

}  // namespace homing::pg
