#!/usr/bin/env bash
# Runs two regions under valgrind and lets a session write here and forward, in all the ways a statement can take: an
# error of memory, or a block lost, with this library among its callers is a failure. Started by with_servers.sh.
# MEMCHECK_STATEMENTS is the number of forwarded UPDATEs (10,000).
set -uo pipefail
. test/tools/regions.sh
trap stop_everything EXIT
trap 'exit 130' INT TERM
command -v valgrind >/dev/null || die "memcheck: install the package valgrind"

statements=${MEMCHECK_STATEMENTS:-10000}
SERVER_SETTINGS="
fsync = off
shared_buffers = 16MB
wal_receiver_timeout = 10min
wal_sender_timeout = 10min
homing.fencing = operator
"
# What core does itself: it writes files with padding in them, and moves a regular expression within its cache.
suppress()
{
	printf '{\n   %s\n   Memcheck:%s\n   ...\n   obj:*/bin/postgres\n}\n' "$1" "$2"
}
{
	suppress padding $'Param\n   pwrite64(buf)'
	suppress padding $'Param\n   write(buf)'
	printf '{\n   cache\n   Memcheck:Overlap\n   fun:__memcpy_chk\n   fun:RE_compile_and_cache\n}\n'
} >"$WORK_DIR/suppressions"
# pg_ctl starts this instead of postgres.
cat >"$WORK_DIR/postgres" <<END
#!/bin/sh
exec valgrind --quiet --trace-children=yes --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \\
	--num-callers=40 --suppressions=$WORK_DIR/suppressions --log-file=$WORK_DIR/valgrind.%p.log "$("$PG_CONFIG" --bindir)/postgres" "\$@"
END
chmod +x "$WORK_DIR/postgres"
pg_ctl_options=(-p "$WORK_DIR/postgres")

start_wan_and_servers 0 us eu
form_cluster
at us <<'END' || exit
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, note text);
INSERT INTO accounts SELECT generate_series(1, 1000);
SELECT homing.home_table('accounts', 'id');
END
converge us eu
ask us "SELECT format('UPDATE accounts SET balance = balance + 1, note = ''n'' || %s WHERE id = %s RETURNING *;', n, id)
	FROM (SELECT id FROM accounts WHERE homing.home_of('accounts', id) = 'eu' LIMIT 100) k, generate_series(1, $statements / 100) n" \
	>"$WORK_DIR/forwarded.sql"
[ "$(wc -l <"$WORK_DIR/forwarded.sql")" -ge "$((statements / 100))" ] || die "memcheck: there is nothing to forward"
echo "memcheck: $statements forwarded statements"
at us -f "$WORK_DIR/forwarded.sql" -o /dev/null || exit
echo "memcheck: statements of every kind"
# Errors are among them.
at us -v ON_ERROR_STOP=0 -o /dev/null >/dev/null 2>&1 <<'END'
PREPARE one (int) AS UPDATE accounts SET balance = balance + 1 WHERE id = $1 RETURNING note;
SELECT format('EXECUTE one(%s)', id) FROM accounts WHERE id <= 200 \gexec
BEGIN;
UPDATE accounts SET note = 'block' WHERE id <= 20;
SAVEPOINT s;
INSERT INTO accounts SELECT generate_series(1, 10);
ROLLBACK TO s;
INSERT INTO accounts SELECT generate_series(2001, 3000);
DELETE FROM accounts WHERE id IN (2001, 2002, 2003) RETURNING *;
COMMIT;
INSERT INTO accounts VALUES (1), (2), (3) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + 1 RETURNING *;
INSERT INTO accounts VALUES (1), (2);
MERGE INTO accounts a USING (VALUES (5, 1), (6, 2)) AS v (id, n) ON a.id = v.id WHEN MATCHED THEN UPDATE SET balance = v.n;
WITH w AS (UPDATE accounts SET note = 'w' WHERE id = 9 RETURNING id) SELECT * FROM w;
COPY accounts (id, balance) FROM PROGRAM 'seq -f "%.0f	7" 5001 6000';
EXPLAIN (ANALYZE, VERBOSE) UPDATE accounts SET balance = 0 WHERE id = 1;
EXPLAIN (VERBOSE, FORMAT json) UPDATE accounts SET balance = 0 WHERE id = 2;
DO $$BEGIN FOR i IN 1 .. 50 LOOP
	BEGIN UPDATE accounts SET balance = i WHERE id = i; IF i % 5 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END;
END LOOP; END$$;
UPDATE accounts SET id = id + 100000 WHERE id = 4;
TRUNCATE accounts;
SELECT homing.hand_over('accounts', 'eu', 'us', ARRAY[0, 1, 2]);
SELECT homing.unhome_table('accounts');
END
converge us eu
# Every process comes to its end, so that what it lost is told.
for name in us eu; do
	pg_ctl --pgdata="$WORK_DIR/$name" --silent --mode=fast --timeout=600 stop || die "memcheck: server $name does not stop"
done
stop_everything
trap - EXIT

# Blocks of a log are parted by lines without text.
perl -00 -ne 's/^==\d+== ?$/\n/mg; push @blocks, grep { /homing/ } split /\n{2,}/; END { print "$_\n\n" for @blocks; exit(@blocks ? 1 : 0) }' \
	"$WORK_DIR"/valgrind.*.log || die "memcheck: FAILED"
echo "memcheck: $(find "$WORK_DIR" -name 'valgrind.*.log' | wc -l) processes, no error of memory in pg_homing"
