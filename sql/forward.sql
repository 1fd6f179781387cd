-- A write finds its home: statements whose rows live in one region (DESIGN §5), seen from another one.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT always
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_forward_us'
\set eu :server ' dbname=regress_forward_eu'
CREATE DATABASE regress_forward_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_forward_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_forward_eu
CREATE EXTENSION pg_homing;
\c regress_forward_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
\c regress_forward_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_forward_us
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE account (
	id bigint PRIMARY KEY,
	owner text NOT NULL DEFAULT 'nobody',
	balance numeric(12, 2) NOT NULL DEFAULT 0 CONSTRAINT not_overdrawn CHECK (balance >= 0),
	feeling mood,
	tags text[],
	doubled numeric GENERATED ALWAYS AS (balance * 2) STORED,
	serial int GENERATED ALWAYS AS IDENTITY
);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% of account % at %', TG_OP, coalesce(NEW.id, OLD.id), current_database()
		USING DETAIL = 'told by a trigger', HINT = 'listen';
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION tell();
SELECT homing.home_table('account', 'id');
-- Which of the first keys live where: the hash is the same on every machine and version.
SELECT k, homing.home_of('account', k::bigint) FROM generate_series(1, 8) k;
SELECT min(k) FILTER (WHERE home = 'us') AS here, min(k) FILTER (WHERE home = 'eu') AS there
FROM (SELECT k, homing.home_of('account', k::bigint) AS home FROM generate_series(1, 8) k) s \gset
\unset QUIET

-- INSERT: defaults, generated and identity columns are the home's; the tag, count and rows are ours.
INSERT INTO account (id) VALUES (:there) RETURNING id, owner, balance, feeling, tags, doubled;
INSERT INTO account (id, owner, balance, feeling, tags)
VALUES (:there + 100 - 100, 'x', 1, 'ok', '{}') ON CONFLICT (id) DO UPDATE SET owner = excluded.owner RETURNING id, owner, feeling;
INSERT INTO account (id) VALUES (:there) ON CONFLICT DO NOTHING RETURNING id;
INSERT INTO account (id, balance) VALUES (:here, 5) RETURNING id, balance, doubled;
INSERT INTO account DEFAULT VALUES;

-- UPDATE and DELETE.
UPDATE account SET balance = balance + 10.50, tags = ARRAY['a "quoted" one', NULL, E'two\nlines'], feeling = 'happy'
WHERE id = :there RETURNING id, balance, doubled, feeling, tags, owner || '!' AS shout;
UPDATE account AS a SET owner = (SELECT count(*)::text FROM account) WHERE a.id = :there::int2 AND balance > 1 RETURNING owner;
UPDATE account SET owner = 'y' WHERE id = :there AND false;
UPDATE account SET owner = 'y' WHERE id = NULL;
UPDATE account SET owner = v.name FROM (VALUES (:there, 'joined')) AS v (id, name) WHERE account.id = v.id RETURNING v.*, owner;
DELETE FROM account WHERE id = ANY (ARRAY[:there]::int[]) RETURNING id;
INSERT INTO account (id, balance, owner) VALUES (:there, 20, 'again');

-- The home's own errors.
UPDATE account SET balance = -1 WHERE id = :there;
INSERT INTO account (id) VALUES (:there);
UPDATE account SET owner = 1 / (balance - balance)::int WHERE id = :there;
UPDATE account SET owner = NULL WHERE id = :there;

-- Parameters, prepared statements, PL/pgSQL, SPI.
PREPARE pay(bigint, numeric, mood) AS UPDATE account SET balance = balance + $2, feeling = $3 WHERE id = $1 RETURNING id, balance, feeling;
EXECUTE pay(:there, 1, 'sad');
EXECUTE pay(:here, 1, 'sad');
SET plan_cache_mode = force_generic_plan;
EXECUTE pay(:there, 1, 'ok');
EXECUTE pay(:here, 1, NULL);
EXPLAIN (COSTS OFF) EXECUTE pay(:there, 1, 'ok');
EXPLAIN (COSTS OFF) EXECUTE pay(:here, 1, 'ok');
RESET plan_cache_mode;
CREATE FUNCTION pay(account_id bigint, amount numeric) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	result numeric;
BEGIN
	UPDATE account SET balance = balance + amount WHERE id = account_id RETURNING balance INTO result;
	RETURN result;
EXCEPTION WHEN check_violation THEN
	RETURN -1;
END
$$;
SELECT pay(:there, 3), pay(:there, -1000);

-- EXPLAIN.
EXPLAIN (COSTS OFF) UPDATE account SET owner = 'z' WHERE id = :there;
EXPLAIN (COSTS OFF, VERBOSE) UPDATE account SET owner = 'z' WHERE id = :here RETURNING owner;
EXPLAIN (COSTS OFF, FORMAT json) DELETE FROM account WHERE id = :there RETURNING id;
EXPLAIN (COSTS OFF, ANALYZE, TIMING OFF, SUMMARY OFF) UPDATE account SET owner = 'z' WHERE id = :there RETURNING id;

-- The remote transaction follows ours, savepoints too.
BEGIN;
UPDATE account SET owner = 'one' WHERE id = :there;
SAVEPOINT s;
UPDATE account SET owner = 'two' WHERE id = :there;
UPDATE account SET balance = -1 WHERE id = :there;
ROLLBACK TO s;
UPDATE account SET owner = owner || '!' WHERE id = :there RETURNING owner;
COMMIT;
BEGIN;
UPDATE account SET owner = 'gone' WHERE id = :there;
ROLLBACK;
UPDATE account SET owner = owner WHERE id = :there RETURNING owner;
BEGIN READ ONLY;
UPDATE account SET owner = owner WHERE id = :there;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE account SET owner = current_setting('transaction_isolation') WHERE id = :there RETURNING owner;
COMMIT;

-- Settings that change what a statement means travel with it.
SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = 0;
UPDATE account SET owner = timestamptz '2026-03-04 05:06:07+00'::text || interval '1 day 2 hours'::text || (0.1::float8 + 0.2)::text
WHERE id = :there RETURNING owner, timestamptz '2026-03-04 05:06:07+00', 0.1::float8 + 0.2;
RESET ALL;
SET homing.forward_settings = 'app.tenant';
SET app.tenant = 'seven';
UPDATE account SET owner = current_setting('app.tenant', true) WHERE id = :there RETURNING owner;
RESET ALL;

-- What cannot leave this session.
CREATE TEMP TABLE local_only (id bigint);
UPDATE account SET owner = 'n' FROM local_only WHERE account.id = :there AND account.id = local_only.id;
BEGIN;
DECLARE rows CURSOR FOR SELECT id FROM account WHERE id = :there FOR UPDATE;
FETCH rows;
UPDATE account SET owner = 'n' WHERE CURRENT OF rows;
ROLLBACK;

-- A key that a trigger changes.
SET homing.local_ddl = on;
CREATE FUNCTION rekey() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := TG_ARGV[0]; RETURN NEW; END $$;
SELECT format('CREATE TRIGGER rekey BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION rekey(%s)', :there) \gexec
RESET homing.local_ddl;
SELECT max(k) AS another FROM generate_series(1, 8) k WHERE homing.home_of('account', k::bigint) = 'us' \gset
INSERT INTO account (id) VALUES (:another);

-- A table without rows elsewhere: homed or not, the session behaves the same.
CREATE TABLE plain (id int PRIMARY KEY, note text);
INSERT INTO plain VALUES (1, 'a'), (2, 'b') RETURNING *;
EXPLAIN (COSTS OFF) UPDATE plain SET note = 'c' WHERE id = 1;

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_forward_eu
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_forward%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_forward_us WITH (FORCE);
DROP DATABASE regress_forward_eu WITH (FORCE);
