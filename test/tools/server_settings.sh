#!/usr/bin/env bash
# Prints the settings that a server with regions needs (postgresql.conf lines), for tests and the demo.
# usage: server_settings.sh BINDIR
set -euo pipefail
bindir=$1

cat <<END
shared_preload_libraries = 'pg_homing'
wal_level = logical
track_commit_timestamp = on
max_prepared_transactions = 50
max_replication_slots = 30
max_wal_senders = 30
max_logical_replication_workers = 30
max_sync_workers_per_subscription = 1
max_worker_processes = 60
max_connections = 100
wal_retrieve_retry_interval = 200ms
homing.probe_interval = 200ms
END

# Since the minor releases of 2026, output plugins must be allowed by name.
if "$bindir/postgres" --describe-config | grep '^output_plugin_libraries	' >/dev/null; then
	echo "output_plugin_libraries = 'pgoutput, test_decoding, pg_homing'"
fi
