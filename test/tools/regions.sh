# Sourced by demo and bench, which with_servers.sh runs: servers on this machine, and the WAN between them.
#
#   start_wan_and_servers RTT_MS NAME...   one server each, reached by the others over a link of its own
#   form_cluster                           makes them regions of one cluster
#   at NAME [PSQL OPTION...]               psql at that region
#   wan COMMAND...                         talks to the WAN proxy
#   converge NAME...                       waits until these regions have applied each other's commits
#   stop_everything                        for a trap
#
# Everything listens on 127.0.0.1 and on Unix sockets in $WORK_DIR only.

database=app
pg_ctl_options=()
declare -A server_port link_port postmaster
wan_pid=

die()
{
	echo "$*" >&2
	exit 1
}

# Distinct TCP ports that are free now.
free_ports()
{
	perl -MIO::Socket::INET -e '
		my @all = map { IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die "no free port: $!" } 1 .. $ARGV[0];
		print join(" ", map { $_->sockport } @all), "\n";' "$1"
}

# start_server NAME: its settings are server.conf and standard input.
start_server()
{
	local name=$1 data=$WORK_DIR/$1
	if [ ! -e "$data" ]; then
		initdb --pgdata="$data" --auth=trust --username=postgres --encoding=UTF8 --no-locale \
			>"$WORK_DIR/$name.log" 2>&1 || die "initdb for $name failed: $(tail -n 5 "$WORK_DIR/$name.log")"
		{
			cat "$HOMING_SERVER_CONF" -
			echo "listen_addresses = '127.0.0.1'"
			echo "port = ${server_port[$name]}"
			echo "unix_socket_directories = '$WORK_DIR'"
			echo "cluster_name = '$name'"
		} >>"$data/postgresql.conf"
	fi
	pg_ctl "${pg_ctl_options[@]}" --pgdata="$data" --log="$WORK_DIR/$name.log" --silent --wait --timeout=60 start 2>>"$WORK_DIR/$name.log" ||
		die "server $name does not start: $(tail -n 5 "$WORK_DIR/$name.log")"
	postmaster[$name]=$(head -n 1 "$data/postmaster.pid")
}

start_wan()
{
	local rtt=$1 name links=()
	shift
	for name in "$@"; do
		links+=("$name,$(awk "BEGIN { print $rtt / 2 }"),${link_port[$name]},${server_port[$name]}")
	done
	mkfifo "$WORK_DIR/wan.ready"
	"$WAN_PROXY" --control "$WORK_DIR/wan" "${links[@]}" >"$WORK_DIR/wan.ready" 2>"$WORK_DIR/wan.log" &
	wan_pid=$!
	local word=
	read -r -t 10 word <"$WORK_DIR/wan.ready"
	[ "$word" = ready ] || die "the WAN proxy does not start: $(cat "$WORK_DIR/wan.log")"
}

start_wan_and_servers()
{
	local rtt=$1 name ports
	shift
	read -r -a ports < <(free_ports $((2 * $#)))
	local i=0
	for name in "$@"; do
		server_port[$name]=${ports[i]}
		link_port[$name]=${ports[i + 1]}
		i=$((i + 2))
	done
	for name in "$@"; do
		start_server "$name" <<<"${SERVER_SETTINGS:-}"
		psql -X -q -h "$WORK_DIR" -p "${server_port[$name]}" -U postgres -d postgres -c "CREATE DATABASE $database" || exit
	done
	start_wan "$rtt" "$@"
	names=("$@")
}

at()
{
	local name=$1
	shift
	psql -X -q -v ON_ERROR_STOP=1 -h "$WORK_DIR" -p "${server_port[$name]}" -U postgres -d "$database" "$@"
}

# The value of a query.
ask()
{
	at "$1" -A -t -c "$2"
}

# How the other regions reach this one.
over_wan()
{
	echo "host=127.0.0.1 port=${link_port[$1]} user=postgres dbname=$database"
}

form_cluster()
{
	local first=${names[0]} name
	for name in "${names[@]}"; do
		at "$name" -c 'CREATE EXTENSION pg_homing' || exit
	done
	at "$first" -o /dev/null -c "SELECT homing.create_cluster('$first', '$(over_wan "$first")')" || exit
	for name in "${names[@]:1}"; do
		at "$name" -o /dev/null -c \
			"SELECT homing.join_cluster('$name', '$(over_wan "$name")', via => '$(over_wan "$first")')" || exit
	done
}

wan()
{
	perl -MIO::Socket::UNIX -e '
		my $socket = IO::Socket::UNIX->new(Peer => shift) or die "WAN proxy: $!\n";
		print $socket "@ARGV\n";
		while (<$socket>) { last if /^ok$/; die "WAN proxy: $_" if /^error/; print }' "$WORK_DIR/wan" "$@"
}

# Until a query answers "t"; at most 120 seconds.
await()
{
	local name=$1 query=$2 end=$((SECONDS + 120))
	until [ "$(ask "$name" "$query")" = t ]; do
		[ $SECONDS -lt $end ] || die "region $name: nothing became of: $query"
		sleep 0.05
	done
}

converge()
{
	local from to
	declare -A written
	for from in "$@"; do
		# A commit that is flushed takes with it those before that were not.
		written[$from]=$(at "$from" -A -t -c 'SET synchronous_commit = on' \
			-c "SELECT pg_logical_emit_message(true, 'converge', '')") || exit
	done
	for from in "$@"; do
		for to in "$@"; do
			[ "$from" != "$to" ] || continue
			await "$from" "SELECT s.confirmed_flush_lsn >= '${written[$from]}'
				FROM homing.local_region l CROSS JOIN homing.member m
				JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
				WHERE m.name = '$to' AND m.status = 'active'"
		done
	done
}

# kill -9 to a server and all its processes.
kill_server()
{
	local pids
	pids="${postmaster[$1]} $(ps -o pid= --ppid "${postmaster[$1]}" | tr '\n' ' ')"
	# shellcheck disable=SC2086
	kill -KILL $pids
	unset "postmaster[$1]"
	local pid
	for pid in $pids; do
		while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	done
}

stop_everything()
{
	local name
	# shellcheck disable=SC2046
	[ -z "$(jobs -p)" ] || kill $(jobs -p) 2>/dev/null
	for name in "${!postmaster[@]}"; do
		pg_ctl --pgdata="$WORK_DIR/$name" --silent --mode=immediate stop >/dev/null 2>&1
	done
	wait
}
