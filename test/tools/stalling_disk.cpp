// Preloaded into a server (LD_PRELOAD), makes its disk stall: while there is a file "stalled" in the data directory,
// which is where all its processes work, nothing that they flush gets to the disk. As with a disk, a signal does not
// end the wait.
#include <dlfcn.h>
#include <unistd.h>

namespace {

using Flush = int (*)(int);

int FlushOnceAwake(const char *name, int file)
{
	constexpr int kLookEvery = 10'000;  // us
	while (access("stalled", F_OK) == 0)
		usleep(kLookEvery);
	return reinterpret_cast<Flush>(dlsym(RTLD_NEXT, name))(file);
}

}  // namespace

extern "C" {

int fsync(int file)
{
	return FlushOnceAwake("fsync", file);
}

int fdatasync(int file)
{
	return FlushOnceAwake("fdatasync", file);
}

}  // extern "C"
