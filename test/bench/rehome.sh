# Part of bench.sh: how long writes stand still when homes change hands, on purpose and after a loss.
# The regions us, eu and ap reach each other over the WAN, RTT 20 ms.
#
# BENCH_KEYS: how many keys are assigned in the larger of the two takeovers.

rtt=20
many_keys=${BENCH_KEYS:-10000000}

# The longest that a writer at the old owner waited for one statement, in ms, while its homes moved to the other region.
hand_over_pause()
{
	local from=$1 to=$2 writer
	rm -f "$WORK_DIR"/pause.*
	printf '\\set id random(1, 1000)\nUPDATE moved SET n = n + 1 WHERE id = :id;\n' >"$WORK_DIR/bench.sql"
	pgbench -n -M prepared -c 1 -T 3 --log "--log-prefix=$WORK_DIR/pause" -f "$WORK_DIR/bench.sql" "$(beside "$from")" >"$WORK_DIR/pause.out" 2>&1 &
	writer=$!
	await "$from" "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pgbench'"
	ask eu "SELECT homing.hand_over('moved', '$from', '$to')" >/dev/null || exit
	wait "$writer" || die "pgbench failed: $(cat "$WORK_DIR/pause.out")"
	grep -q 'ERROR' "$WORK_DIR/pause.out" && die "a write failed: $(cat "$WORK_DIR/pause.out")"
	cat "$WORK_DIR"/pause.[0-9]* | awk '$3 > most { most = $3 } END { print most / 1000 }'
}

# heir_writes REGION: waits there until an heir is known for a key of ap that this region inherits, writes the key, and
# tells when that was accepted.
heir_writes()
{
	local region=$1 key=$2
	at "$region" -A -t -c "DO \$\$ BEGIN WHILE homing.home_of('moved', $key) = 'ap' LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$" \
		-c "UPDATE moved SET n = n + 1 WHERE id = $key" -c "SELECT extract(epoch FROM clock_timestamp())"
}

# ap is killed and declared lost. From the call of declare_lost, in ms: until the first accepted write at each heir, the
# slower one counts; and until it returns. Then the bytes of WAL that us wrote meanwhile.
lose_ap()
{
	local times region key written writers=()
	kill_server ap
	for region in us eu; do
		key=$(ask "$region" "SELECT min(id) FROM moved JOIN homing.homes h ON h.home = homing._key_home(
			(SELECT keyspace_id FROM homing.homed_table WHERE relid = 'moved'::regclass), homing._key_bytes('moved', id))
			WHERE h.keyspace = (SELECT keyspace FROM homing.tables WHERE table_name = 'moved'::regclass) AND h.owner = 'ap' AND h.heirs[1] = '$region'")
		[ -n "$key" ] || die "ap has no key that $region inherits"
		heir_writes "$region" "$key" >"$WORK_DIR/wrote.$region" &
		writers+=($!)
		await "$region" "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
	done
	times=$(at us -A -t -c "SELECT 'wal ' || pg_current_wal_insert_lsn() - '0/0'" -c "SELECT 'began ' || extract(epoch FROM clock_timestamp())" \
		-c "SELECT homing.declare_lost('ap', force => true)" -c "SELECT 'lost ' || extract(epoch FROM clock_timestamp())" \
		-c "SELECT 'end ' || pg_current_wal_insert_lsn() - '0/0'") || exit
	wait "${writers[@]}" || die "a write at an heir failed"
	awk '$1 ~ /^[0-9.]+$/ { if ($1 > wrote) wrote = $1; next } { at[$1] = $2 }
		END { printf "%.1f %.1f %d\n", (wrote - at["began"]) * 1000, (at["lost"] - at["began"]) * 1000, at["end"] - at["wal"] }' \
		<(echo "$times") "$WORK_DIR"/wrote.us "$WORK_DIR"/wrote.eu
}

ap_returns()
{
	start_server ap </dev/null
	await ap 'SELECT fenced IS NOT NULL FROM homing.local_region'
	ask ap 'SELECT homing.rejoin(failback => true)' >/dev/null || exit
	await us "SELECT count(*) = 4 FROM homing.homes h JOIN homing.tables t USING (keyspace) WHERE t.table_name = 'moved'::regclass AND owner = 'ap'"
	converge us eu ap
}

# assign_keys FIRST COUNT: that many new keys of the table, from FIRST on, are assigned to homes of ap, as known at us and
# eu. The index of so many is not kept up to date row by row but made anew: what follows finds it as it would be.
assign_keys()
{
	local first=$1 count=$2 region filling=()
	for region in us eu; do
		assign_keys_at "$region" "$first" "$count" &
		filling+=($!)
	done
	for region in "${filling[@]}"; do
		wait "$region" || die "keys are not assigned"
	done
}

assign_keys_at()
{
	local region=$1 first=$2 count=$3 before trigger
	before=$(ask "$region" 'SELECT count(*) FROM homing.assignment')
	at "$region" -o /dev/null -c "SET session_replication_role = origin" -c "SET maintenance_work_mem = '1GB'" \
		-c "SELECT pg_replication_origin_create('bench') WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'bench')" \
		-c "SELECT pg_replication_origin_session_setup('bench')" -c 'ALTER TABLE homing.assignment DISABLE TRIGGER USER' \
		-c "UPDATE pg_index SET indisready = false WHERE indexrelid = 'homing.assignment_pkey'::regclass" \
		-c "INSERT INTO homing.assignment SELECT k.keyspace_id, homing._key_bytes('moved', i), 1, owned.homes[1 + i % 4]
			FROM homing.homed_table k, (SELECT array_agg(h.home) AS homes FROM homing.homes h JOIN homing.tables t USING (keyspace)
				WHERE t.table_name = 'moved'::regclass AND owner = 'ap') owned, generate_series($first, $first + $count - 1) i
			WHERE k.relid = 'moved'::regclass" -c 'REINDEX INDEX homing.assignment_pkey' || return
	for trigger in changed assigned handed_over; do
		at "$region" -c "ALTER TABLE homing.assignment ENABLE ALWAYS TRIGGER $trigger" || return
	done
	[ "$(ask "$region" 'SELECT count(*) FROM homing.assignment')" -eq $((before + count)) ]
}

if [[ "hand-over pause, takeover" =~ $only ]]; then
	heading "homes change hands, RTT $rtt ms: the write pause of a hand-over, against 3 RTT and the replication lag; a loss"
	wan delay '*' "$(awk "BEGIN { print $rtt / 2 }")" || exit
	# A region that comes back copies all tables.
	at us -c 'SET client_min_messages = warning' -c 'DROP TABLE IF EXISTS copied' || exit
	at us -c "ALTER SERVER eu OPTIONS (SET port '${link_port[eu]}')" || exit
	if [ "$(ask us "SELECT count(*) FROM homing.regions WHERE name = 'ap'")" = 0 ]; then
		at ap -c 'CREATE EXTENSION pg_homing'
		at ap -o /dev/null -c "SELECT homing.join_cluster('ap', '$(over_wan ap)', via => '$(over_wan us)')" || exit
	fi
	at us -o /dev/null -c 'CREATE TABLE moved (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)' \
		-c 'INSERT INTO moved SELECT generate_series(1, 1000)' -c "SELECT homing.home_table('moved', 'id', homes => 12)" || exit
	converge us eu ap
	# A region reaches itself without the WAN.
	for region in us eu; do
		at "$region" -c "ALTER SERVER $region OPTIONS (SET port '${server_port[$region]}')" || exit
	done
	pauses='' allowed=''
	ask us "SELECT homing.repartition('moved', '{\"us\": 1}')" >/dev/null || exit
	for ((round = 0; round < rounds; round++)); do
		pauses+="$(hand_over_pause us eu) " || exit
		lag=$(ask us "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) * 1000 FROM pg_stat_replication")
		allowed+="$(awk "BEGIN { print 3 * $rtt + $lag }") "
		ask us "SELECT homing.hand_over('moved', 'eu', 'us')" >/dev/null || exit
	done
	report "hand-over, longest wait" ms "<= 1" "$pauses" "$allowed"

	ask us "SELECT homing.repartition('moved', '{\"us\": 1, \"eu\": 1, \"ap\": 1}')" >/dev/null || exit
	converge us eu ap
	assign_keys 1000001 10000
	to_write='' few='' many='' few_wal='' many_wal=''
	for ((round = 0; round < rounds; round++)); do
		read -r wrote lost wal < <(lose_ap) || exit
		to_write+="$wrote " few+="$lost " few_wal+="$wal "
		ap_returns
	done
	report "declare_lost to the first write" ms "<= 1" "$to_write" "$((5 * rtt))"
	assign_keys 2000001 "$many_keys"
	read -r wrote lost wal < <(lose_ap) || exit
	many+="$lost " many_wal+="$wal "
	report "takeover of $many_keys keys, not 10000" ms "<= 1.2" "$many" "$few"
	report "its WAL at one survivor" B "<= 1.2" "$many_wal" "$few_wal"
fi
