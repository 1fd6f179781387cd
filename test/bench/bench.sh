#!/usr/bin/env bash
# The figures of README, each against its baseline, measured side by side: the two take turns, round by
# round, so that whatever else the machine does hits both. Run it by `make bench`; results also go to
# build/bench.csv and build/bench.json.
#
# BENCH_ROUNDS (5 at least count), BENCH_SECONDS a round and side, BENCH_ONLY (a pattern of names).
set -uo pipefail
. test/tools/regions.sh
trap stop_everything EXIT
trap 'exit 130' INT TERM

rounds=${BENCH_ROUNDS:-7}
seconds=${BENCH_SECONDS:-5}
only=${BENCH_ONLY:-.}
rows=100000
results=$WORK_DIR/results

# Disks are not what is measured. Commits are flushed on both sides, as by default: a forwarded one always is.
SERVER_SETTINGS="
homing.probe_interval = 1s
fsync = off
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 30min
autovacuum = off
"

median()
{
	sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# pgbench_run UNIT CLIENTS CONNINFO: tps, or median latency of a transaction in ms, of one round.
pgbench_run()
{
	local unit=$1 clients=$2 conninfo=$3 output log=()
	rm -f "$WORK_DIR"/latency.*
	[ "$unit" = tps ] || log=(--log "--log-prefix=$WORK_DIR/latency")
	output=$(pgbench -n -M prepared -c "$clients" -T "$seconds" "${log[@]}" -f "$WORK_DIR/bench.sql" "$conninfo" 2>&1) ||
		die "pgbench failed: $output"
	grep -q '^number of failed transactions: 0 ' <<<"$output" || die "transactions failed: $output"
	case $unit in
		tps) sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$output" ;;
		ms) cat "$WORK_DIR"/latency.* | awk '{ print $3 / 1000 }' | median ;;
	esac
}

# keep_to_cpu CPUS: this script, so what it starts too, runs there from now on.
keep_to_cpu()
{
	taskset --cpu-list --pid "$1" $$ >/dev/null || exit
}

# compare NAME UNIT CLIENTS OURS BASELINE LIMIT: OURS and BASELINE are "conninfo|script"; LIMIT is the
# target for ours / baseline, such as ">= 0.97". Each round begins with the other side.
compare()
{
	local name=$1 unit=$2 clients=$3 limit=$6 side round order value
	local -A target=([ours]=$4 [baseline]=$5) values=([ours]="" [baseline]="")
	[[ $name =~ $only ]] || return 0
	for ((round = 0; round <= rounds; round++)); do
		order="ours baseline"
		[ $((round % 2)) -eq 0 ] || order="baseline ours"
		for side in $order; do
			echo "${target[$side]#*|}" >"$WORK_DIR/bench.sql"
			value=$(pgbench_run "$unit" "$clients" "${target[$side]%%|*}") || exit
			# The first round warms up.
			[ $round -eq 0 ] || values[$side]+="$value "
		done
		[ ! -t 2 ] || printf '\r   %s: round %d of %d ' "$name" "$round" "$rounds" >&2
	done
	[ ! -t 2 ] || printf '\r%-70s\r' '' >&2
	report "$name" "$unit" "$limit" "${values[ours]}" "${values[baseline]}"
}

# interval OURS BASELINE: where the median of the ratios of the rounds is with a probability of nine in ten at least,
# whatever their distribution. It is not the ratio of the medians, which `report` prints. Nothing for less than ten rounds.
interval()
{
	paste -d ' ' <(tr ' ' '\n' <<<"${1% }") <(tr ' ' '\n' <<<"${2% }") | awk '{ print $1 / $2 }' | sort -n |
		awk '{ ratio[NR] = $1 } END { low = int(NR / 2 + 0.5 - 0.82 * sqrt(NR)); if (NR >= 10) printf "%.3f to %.3f", ratio[low], ratio[NR + 1 - low] }'
}

# report NAME UNIT LIMIT OURS BASELINE: the medians of lists of values.
report()
{
	local name=$1 unit=$2 limit=$3 ours baseline
	ours=$(tr ' ' '\n' <<<"${4% }" | median)
	baseline=$(tr ' ' '\n' <<<"${5% }" | median)
	awk -v name="$name" -v unit="$unit" -v ours="$ours" -v baseline="$baseline" -v limit="$limit" -v interval="$(interval "$4" "$5")" '
		BEGIN {
			split(limit, part, " ")
			ratio = ours / baseline
			met = part[1] == ">=" ? ratio >= part[2] : ratio <= part[2]
			printf "   %-34s %10.4g %10.4g %-4s %7.3f   %-8s %-8s %s\n", name, ours, baseline, unit, ratio, limit, met ? "met" : "MISSED", interval
		}'
	printf '%s|%s|%s|%s|%s|%s|%s\n' "$name" "$unit" "$ours" "$baseline" "$limit" "${4% }" "${5% }" >>"$results"
}

# compare_trips NAME LIMIT OURS BASELINE: round trips of a transaction. They are what its latency grows by when the
# round trip grows, whatever else it consists of: measured at 20 and 80 ms. LIMIT is for ours.
compare_trips()
{
	local name=$1 limit=$2 side rtt round value
	local rounds=$((rounds < 3 ? rounds : 3))  # the link decides, not the load of the machine
	local -A target=([ours]=$3 [baseline]=$4) values=() latency=()
	[[ $name =~ $only ]] || return 0
	for rtt in 20 80; do
		wan delay '*' "$(awk "BEGIN { print $rtt / 2 }")" || exit
		for ((round = 0; round <= rounds; round++)); do
			for side in ours baseline; do
				echo "${target[$side]#*|}" >"$WORK_DIR/bench.sql"
				value=$(pgbench_run ms 1 "${target[$side]%%|*}") || exit
				[ $round -eq 0 ] || values[$side$rtt]+="$value "
			done
		done
		for side in ours baseline; do
			latency[$side$rtt]=$(tr ' ' '\n' <<<"${values[$side$rtt]% }" | median)
		done
	done
	local ours baseline
	ours=$(awk "BEGIN { printf \"%.2f\", (${latency[ours80]} - ${latency[ours20]}) / 60 }")
	baseline=$(awk "BEGIN { printf \"%.2f\", (${latency[baseline80]} - ${latency[baseline20]}) / 60 }")
	awk -v name="$name" -v ours="$ours" -v baseline="$baseline" -v limit="$limit" 'BEGIN {
		printf "   %-34s %10s %10s %-4s %7.3f   <= %-5s %s\n", name, ours, baseline, "RTT", ours / baseline, limit, ours <= limit + 0.1 ? "met" : "MISSED" }'
	printf '%s|round trips|%s|%s|<= %s|%s|%s\n' "$name" "$ours" "$baseline" "$limit" "$ours" "$baseline" >>"$results"
}

# milliseconds COMMAND...: how long it takes.
milliseconds()
{
	local start=${EPOCHREALTIME/./}
	"$@" || die "failed: $*"
	echo $(((${EPOCHREALTIME/./} - start) / 1000))
}

# The rows of $WORK_DIR/copy.all: in one COPY at us, or each third at its home, one after the other.
copy_routed()
{
	psql -X -q -v ON_ERROR_STOP=1 -d "$(beside us)" -c "\\copy copied FROM '$WORK_DIR/copy.all'"
}
copy_thirds()
{
	local region
	for region in us eu ap; do
		psql -X -q -v ON_ERROR_STOP=1 -d "$(over_wan "$region")" -c "\\copy copied FROM '$WORK_DIR/copy.$region'" || return
	done
}

# compare_copy NAME LIMIT: every round in empty tables, and after the regions have applied the last.
compare_copy()
{
	local name=$1 limit=$2 rounds=$((rounds < 3 ? rounds : 3)) round order side value region  # each takes long
	local -A values=([ours]="" [baseline]="")
	for ((round = 1; round <= rounds; round++)); do
		order="ours baseline"
		[ $((round % 2)) -eq 0 ] || order="baseline ours"
		for side in $order; do
			at us -c 'TRUNCATE copied' || exit
			converge us eu ap
			case $side in
				ours) value=$(milliseconds copy_routed) || exit ;;
				baseline) value=$(milliseconds copy_thirds) || exit ;;
			esac
			# Parts of a transaction over regions may commit after it has returned.
			for region in us eu ap; do
				await "$region" "SELECT count(*) = $copy_rows FROM copied"
			done
			values[$side]+="$value "
		done
	done
	report "$name" ms "$limit" "${values[ours]}" "${values[baseline]}"
}

heading()
{
	printf '\n%s\n   %-34s %10s %10s %-4s %7s   %-17s %s\n' "$1" '' pg_homing baseline '' ratio target 'median of the ratios of rounds'
}

write_results()
{
	awk -F '|' -v csv="$WORK_DIR/out/bench.csv" -v json="$WORK_DIR/out/bench.json" '
		function list(text) { gsub(/ /, ", ", text); return "[" text "]" }
		BEGIN { print "name,unit,pg_homing,baseline,ratio,target" >csv; printf "[" >json }
		{
			printf "%s,%s,%s,%s,%.4f,%s\n", $1, $2, $3, $4, $3 / $4, $5 >csv
			printf "%s\n  {\"name\": \"%s\", \"unit\": \"%s\", \"pg_homing\": %s, \"baseline\": %s, \"ratio\": %.4f, \"target\": \"%s\", \"pg_homing_rounds\": %s, \"baseline_rounds\": %s}", (NR > 1 ? "," : ""), $1, $2, $3, $4, $3 / $4, $5, list($6), list($7) >json
		}
		END { print "\n]" >json }' "$results"
}

create_accounts='CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler text NOT NULL DEFAULT repeat($$x$$, 80)) WITH (fillfactor = 50)'

# fill REGION TABLE
fill()
{
	at "$1" -c "INSERT INTO $2 SELECT i FROM generate_series(1, $rows) i" -c "VACUUM (FREEZE, ANALYZE) $2" || exit
	[ "$(ask "$1" "SELECT count(*) FROM $2")" = "$rows" ] || die "table $2 is not filled at $1"
}

update="\\set id random(1, $rows)
UPDATE accounts SET balance = balance + 1 WHERE id = :id;"

direct()
{
	echo "host=127.0.0.1 port=${server_port[$1]} user=postgres dbname=$database"
}
beside()
{
	echo "host=$WORK_DIR port=${server_port[$1]} user=postgres dbname=$database"
}

echo "pg_homing bench: $rounds rounds of $seconds s for each side, taking turns; medians; UPDATE by key of $rows rows, prepared"
start_wan_and_servers 20 us eu ap alone

# postgres_fdw is tried in a server without the extension.
pg_ctl --pgdata="$WORK_DIR/alone" --silent --mode=fast stop
sed -i "s/^shared_preload_libraries.*/shared_preload_libraries = ''/; /^homing\\./d" "$WORK_DIR/alone/postgresql.conf"
start_server alone </dev/null
at alone -c "$create_accounts" && fill alone accounts

# At home: a cluster of one region, so that no replication runs beside either side.
names=(us)
form_cluster
at us -c "$create_accounts" -o /dev/null -c "SELECT homing.home_table('accounts', 'id')" || exit
fill us accounts
# The two differ by hundredths, as two servers do by what is where in their memory and files. So it is one server and one
# table, started with the library and without it in turns. Where the scheduler puts a client and its backend makes more
# than that, too: each on a CPU of its own, or both on one.
all_cpus=$(awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status)
server_cpu=${all_cpus%%[-,]*} client_cpu=${all_cpus##*[-,]}

# restart_us SIDE: "ours" with the extension, "baseline" without it. Then every page of the table has been written once.
restart_us()
{
	local side=$1 settings=$WORK_DIR/us/postgresql.auto.conf
	pg_ctl --pgdata="$WORK_DIR/us" --silent --mode=fast stop || exit
	sed -i '/^shared_preload_libraries/d' "$settings"
	[ "$side" = ours ] || echo "shared_preload_libraries = ''" >>"$settings"
	start_server us </dev/null
	[ "$side" = ours ] || at us -c 'ALTER TABLE accounts DISABLE TRIGGER homing_guard' || exit
	pgbench_run tps 8 "$(beside us)" >/dev/null || exit
}

home_names=("at home, 1 client" "at home, 1 client, same CPU" "at home, 8 clients" "at home, 8 clients, same CPU")
compare_at_home()
{
	local round order side row value rounds=$((rounds * 2)) seconds=2
	local -A values=()
	echo "$update" >"$WORK_DIR/bench.sql"
	for ((round = 1; round <= rounds; round++)); do
		order="ours baseline"
		[ $((round % 2)) -eq 0 ] || order="baseline ours"
		for side in $order; do
			keep_to_cpu "$server_cpu"
			restart_us "$side"
			for row in "${home_names[@]}"; do
				[[ $row == *"same CPU" ]] || keep_to_cpu "$client_cpu"
				value=$(pgbench_run tps "$(sed 's/[^0-9]//g' <<<"$row")" "$(beside us)") || exit
				values[$row $side]+="$value "
				keep_to_cpu "$server_cpu"
			done
			[ "$side" = ours ] || at us -c 'ALTER TABLE accounts ENABLE ALWAYS TRIGGER homing_guard' || exit
		done
		[ ! -t 2 ] || printf '\r   at home: round %d of %d ' "$round" "$rounds" >&2
	done
	[ ! -t 2 ] || printf '\r%-70s\r' '' >&2
	keep_to_cpu "$all_cpus"
	restart_us ours
	for row in "${home_names[@]}"; do
		report "$row" tps ">= 0.97" "${values[$row ours]}" "${values[$row baseline]}"
	done
}
if [[ "${home_names[*]}" =~ $only ]]; then
	heading "single-row UPDATE at its home, against the same table in the same server without the extension"
	compare_at_home
fi

# Forwarded: a table whose only home is eu, written from us.
at eu -c 'CREATE EXTENSION pg_homing'
at eu -o /dev/null -c "SELECT homing.join_cluster('eu', '$(over_wan eu)', via => '$(over_wan us)')" || exit
at us -c "${create_accounts/TABLE accounts/TABLE remote_accounts}"
at us -o /dev/null -c "SELECT homing.home_table('remote_accounts', 'id', placement => 'region', region => 'eu')" || exit
fill eu remote_accounts
converge us eu
remote_update=${update//accounts/remote_accounts}
heading "forwarded autocommit UPDATE, against a client connected directly to the home over the same link"
for rtt in 20 80; do
	wan delay '*' "$(awk "BEGIN { print $rtt / 2 }")" || exit
	compare "forwarded, RTT $rtt ms, 1 client" ms 1 "$(beside us)|$remote_update" "$(over_wan eu)|$remote_update" "<= 1.03"
done

# postgres_fdw does the same work on an ordinary table; it commits at each server by itself, so that a failure in
# between leaves half of the transaction.
at eu -c "${create_accounts/TABLE accounts/TABLE plain_accounts}" && fill eu plain_accounts
at alone -c 'CREATE EXTENSION postgres_fdw' -c "CREATE SERVER eu FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '${link_port[eu]}', dbname '$database')" \
	-c "CREATE USER MAPPING FOR CURRENT_USER SERVER eu OPTIONS (user 'postgres')" -c 'IMPORT FOREIGN SCHEMA public LIMIT TO (plain_accounts) FROM SERVER eu INTO public' || exit
at alone -c 'ALTER FOREIGN TABLE plain_accounts RENAME TO remote_accounts' || exit
one_remote="UPDATE remote_accounts SET balance = balance + 1 WHERE id = :id;"
heading "round trips of a transaction block, against postgres_fdw"
block="\\set id random(1, $rows)
BEGIN;
$one_remote
$one_remote
$one_remote
$one_remote
$one_remote
COMMIT;"
compare_trips "5 UPDATEs at another region" 6 "$(beside us)|$block" "$(beside alone)|$block"
block="\\set id random(1, $rows)
BEGIN;
UPDATE accounts SET balance = balance + 1 WHERE id = :id;
$one_remote
COMMIT;"
compare_trips "one UPDATE here, one there" 2 "$(beside us)|$block" "$(beside alone)|$block"

# The same 1,000 rows again and again: what is measured is how they travel and are written, in one round trip.
wan delay '*' 10 || exit
insert="INSERT INTO remote_accounts (id) VALUES $(seq -s ', ' -f '(%g)' 1 1000) ON CONFLICT (id) DO UPDATE SET balance = remote_accounts.balance + 1;"
heading "1,000-row INSERT forwarded, against the same INSERT on a direct connection over the same link"
compare "INSERT of 1,000 rows, RTT 20 ms" ms 1 "$(beside us)|$insert" "$(over_wan eu)|$insert" "<= 1.2"

# The proxy would be the bottleneck of both sides: it is taken out.
at us -c "ALTER SERVER eu OPTIONS (SET port '${server_port[eu]}')" || exit
wan delay '*' 0
heading "forwarded UPDATE throughput, against direct connections"
compare "forwarded, RTT 0, 8 clients" tps 8 "$(beside us)|$remote_update" "$(direct eu)|$remote_update" ">= 0.45"

# Three homes: a third region joins. The baseline writes the same homed table, a client at the home of each third.
if [[ "COPY of 1 M rows, RTT 20 ms" =~ $only ]]; then
	copy_rows=${BENCH_COPY_ROWS:-1000000}
	at us -c "ALTER SERVER eu OPTIONS (SET port '${link_port[eu]}')" || exit
	at ap -c 'CREATE EXTENSION pg_homing'
	at ap -o /dev/null -c "SELECT homing.join_cluster('ap', '$(over_wan ap)', via => '$(over_wan us)')" || exit
	at us -c 'CREATE TABLE copied (id int PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL)' \
		-o /dev/null -c "SELECT homing.home_table('copied', 'id')" || exit
	converge us eu ap
	at us -c "\\copy (SELECT i, i * 7, md5(i::text) FROM generate_series(1, $copy_rows) i) TO '$WORK_DIR/copy.all'" || exit
	for region in us eu ap; do
		at us -c "\\copy (SELECT i, i * 7, md5(i::text) FROM generate_series(1, $copy_rows) i WHERE homing.home_of('copied', i) = '$region') TO '$WORK_DIR/copy.$region'" || exit
	done
	wan delay '*' 10 || exit
	heading "COPY of $copy_rows rows over three homes, against a COPY of each third at its home over the same link, in sequence"
	compare_copy "COPY of 1 M rows, RTT 20 ms" "<= 1.1"
fi

wan delay '*' 0
converge us eu
[ "$(ask us 'SELECT sum(balance) FROM remote_accounts')" = "$(ask eu 'SELECT sum(balance) FROM remote_accounts')" ] ||
	die "the regions differ after the bench"
[ ! -s "$results" ] || write_results
. test/bench/rehome.sh
write_results
echo
echo "written to build/bench.csv and build/bench.json"
