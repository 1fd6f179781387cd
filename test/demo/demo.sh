#!/usr/bin/env bash
# Three regions on this machine, 40 ms apart: where keys live, what a forwarded write costs, and what
# happens when a region dies. Run it by `make demo`; the exit status tells success.
set -uo pipefail
. test/tools/regions.sh
trap stop_everything EXIT
trap 'exit 130' INT TERM

rtt=40
accounts=100000
seconds=${DEMO_SECONDS:-8}
passed=0 failed=0

title()
{
	printf '\n== %s\n' "$*"
}

say()
{
	printf '   %s\n' "$*"
}

indent()
{
	sed -u 's/^/   /'
}

check()
{
	local what=$1 got=$2 wanted=$3
	if [ "$got" = "$wanted" ]; then
		passed=$((passed + 1))
		say "✓ $what"
	else
		failed=$((failed + 1))
		say "✗ $what: expected $wanted, got $got"
	fi
}

# A key whose home is the region.
key_of()
{
	ask us "SELECT aid FROM pgbench_accounts WHERE homing.home_of('pgbench_accounts', aid) = '$1' ORDER BY aid LIMIT 1"
}

# The same value from each region, or all of them when they differ.
in_each()
{
	local query=$1 region
	shift
	for region in "$@"; do
		ask "$region" "$query"
	done | sort -u | paste -s -d ' '
}

bench_at()
{
	local region=$1
	shift
	pgbench -h "$WORK_DIR" -p "${server_port[$region]}" -U postgres -n "$@" "$database"
}

# latency REGION KEY: median ms of an autocommit UPDATE in one session there. The first one connects.
latency()
{
	{
		echo '\timing on'
		for _ in {1..26}; do
			echo "UPDATE pgbench_accounts SET abalance = abalance WHERE aid = $2;"
		done
	} | at "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n 25 | sort -g | sed -n 13p
}

# A protocol for each region, so that all are seen to work.
mode_of()
{
	case $1 in us) echo prepared ;; eu) echo extended ;; *) echo simple ;; esac
}

# load SECONDS REGION...: pgbench in each of these regions at the same time, keys of all homes.
# Sets transactions (their number) and errors.
load()
{
	local duration=$1 region pids=() pid status=0 done_here failed_here
	shift
	cat >"$WORK_DIR/load.sql" <<-'END'
		\set aid random(1, 100000)
		UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
	END
	for region in "$@"; do
		{ bench_at "$region" -M "$(mode_of "$region")" -c 4 -T "$duration" -P 2 -f "$WORK_DIR/load.sql" \
			2>&1 >"$WORK_DIR/load.$region" | sed -u "s/^/   $region: /"; } &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	transactions=0 errors=$status
	for region in "$@"; do
		done_here=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$WORK_DIR/load.$region")
		failed_here=$(sed -n 's/^number of failed transactions: \([0-9]*\).*/\1/p' "$WORK_DIR/load.$region")
		transactions=$((transactions + ${done_here:-0}))
		errors=$((errors + ${failed_here:-1}))
	done
}

# The number of lines in which the accounts of two regions differ.
rows_that_differ()
{
	local copy='COPY (SELECT * FROM pgbench_accounts ORDER BY aid) TO STDOUT'
	diff --speed-large-files <(at "$1" -c "$copy") <(at "$2" -c "$copy") | grep -c '^[<>]'
}

where_keys_live()
{
	at "$1" -c "SELECT homing.home_of('pgbench_accounts', aid) AS region, count(*) AS accounts FROM pgbench_accounts GROUP BY 1 ORDER BY 1" | indent
}

title "Three servers, one for each region, $rtt ms apart"
start_wan_and_servers $rtt us eu ap
for region in us eu ap; do
	say "$region: port ${server_port[$region]}, reached by the others through the WAN proxy on port ${link_port[$region]}"
done
say "create_cluster at us, join_cluster at eu and ap …"
form_cluster
say "one cluster"

title "pgbench's accounts, homed by aid"
pgbench -h "$WORK_DIR" -p "${server_port[us]}" -U postgres -q -i -s 1 "$database" >"$WORK_DIR/init.log" 2>&1 ||
	die "pgbench -i failed: $(cat "$WORK_DIR/init.log")"
say "home_table at us creates the table at eu and ap and brings them $accounts rows …"
at us -o /dev/null -c "SELECT homing.home_table('pgbench_accounts', 'aid')" || die "home_table failed"
converge us eu ap
where_keys_live eu
check "every region has all accounts" "$(in_each 'SELECT count(*) FROM pgbench_accounts' us eu ap)" $accounts

title "A write finds its home"
us_key=$(key_of us) eu_key=$(key_of eu) ap_key=$(key_of ap)
say "account $eu_key lives at eu; at us:"
at us -c "EXPLAIN (VERBOSE, COSTS OFF) UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $eu_key" | indent
local_ms=$(latency us "$us_key")
forwarded_ms=$(latency us "$eu_key")
say "one client at us, autocommit UPDATE by key, median of 25:"
say "  home here  (account $us_key)   $local_ms ms"
say "  home at eu (account $eu_key)   $forwarded_ms ms = $(awk "BEGIN { printf \"%.2f\", $forwarded_ms / $rtt }") round trips"
check "a forwarded write takes one round trip" "$(awk "BEGIN { print ($forwarded_ms < 1.9 * $rtt) }")" 1

title "All regions write at once, for $seconds seconds, keys of every home"
load "$seconds" us eu ap
say "$transactions transactions, $errors errors"
check "no transaction failed" "$errors" 0
converge us eu ap
check "every write counts exactly once, in every region" \
	"$(in_each 'SELECT sum(abalance) FROM pgbench_accounts' us eu ap)" "$transactions"
check "us and eu are the same row by row" "$(rows_that_differ us eu)" 0
check "us and ap are the same row by row" "$(rows_that_differ us ap)" 0

title "ap dies"
killed=$(date +%s.%N)
kill_server ap
say "kill -9 to the server of ap and all its processes"
say "a write to account $ap_key (home: ap), at us:"
at us -c "SET homing.connect_timeout = '2s'" \
	-c "UPDATE pgbench_accounts SET abalance = abalance WHERE aid = $ap_key" 2>&1 | indent | indent
at us -c "UPDATE pgbench_accounts SET abalance = abalance WHERE aid = $eu_key" || die "a write to eu fails"
say "a write to account $eu_key (home: eu) goes on"
declared=$(date +%s.%N)
at us -o /dev/null -c "SELECT homing.declare_lost('ap', force => true, reason => 'killed by the demo')" ||
	die "declare_lost failed"
end=$((SECONDS + 30))
until at us -c "UPDATE pgbench_accounts SET abalance = abalance WHERE aid = $ap_key" 2>"$WORK_DIR/first_write.err"; do
	[ $SECONDS -lt $end ] || die "the homes of ap have no owner: $(cat "$WORK_DIR/first_write.err")"
	sleep 0.05
done
written=$(date +%s.%N)
say "declare_lost at us; the first write to a key of ap succeeded $(awk "BEGIN { printf \"%.2f\", $written - $declared }") s later, $(awk "BEGIN { printf \"%.2f\", $written - $killed }") s after the kill"
at eu -c "SELECT name, status, epoch, homes FROM homing.regions" | indent
where_keys_live eu

title "The survivors go on, for $((seconds / 2)) seconds"
before=$(ask us 'SELECT sum(abalance) FROM pgbench_accounts')
load $((seconds / 2)) us eu
say "$transactions transactions, $errors errors"
check "no transaction failed" "$errors" 0
converge us eu
check "every write counts exactly once" \
	"$(in_each 'SELECT sum(abalance) FROM pgbench_accounts' us eu)" "$((before + transactions))"
check "us and eu are the same row by row" "$(rows_that_differ us eu)" 0

title "ap comes back, unaware"
start_server ap </dev/null
await ap "SELECT fenced IS NOT NULL FROM homing.local_region"
check "it fences itself: SQLSTATE of a write" \
	"$(at ap -v VERBOSITY=sqlstate -c "UPDATE pgbench_accounts SET abalance = 0 WHERE aid = $ap_key" 2>&1 | sed -n 's/^ERROR:  //p')" 25006
check "it can still be read" "$(ask ap 'SELECT count(*) FROM pgbench_accounts')" $accounts

title "$passed checks passed, $failed failed"
[ $failed -eq 0 ]
