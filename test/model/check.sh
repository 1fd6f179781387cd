#!/usr/bin/env bash
# Checks the model, homing.pml, with Spin: exhaustively within the bounds below, and that it finds each error
# that can be planted in it. For such an error it prints the shortest way that leads to a violation. Takes a
# minute and 3 GB; long: some more minutes, 5 GB.
# usage: check.sh DIRECTORY [long]     DIRECTORY: for what Spin and the compiler make
set -u
model=$(cd "$(dirname "$0")" && pwd)/homing.pml
source=$(dirname "$model")/../../src
mkdir -p "$1" && cd "$1" || exit
failed=0
memory=3000  # MB, of one run

for tool in spin gcc; do
	command -v $tool >/dev/null || { echo "model: there is no $tool: make deps installs it" >&2; exit 1; }
done

# The verifier for these bounds in a directory of its own, which becomes the current one.
# bounds: REGIONS HOMES WRITES RELEASES FAULTS [MAY_FAIL]
build() # NAME BOUNDS BUG COMPILER_OPTION...
{
	local directory=$1 bounds=$2 bug=$3 names=(REGIONS HOMES WRITES RELEASES FAULTS MAY_FAIL) n=0 value
	shift 3
	macros=()
	for value in $bounds; do
		macros+=("-D${names[n]}=$value")
		n=$((n + 1))
	done
	[ -z "$bug" ] || macros+=("-D$bug")
	rm -rf "$directory" && mkdir "$directory" && cd "$directory" || return
	spin "${macros[@]}" -a "$model" >spin.log 2>&1 &&
		gcc -w "$@" -DSAFETY -DNOREDUCE -DMEMLIM=$memory -o pan pan.c >gcc.log 2>&1 ||
		{ cat spin.log gcc.log 2>/dev/null; return 1; }
}

# A number of what the verifier printed.
field() # BEFORE AFTER
{
	sed -n "s/^\(.*[^0-9.]\)\{0,1\}$1\([0-9][0-9]*\)[.0-9]*$2.*/\2/p" pan.log | head -n 1
}

show_way()
{
	spin "${macros[@]}" -t -T -k "$(basename "$model").trail" "$model" | sed 's/^/        /; /VIOLATION/q'
}

# Every state is visited: the search comes to its end, with room for every state and for the longest way.
expect_ok() # BOUNDS
{
	local name=ok-${1// /-} begin=$SECONDS
	(
		build "$name" "$1" "" -O2 || exit
		./pan -m10000 -n -w25 >pan.log 2>&1
		if [ "$(field 'errors: ' '')" = 0 ] &&
			! grep -Eq 'not completed|too small|out of memory|truncated|max.* reached' pan.log; then
			echo "ok      $1: $(field '' ' states, stored') states, depth $(field 'depth reached ' '')," \
				"$(field '' '[[:space:]]*total actual memory usage') MB, $((SECONDS - begin)) s"
		else
			echo "FAILED  $1"
			head -n 40 pan.log
			show_way
			exit 1
		fi
	) || failed=1
	rm -f "$name/pan"
}

# The shortest way, or, where there are too many states, one of at most DEPTH steps.
expect_violation() # BUG BOUNDS [DEPTH]
{
	local search=-DBFS
	[ -z "${3:-}" ] || search=-DREACH
	(
		build "$1" "$2" "$1" -O1 $search || exit
		./pan -w24 ${3:+-m$3} >pan.log 2>&1
		if [ "$(field 'errors: ' '')" = 1 ]; then
			show_way >way
			# One of the properties, not a bound.
			if grep -q 'VIOLATION P' way; then
				echo "ok      $2 $1: found after $(field '' ' states, stored') states"
				cat way
				exit 0
			fi
			cat way
		fi
		echo "FAILED  $2 $1: not found"
		head -n 40 pan.log
		exit 1
	) || failed=1
}

# What the model says does an action must be there.
for name in $(sed '/\*\//q' "$model" | grep -oE '(homing\.|core::|pg::)[A-Za-z_:]+' | sed 's/.*[.:]//' | sort -u); do
	grep -rqw "$name" "$source" || { echo "FAILED  there is no $name in src"; failed=1; }
done

# REGIONS HOMES WRITES RELEASES FAULTS [which regions may fail, as a set: 3 is A and B]
{
	expect_ok "3 2 2 2 1"
	expect_ok "3 2 2 1 2"
	[ $failed = 0 ]
} &
proof=$!
expect_violation skip_after_lease "4 1 2 1 2 5"
expect_violation one_tail "4 1 2 0 2 3"
for bug in serve_before_acceptance no_barrier vote_early no_lease no_fence no_relay own_position skip_survivors \
	depend_on_taken_only; do
	expect_violation $bug "3 2 2 2 1"
done
wait $proof || failed=1
if [ "${2:-}" = long ]; then
	memory=5000
	expect_ok "3 2 3 2 1"
	expect_ok "4 1 3 2 1"
	expect_ok "4 1 1 1 2 3"
	expect_ok "4 1 1 1 2 5"
	# Too large to be gone through without the error: 26 million states have been, and hold.
	expect_violation no_recount "5 1 0 0 3 25" 40
fi
exit $failed
