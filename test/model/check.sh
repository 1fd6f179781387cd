#!/usr/bin/env bash
# Checks the model exhaustively within these bounds, and that it finds each error that can be planted in it.
# usage: check.sh PROGRAM [long]
#
# states and memory, measured: 3 2 2 2 1: 2,663,940, 260 MB; 3 2 2 1 2: 1,418,115;
# long, also 3 1 3 2 2: 2,466,060; 4 1 2 1 2: 2,885,904; 4 1 3 2 1: 7,331,022; 3 2 3 2 1: 12,196,055, about 1.2 GB.
set -u
program=$1
failed=0

expect() # WHAT ARGUMENT...
{
	local what=$1 output
	shift
	output=$("$program" "$@")
	if [ "${output%% *}" = "$what" ]; then
		echo "ok      $* : ${output%%$'\n'*}"
	else
		echo "FAILED  $* : not $what but"
		echo "$output"
		failed=1
	fi
}

# REGIONS HOMES WRITES RELEASES FAULTS
expect OK: 3 2 2 2 1
expect OK: 3 2 2 1 2
for bug in serve_before_acceptance no_barrier vote_early no_lease no_fence no_relay own_position skip_survivors \
	depend_on_taken_only; do
	expect VIOLATION 3 2 2 2 1 $bug
done
expect VIOLATION 4 1 2 1 2 skip_after_lease
if [ "${2:-}" = long ]; then
	expect OK: 3 1 3 2 2
	expect OK: 4 1 2 1 2
	expect OK: 4 1 3 2 1
	expect OK: 3 2 3 2 1
	expect VIOLATION 5 1 1 1 2 one_tail
fi
exit $failed
