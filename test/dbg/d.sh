set -uo pipefail
. test/tools/regions.sh
trap stop_everything EXIT
SERVER_SETTINGS="
homing.probe_interval = 1s
fsync = off
shared_buffers = 256MB
autovacuum = off
log_min_duration_statement = 0
log_line_prefix = '%m [%p] %a '
log_connections = on
"
start_wan_and_servers 20 us eu ap
form_cluster
eval "$(sed -n '/^hand_over_pause/,/^# Keys 1000001/p' test/bench/rehome.sh)"
at us -o /dev/null -c 'CREATE TABLE moved (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)' \
		-c 'INSERT INTO moved SELECT generate_series(1, 1000)' -c "SELECT homing.home_table('moved', 'id', homes => 12)" || exit
converge us eu ap
[ -z "${SELF:-}" ] || for r in us eu; do at $r -c "ALTER SERVER $r OPTIONS (SET port '${server_port[$r]}')"; done
if [ "${WHAT:-lost}" = lost ]; then
for i in 1 ; do
lose_ap
done
else
ask us "SELECT homing.repartition('moved', '{\"us\": 1}')"
converge us eu ap
for i in 1 2 3; do
hand_over_pause us eu
ask us "SELECT extract(epoch FROM replay_lag)*1000 FROM pg_stat_replication"
ask us "SELECT homing.hand_over('moved', 'eu', 'us')" >/dev/null || exit
done
fi
mkdir -p $WORK_DIR/out; cp $WORK_DIR/us.log $WORK_DIR/out/dbg_us.log; cp $WORK_DIR/eu.log $WORK_DIR/out/dbg_eu.log
