-- Sessions with peers: what they do, and how they end.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
CREATE DATABASE regress_peer TEMPLATE template0;
\set peer :server ' dbname=regress_peer'

-- Values travel as text; rows come back as arrays.
BEGIN;
SELECT homing._peer_open('p', :'peer');
SELECT homing._peer_query('p', 'SELECT $1::int + 1, NULL, $2, current_database()', '41', 'a "quoted", text');
SELECT * FROM homing._peer_query('p', 'SELECT g, $1::text FROM generate_series(1, 3) g', NULL);
SELECT count(*) FROM homing._peer_query('p', 'CREATE TABLE public.t (id int PRIMARY KEY)');
SELECT homing._peer_query('p', 'SELECT FROM public.t');
SELECT homing._peer_query('p', 'SHOW search_path');
-- No rows are lost, however many there are.
SELECT count(*), sum(q[1]::int) FROM homing._peer_query('p', 'SELECT generate_series(1, 20000)') q;
-- Opening it again changes nothing: the temporary table is still there.
SELECT homing._peer_query('p', 'CREATE TEMP TABLE mine (i int)');
SELECT homing._peer_open('p', :'peer');
SELECT homing._peer_query('p', 'SELECT count(*) FROM mine');
COMMIT;
-- It ended with the transaction.
SELECT homing._peer_query('p', 'SELECT 1');

-- An error keeps its identity, and the session goes on.
DO $$
DECLARE
	state text; message text; detail text; hint text; constraint_of text; context text;
BEGIN
	PERFORM homing._peer_open('p', format('host=%s port=%s user=%s dbname=regress_peer',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user));
	PERFORM homing._peer_query('p', 'INSERT INTO public.t VALUES ($1)', '1');
	BEGIN
		PERFORM homing._peer_query('p', 'INSERT INTO public.t VALUES (1)');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
			constraint_of = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT;
		RAISE NOTICE '% | % | % | % | %', state, message, detail, constraint_of,
			context LIKE '%session with the region at host=% dbname=regress_peer%';
	END;
	BEGIN
		PERFORM homing._peer_query('p', 'DO $x$ BEGIN RAISE EXCEPTION ''m'' USING ERRCODE = ''XX123'', DETAIL = ''d'', HINT = ''h''; END $x$');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RAISE NOTICE '% | % | % | %', state, message, detail, hint;
	END;
	RAISE NOTICE 'rows: %', (SELECT q[1] FROM homing._peer_query('p', 'SELECT count(*) FROM public.t') q);
END
$$;
\set VERBOSITY default

-- A following session commits with us, or not at all.
BEGIN;
SELECT homing._peer_open('p', :'peer'), homing._peer_follow('p');
SELECT homing._peer_query('p', 'INSERT INTO public.t VALUES (2)');
COMMIT;
BEGIN;
SELECT homing._peer_open('p', :'peer'), homing._peer_follow('p');
SELECT homing._peer_query('p', 'INSERT INTO public.t VALUES (3)');
ROLLBACK;
BEGIN;
SELECT homing._peer_open('p', :'peer'), homing._peer_follow('p');
SAVEPOINT s;
SELECT homing._peer_query('p', 'INSERT INTO public.t VALUES (4)');
RELEASE s;
COMMIT;
-- What a savepoint undid here cannot be undone there alone.
BEGIN;
SELECT homing._peer_open('p', :'peer'), homing._peer_follow('p');
SAVEPOINT s;
SELECT homing._peer_query('p', 'INSERT INTO public.t VALUES (5)');
ROLLBACK TO s;
COMMIT;
-- Nor is a statement that failed there forgotten.
CREATE TABLE here (i int);
DO $$
BEGIN
	INSERT INTO here VALUES (1);
	PERFORM homing._peer_open('p', format('host=%s port=%s user=%s dbname=regress_peer',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user));
	PERFORM homing._peer_follow('p');
	PERFORM homing._peer_query('p', 'INSERT INTO public.t VALUES (6)');
	BEGIN
		PERFORM homing._peer_query('p', 'INSERT INTO public.t VALUES (1)');
	EXCEPTION WHEN unique_violation THEN
		NULL;
	END;
END
$$;
SELECT count(*) FROM here;
-- All followers or none: the second one fails before the first one commits.
BEGIN;
SELECT homing._peer_open('a', :'peer'), homing._peer_follow('a'), homing._peer_open('b', :'peer'), homing._peer_follow('b');
SELECT homing._peer_query('a', 'INSERT INTO public.t VALUES (7)');
SELECT homing._peer_query('b', 'INSERT INTO public.t VALUES (8)');
SAVEPOINT s;
SELECT homing._peer_query('b', 'SELECT 1/0');
ROLLBACK TO s;
COMMIT;
-- A constraint there that is checked at the end ends ours.
SELECT homing._peer_open('p', :'peer');
BEGIN;
SELECT homing._peer_open('p', :'peer');
SELECT homing._peer_query('p', 'CREATE TABLE public.late (id int, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)');
SELECT homing._peer_follow('p');
INSERT INTO here VALUES (2);
SELECT homing._peer_query('p', 'INSERT INTO public.late VALUES (1), (1)');
COMMIT;
SELECT count(*) FROM here;
-- It takes part: it is not replaced, closed or prepared.
BEGIN;
SELECT homing._peer_open('p', :'peer'), homing._peer_follow('p');
SAVEPOINT s;
SELECT homing._peer_close('p');
ROLLBACK TO s;
SELECT homing._peer_open('p', :'peer' || ' application_name=other');
ROLLBACK TO s;
PREPARE TRANSACTION 'peer';
-- A session of another kind of transaction cannot follow.
BEGIN;
SELECT homing._peer_open('p', :'peer');
SELECT homing._peer_query('p', 'BEGIN');
SELECT homing._peer_follow('p');
ROLLBACK;
\c regress_peer
SELECT array_agg(id ORDER BY id) FROM t;
\c :original

-- A cancelled statement leaves a session that is only good for closing; a new one replaces it.
BEGIN;
SELECT homing._peer_open('p', :'peer');
SAVEPOINT s;
SET LOCAL statement_timeout = '200ms';
SELECT homing._peer_query('p', 'SELECT pg_sleep(100)');
ROLLBACK TO s;
SELECT homing._peer_query('p', 'SELECT 1');
ROLLBACK TO s;
SELECT homing._peer_open('p', :'peer');
SELECT homing._peer_query('p', 'SELECT 1');
COMMIT;
-- There, the statement ends soon.
DO $$
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'regress_peer' AND query LIKE '%pg_sleep(100)%');
		PERFORM pg_stat_clear_snapshot();
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT count(*) FROM pg_stat_activity WHERE datname = 'regress_peer' AND query LIKE '%pg_sleep(100)%';

-- The replication protocol.
BEGIN;
SELECT homing._peer_open('r', :'peer' || ' replication=database');
SELECT q[4] FROM homing._peer_query('r', 'IDENTIFY_SYSTEM') q;
SELECT q[1], q[4] FROM homing._peer_query('r', 'CREATE_REPLICATION_SLOT regress_peer TEMPORARY LOGICAL pgoutput (SNAPSHOT ''nothing'')') q;
SAVEPOINT s;
SELECT homing._peer_query('r', 'IDENTIFY_SYSTEM', 'x');
ROLLBACK TO s;
SELECT homing._peer_follow('r');
ROLLBACK;

-- No password in any message.
DO $$
DECLARE
	conninfo text;
BEGIN
	FOREACH conninfo IN ARRAY ARRAY['host=/nowhere password=secret', 'password=secret host', 'postgresql://u:secret@/%zz',
		format('host=%s port=%s dbname=regress_nowhere password=secret', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'))] LOOP
		BEGIN
			PERFORM homing._peer_open('p', conninfo);
		EXCEPTION WHEN OTHERS THEN
			DECLARE
				message text; detail text; hint text; context text;
			BEGIN
				GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
				RAISE NOTICE '% %', SQLSTATE, concat(message, detail, hint, context) LIKE '%secret%';
			END;
		END;
	END LOOP;
END
$$;
\set VERBOSITY default

-- Statements that are sent one after the other, and answered later.
BEGIN;
SELECT * FROM homing._peer_open_all(ARRAY['p', 'q', 'nobody'], ARRAY[:'peer', :'peer', :'server' || ' dbname=regress_nowhere']) \gset gone_
SELECT :'gone_session', :'gone_failure' LIKE '%database "regress_nowhere" does not exist%' AS told;
SELECT homing._peer_post('p', 'SELECT pg_advisory_lock($1::bigint)', '1'), homing._peer_post('p', 'SELECT 1 / 0'),
	homing._peer_post('p', 'SELECT ''after'''), homing._peer_post('q', 'SELECT pg_try_advisory_lock(2)');
SELECT homing._peer_take('q');
SELECT homing._peer_take('p');
SAVEPOINT before;
SELECT homing._peer_take('p');
ROLLBACK TO before;
SELECT homing._peer_query('p', 'SELECT ''too early''');
ROLLBACK TO before;
SELECT homing._peer_take('p');
SELECT homing._peer_query('p', 'SELECT ''as ever''');
SELECT homing._peer_take('p');
ROLLBACK;

-- One change at a time.
BEGIN;
SELECT homing._lock_change();
SELECT homing._peer_open('p', :'server' || ' dbname=' || current_database());
SELECT homing._peer_query('p', 'SET lock_timeout = ''100ms''');
SELECT homing._peer_query('p', 'SELECT homing._lock_change()');
ROLLBACK;
BEGIN;
SELECT homing._peer_open_all(ARRAY['p', 'q'], array_fill(:'server' || ' dbname=' || current_database(), ARRAY[2]));
SELECT homing._peer_post('p', 'SELECT homing._hold_change()');
SELECT homing._peer_take('p');
SELECT homing._peer_query('q', 'SET lock_timeout = ''100ms''');
SAVEPOINT held;
SELECT homing._peer_query('q', 'SELECT homing._lock_change()');
ROLLBACK TO held;
SELECT homing._peer_query('q', 'SET lock_timeout = ''60s''');
SELECT homing._peer_close('p'), homing._peer_query('q', 'SELECT homing._lock_change()');
ROLLBACK;

-- For superusers only.
CREATE ROLE regress_peer_user;
SET ROLE regress_peer_user;
SELECT homing._peer_open('p', 'x');
SELECT homing._peer_open_all(ARRAY['p'], ARRAY['x']);
SELECT homing._peer_query('p', 'x');
SELECT homing._peer_post('p', 'x');
SELECT homing._peer_take('p');
SELECT homing._peer_follow('p');
SELECT homing._peer_close('p');
SELECT homing._lock_change();
RESET ROLE;
DROP ROLE regress_peer_user;
DROP TABLE here;
DROP DATABASE regress_peer WITH (FORCE);
