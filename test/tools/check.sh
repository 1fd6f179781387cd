#!/usr/bin/env bash
# Runs the tests against the installed extension and tells how each part went.
# usage: check.sh [unit|sim|model|layers|format|regress|isolation|tap]...      without arguments: all of them
# TAP_TESTS="test/tap/001_….pl" narrows the part tap, REGRESS_TESTS="ddl copy" the part regress.
# SIM_SEEDS=N runs N seeds of the simulation, MODEL=long the model with wider bounds too.
# KEEP_LOGS=1 keeps the logs of a run in which all was well.
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${PG_CONFIG:?}"
unset MAKEFLAGS MFLAGS MAKELEVEL
. test/tools/unprivileged.sh

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(layers format unit sim model regress isolation tap)

part_unit()
{
	cmake_build && (cd build && ctest --output-on-failure --timeout 120)
}

# Half of the seeds each, side by side.
part_sim()
{
	local half=$(((${SIM_SEEDS:-2000} + 1) / 2)) first result
	cmake_build --target sim sim_test >/dev/null || return
	build/sim_test --gtest_brief=1 || return
	build/sim 1 $half 2>/dev/null &
	first=$!
	build/sim $((half + 1)) $half 2>/dev/null
	result=$?
	wait $first && [ $result -eq 0 ]
}

part_model()
{
	test/model/check.sh build/model ${MODEL:-}
}

part_layers()
{
	test/tools/layers.sh
}

part_format()
{
	test/tools/format.sh
}

# The temporary instance listens on a Unix socket only.
temporary_instance()
{
	local runner=$1 output=$2
	shift 2
	if ! unprivileged "$pg_test_dir/$runner" --bindir="$pg_bindir" --outputdir="$work_dir/$output" \
		--temp-instance="$work_dir/$output/instance" --temp-config="$work_dir/server.conf" \
		--no-locale --encoding=UTF8 "$@"; then
		[ ! -s "$work_dir/$output/regression.diffs" ] || head -n 400 "$work_dir/$output/regression.diffs"
		return 1
	fi
}

part_regress()
{
	local tests
	tests=${REGRESS_TESTS:-$(find sql -name '*.sql' 2>/dev/null | sed 's,^sql/,,; s,\.sql$,,' | LC_ALL=C sort)}
	[ -n "$tests" ] || { echo "no test in sql/"; return 0; }
	# shellcheck disable=SC2086
	temporary_instance regress/pg_regress regress --inputdir="$work_dir/tree" $tests
}

part_isolation()
{
	local tests
	tests=$(find test/isolation/specs -name '*.spec' 2>/dev/null | sed 's,.*/,,; s,\.spec$,,' | LC_ALL=C sort)
	[ -n "$tests" ] || { echo "no test in test/isolation/specs"; return 0; }
	# shellcheck disable=SC2086
	temporary_instance isolation/pg_isolation_regress isolation --load-extension=pg_homing \
		--inputdir="$work_dir/tree/test/isolation" $tests
}

part_tap()
{
	local tests=${TAP_TESTS:-$(find test/tap -name '*.pl' | LC_ALL=C sort)}
	[ -n "$tests" ] || { echo "no test in test/tap"; return 0; }
	# shellcheck disable=SC2086
	unprivileged env TESTDIR="$work_dir" TESTDATADIR="$work_dir/tap" TESTLOGDIR="$work_dir/log" \
		PG_REGRESS="$pg_test_dir/regress/pg_regress" \
		prove --failures --timer -I "$pg_test_dir/perl" -I test/tap $tests
}

results=()
failed=0
for part in "${parts[@]}"; do
	if ! declare -F "part_$part" >/dev/null; then
		echo "check: unknown part \"$part\"" >&2
		exit 2
	fi
	echo "=== $part"
	begin=$SECONDS
	case $part in
		regress | isolation | tap) make_work_dir ;;
		*) : ;;
	esac && "part_$part"
	if [ $? -eq 0 ]; then
		results+=("ok      $part ($((SECONDS - begin)) s)")
	else
		results+=("FAILED  $part ($((SECONDS - begin)) s)")
		failed=$((failed + 1))
	fi
done

echo "=== summary"
printf '%s\n' "${results[@]}"
if [ $failed -gt 0 ]; then
	[ -z "${work_dir:-}" ] || echo "logs are kept in $work_dir"
else
	[ -n "${KEEP_LOGS:-}" ] || remove_work_dir
fi
echo "$((${#parts[@]} - failed)) passed, $failed failed"
[ $failed -eq 0 ]
