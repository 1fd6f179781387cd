// sim [FIRST [COUNT]]: runs seeds FIRST .. FIRST+COUNT-1. A failure prints its seed and what was wrong.
#include "world.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv)
{
	using namespace homing::sim;
	const std::uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
	const std::uint64_t count = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000;
	// 0: no limit. A run that was cut short says so.
	const double limit_s = argc > 3 ? std::strtod(argv[3], nullptr) : 0;

	Outcome sum;
	const auto start = std::chrono::steady_clock::now();
	auto told = start;
	std::uint64_t done = 0;
	for (; done < count; ++done) {
		const Outcome outcome = World(PlanOf(first + done)).Run();
		if (!outcome.fault.empty()) {
			std::printf("seed %llu: %s\n", static_cast<unsigned long long>(first + done),
			            outcome.fault.c_str());
			return 1;
		}
		sum.writes += outcome.writes;
		sum.moves += outcome.moves;
		sum.losses += outcome.losses;
		sum.crashes += outcome.crashes;
		sum.copies += outcome.copies;
		const auto now = std::chrono::steady_clock::now();
		if (limit_s > 0 && std::chrono::duration<double>(now - start).count() > limit_s) {
			++done;
			break;
		}
		if (now - told > std::chrono::seconds(2)) {
			told = now;
			std::fprintf(stderr, "%llu seeds\n", static_cast<unsigned long long>(done + 1));
		}
	}
	std::printf(
		"%llu seeds without a fault: %lld writes, %lld hand-overs, %lld declarations, %lld crashes, %lld copies\n",
		static_cast<unsigned long long>(done), static_cast<long long>(sum.writes),
		static_cast<long long>(sum.moves), static_cast<long long>(sum.losses),
		static_cast<long long>(sum.crashes), static_cast<long long>(sum.copies));
	return 0;
}
