-- Homed tables and their keys, with three databases of one server as regions.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT current_database() AS original,
	format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server \gset
CREATE DATABASE regress_homes_us TEMPLATE template0;
CREATE DATABASE regress_homes_eu TEMPLATE template0;
CREATE DATABASE regress_homes_ap TEMPLATE template0;
CREATE ROLE regress_homes_owner LOGIN;
\set us :server ' dbname=regress_homes_us'
\set eu :server ' dbname=regress_homes_eu'
\set ap :server ' dbname=regress_homes_ap'

\c regress_homes_us
CREATE EXTENSION pg_homing;
-- Outside a cluster there are no homes.
CREATE TABLE early (id int PRIMARY KEY);
SELECT homing.home_table('early', 'id');
SELECT homing.unhome_table('early');
SELECT homing.assign_key('early', 1, 'us');
SELECT homing.home_of('early', 1);
SELECT * FROM homing.homes;

SELECT homing.create_cluster('us', :'us');
\c regress_homes_eu
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_homes_ap
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('ap', :'ap', via => :'us');

\c regress_homes_us
-- What cannot be homed, and what to do about it.
CREATE SCHEMA bad;
SET search_path = bad;
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE DOMAIN customer_id AS bigint;
CREATE TABLE no_identity (id int NOT NULL);
CREATE TABLE unusable_identity (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE nothing_identity (id int PRIMARY KEY);
ALTER TABLE nothing_identity REPLICA IDENTITY NOTHING;
CREATE TABLE of_type (id int PRIMARY KEY, n numeric NOT NULL, p point NOT NULL, a int[] NOT NULL, c char(3) NOT NULL, f float8 NOT NULL, j jsonb NOT NULL);
CREATE TABLE nullable (id int PRIMARY KEY, k int);
CREATE TABLE generated (id int PRIMARY KEY, k int NOT NULL GENERATED ALWAYS AS (id / 2) STORED);
CREATE TABLE generated_identity (id int, k int GENERATED ALWAYS AS (id / 2) STORED, PRIMARY KEY (id, k));
CREATE TABLE unique_elsewhere (id int PRIMARY KEY, mail text UNIQUE);
CREATE TABLE pk_elsewhere (id int PRIMARY KEY, customer_id int NOT NULL);
CREATE TABLE partial_unique (id int PRIMARY KEY, n int);
CREATE UNIQUE INDEX ON partial_unique (n) WHERE n > 0;
CREATE TABLE excluded (id int PRIMARY KEY, span int4range, EXCLUDE USING gist (span WITH &&));
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
CREATE VIEW of_tables AS SELECT * FROM pk_elsewhere;
CREATE SEQUENCE numbers;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE root (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE leaf PARTITION OF root FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE good (id bigint PRIMARY KEY, name text);
SELECT homing.home_table('no_identity', 'id');
SELECT homing.home_table('unusable_identity', 'id');
SELECT homing.home_table('nothing_identity', 'id');
SELECT homing.home_table('generated_identity', 'id');
SELECT homing.home_table('of_type', 'n');
\set VERBOSITY terse
SELECT homing.home_table('of_type', 'p');
SELECT homing.home_table('of_type', 'a');
SELECT homing.home_table('of_type', 'c');
SELECT homing.home_table('of_type', 'f');
SELECT homing.home_table('of_type', 'j');
\set VERBOSITY default
SELECT homing.home_table('nullable', 'k');
SELECT homing.home_table('generated', 'k');
SELECT homing.home_table('unique_elsewhere', 'id');
SELECT homing.home_table('pk_elsewhere', 'customer_id');
SELECT homing.home_table('partial_unique', 'id');
SELECT homing.home_table('excluded', 'id');
SELECT homing.home_table('unlogged', 'id');
SELECT homing.home_table('temporary', 'id');
SELECT homing.home_table('of_tables', 'id');
SELECT homing.home_table('numbers', 'last_value');
SELECT homing.home_table('parent', 'id');
SELECT homing.home_table('child', 'id');
SELECT homing.home_table('leaf', 'id');
SELECT homing.home_table('pg_class', 'oid');
SELECT homing.home_table('homing.member', 'region_id');
SELECT homing.home_table('good', 'no_column');
SELECT homing.home_table('good', 'ctid');
SELECT homing.home_table('no_table', 'id');
SELECT homing.home_table('good', NULL);
SELECT homing.home_table('good', 'id', placement => 'first_write', region => 'us');
SELECT homing.home_table('good', 'id', placement => 'nowhere');
SELECT homing.home_table('good', 'id', placement => 'region');
SELECT homing.home_table('good', 'id', placement => 'region', region => 'nowhere');
SELECT homing.home_table('good', 'id', region => 'us');
SELECT homing.home_table('good', 'id', homes => 0);
SELECT homing.home_table('good', 'id', homes => 4097);
SELECT homing.home_table('good', 'id', colocate_with => 'parent');
SELECT homing.unhome_table('good');
SELECT homing.home_of('good', 1);
SELECT homing.assign_key('good', 1, 'eu');
-- Other regions do not see what this transaction wrote.
BEGIN;
INSERT INTO good VALUES (1);
SELECT homing.home_table('good', 'id');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT homing.home_table('good', 'id');
ROLLBACK;
-- None of these left anything anywhere.
SELECT count(*) FROM homing.tables;
SELECT count(*) FROM homing.keyspace;
SELECT count(*) FROM pg_trigger WHERE tgname = 'homing_guard';
\c regress_homes_ap
SELECT to_regnamespace('bad'), (SELECT count(*) FROM homing.tables), (SELECT count(*) FROM homing.keyspace);

-- A table that a peer has already must be the same and must not have rows of its own.
CREATE SCHEMA bad;
CREATE TABLE bad.good (id bigint PRIMARY KEY, name varchar(10));
\c regress_homes_us
SET search_path = bad;
SELECT homing.home_table('good', 'id');
\c regress_homes_ap
ALTER TABLE bad.good ALTER name TYPE text;
INSERT INTO bad.good VALUES (99);
\c regress_homes_us
SET search_path = bad;
SELECT homing.home_table('good', 'id');
\c regress_homes_eu
SELECT to_regclass('bad.good'), (SELECT count(*) FROM homing.tables);
\c regress_homes_ap
DROP SCHEMA bad CASCADE;

-- Homes of every kind of key.
\c regress_homes_us
SET client_min_messages = warning;
DROP SCHEMA bad CASCADE;
RESET client_min_messages;
CREATE SCHEMA shop;
SET search_path = shop;
CREATE TYPE state AS ENUM ('new', 'paid', 'sent');
CREATE DOMAIN customer_id AS bigint CHECK (VALUE > 0);
CREATE TABLE customers (id customer_id PRIMARY KEY, name text);
CREATE TABLE orders (customer_id int, n int GENERATED ALWAYS AS IDENTITY, total numeric, PRIMARY KEY (customer_id, n));
CREATE TABLE visits (customer_id smallint, at date, PRIMARY KEY (customer_id, at)) PARTITION BY RANGE (at);
CREATE TABLE visits_2024 PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE settings (name varchar(20) PRIMARY KEY, value text);
CREATE TABLE tags (mail text PRIMARY KEY, id uuid NOT NULL);
CREATE TABLE uuids (k uuid PRIMARY KEY);
CREATE TABLE dates (k date PRIMARY KEY);
CREATE TABLE times (k timestamptz PRIMARY KEY);
CREATE TABLE bytes (k bytea PRIMARY KEY);
CREATE TABLE flags (k boolean PRIMARY KEY);
CREATE TABLE states (k state PRIMARY KEY);
INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 50) i;
INSERT INTO orders (customer_id, total) SELECT i, i FROM generate_series(1, 20) i;
INSERT INTO visits VALUES (3, '2024-03-03');
SELECT homing.home_table('customers', 'id');
SELECT homing.home_table('orders', key => 'customer_id', colocate_with => 'customers');
SELECT homing.home_table('visits', 'customer_id', colocate_with => 'customers');
SELECT homing.home_table('settings', 'name', placement => 'region', region => 'eu');
SELECT homing.home_table("table" => 'tags', key => 'id', allow_unenforced_unique => true, homes => 7);
SELECT homing.home_table(t, 'k', homes => 16) FROM unnest('{uuids}'::regclass[]) t;
SELECT homing.home_table('dates', 'k', homes => 16);
SELECT homing.home_table('times', 'k', homes => 16);
SELECT homing.home_table('bytes', 'k', homes => 16);
SELECT homing.home_table('flags', 'k', homes => 16);
SELECT homing.home_table('states', 'k', homes => 16);
SELECT homing.home_table('customers', 'id');
SELECT homing.home_table('public.early', 'id', colocate_with => 'settings');
SELECT homing.home_table('public.early', 'id', colocate_with => 'customers', placement => 'region');
SELECT * FROM homing.tables ORDER BY table_name::text;
SELECT keyspace, owner, count(*), min(home), max(home) FROM homing.homes
WHERE keyspace IN ('shop.customers', 'shop.settings') GROUP BY 1, 2 ORDER BY 1, 4;
SELECT owner, heirs FROM homing.homes WHERE keyspace = 'shop.customers' AND home IN (0, 1, 60, 127);
SELECT name, homes FROM homing.regions ORDER BY name;

-- A key has one home, in whatever type it is given, in all co-located tables, at all regions.
SELECT homing.home_of('customers', 42::bigint) AS a, homing.home_of('customers', 42) AS b, homing.home_of('orders', 42::smallint) AS c,
	homing.home_of('visits', '42') AS d, homing.home_of('visits_2024', 42) AS e, homing.home_of('customers', 42::customer_id) AS f;
SELECT homing.home_of('settings', 'theme'), homing.home_of('customers', NULL::bigint);
SELECT array_agg(homing.home_of('customers', i) ORDER BY i) AS homes_at_us FROM generate_series(1, 12) i \gset
SELECT homing.home_of('uuids', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid) = homing.home_of('uuids', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11') AS uuids,
	homing.home_of('dates', '2024-02-29'::date) = homing.home_of('dates', 'February 29, 2024') AS dates,
	homing.home_of('times', '2024-02-29 12:00+00'::timestamptz) = homing.home_of('times', '2024-02-29 14:00+02') AS times,
	homing.home_of('bytes', '\x00ff'::bytea) = homing.home_of('bytes', '\x00FF') AS bytes,
	homing.home_of('flags', true) = homing.home_of('flags', 'yes') AS flags,
	homing.home_of('states', 'paid'::state) = homing.home_of('states', 'paid') AS states;
SELECT homing.home_of('visits', 70000);
SELECT homing.home_of('customers', 'x');
SELECT homing.home_of('states', 'unknown');
SELECT homing.home_of('uuids', 1);
SELECT homing.home_of('early', 1);
SELECT homing.home_of(0, 1);

-- Every region has the tables, their rows, and the same opinion.
\c regress_homes_ap
SET search_path = shop;
SELECT count(*) FROM customers;
SELECT count(*), sum(total) FROM orders;
SELECT customer_id, to_char(at, 'YYYY-MM-DD') AS at FROM visits;
DO $$
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT bool_and(state = 'active') FROM homing.tables);
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT count(*) FROM homing.tables WHERE state = 'active';
SELECT array_agg(homing.home_of('customers', i) ORDER BY i) = :'homes_at_us' AS same FROM generate_series(1, 12) i;
SELECT kind, region, reason FROM homing.events WHERE kind = 'home_table' AND reason LIKE 'shop.orders%';
\c regress_homes_eu
SELECT array_agg(homing.home_of('shop.customers', i) ORDER BY i) = :'homes_at_us' AS same FROM generate_series(1, 12) i;

-- Assigned keys. Only the owner of a key writes its assignment; other regions ask it to.
SET search_path = shop;
SELECT i AS of_us FROM generate_series(1000, 2000) i WHERE homing.home_of('customers', i) = 'us' LIMIT 1 \gset
SELECT i AS of_eu FROM generate_series(1000, 2000) i WHERE homing.home_of('customers', i) = 'eu' LIMIT 1 \gset
SELECT homing.assign_key('customers', :of_us, 'ap');
SELECT homing.assign_key('customers', :of_eu, 'ap');
SELECT homing.assign_key('customers', :of_us, 'nowhere');
SELECT homing.assign_key('customers', NULL::int, 'us');
SELECT homing.assign_key('customers', 'x', 'us');
SELECT homing.assign_key('early', 1, 'us');
-- It is rolled back with the transaction, at the owner too.
SELECT i AS another FROM generate_series(2001, 3000) i WHERE homing.home_of('customers', i) = 'us' LIMIT 1 \gset
BEGIN;
SELECT homing.assign_key('customers', :another, 'ap');
ROLLBACK;
-- A key moves with its rows.
SELECT i AS with_rows FROM generate_series(1, 20) i WHERE homing.home_of('customers', i) = 'us' LIMIT 1 \gset
SELECT homing.assign_key('customers', :with_rows, 'eu');
UPDATE customers SET name = 'moved' WHERE id = :with_rows;
\c regress_homes_us
SET search_path = shop;
SELECT homing.home_of('customers', :with_rows);
INSERT INTO orders VALUES (:another, DEFAULT, 1);
SELECT homing.assign_key('visits', :another, 'eu');
DELETE FROM orders WHERE customer_id = :another;
-- where it is already
SELECT homing.assign_key('visits', :another, 'eu');
SELECT count(*) FROM homing.assignment;
-- 'settings' has one home, and it is at eu.
\set VERBOSITY terse
SELECT homing.assign_key('settings', 'theme', 'us');
\set VERBOSITY default
-- Every region hears of it.
\c regress_homes_ap
SET search_path = shop;
DO $$
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT count(*) = 4 FROM homing.assignment);
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT homing.home_of('orders', :of_us) AS a, homing.home_of('visits', :of_eu) AS b, homing.home_of('customers', :another) AS c;
INSERT INTO customers VALUES (:of_us, 'at ap'), (:of_eu, 'at ap too');
SELECT count(*) FROM homing.events WHERE kind = 'assign_key';
\c regress_homes_us
SELECT kind, region, reason LIKE 'key % of shop.%, from region %' AS reason FROM homing.events WHERE kind = 'assign_key';

-- Unhoming: an ordinary table everywhere, with the same rows. It can be homed again.
SET search_path = shop;
SELECT homing.unhome_table('settings');
SELECT homing.unhome_table('settings');
SELECT homing.unhome_table('customers');
SELECT keyspace, count(*) FROM homing.tables WHERE table_name::text IN ('orders', 'visits') GROUP BY 1;
\c regress_homes_eu
SELECT count(*) FROM homing.tables WHERE table_name::text IN ('shop.settings', 'shop.customers');
SELECT count(*) FROM pg_trigger WHERE tgname = 'homing_guard' AND tgrelid = 'shop.customers'::regclass;
SELECT count(*) FROM pg_publication_tables WHERE tablename = 'customers';
SELECT count(*) FROM pg_subscription_rel WHERE srrelid = 'shop.customers'::regclass;
SELECT count(*) FROM shop.customers;
SELECT kind, region, reason FROM homing.events WHERE kind = 'unhome_table';
INSERT INTO shop.settings VALUES ('only', 'here');
SELECT homing.home_table('shop.settings', 'name');
\c regress_homes_ap
SELECT * FROM shop.settings;
-- Equal rows are no obstacle, others are.
SELECT homing.home_table('shop.customers', 'id', colocate_with => 'shop.orders');
SELECT homing.unhome_table('shop.customers');
DELETE FROM shop.customers WHERE id = 1;
SELECT homing.home_table('shop.customers', 'id', colocate_with => 'shop.orders');

-- What a crash between the commits of the regions leaves is replaced by the next call.
\c regress_homes_eu
CREATE TABLE shop.crashed (id int PRIMARY KEY, v text);
INSERT INTO shop.crashed VALUES (1, 'old');
SELECT homing._register_table('shop.crashed', 'id', 900, 900, 'shop.crashed', 'hash', '{1,2,3}', false);
SELECT state FROM homing.tables WHERE table_name = 'shop.crashed'::regclass;
SET homing.connect_timeout = '100ms';
INSERT INTO shop.crashed VALUES (2, 'x');
\c regress_homes_us
CREATE TABLE shop.crashed (id int PRIMARY KEY, v text);
INSERT INTO shop.crashed VALUES (1, 'new'), (2, 'new');
SELECT homing.home_table('shop.crashed', 'id');
\c regress_homes_eu
SELECT * FROM shop.crashed ORDER BY id;
SELECT count(*), min(keyspace) FROM homing.tables WHERE table_name = 'shop.crashed'::regclass;

-- The owner of a table may home it when the functions are granted to him; nobody else.
\c regress_homes_us
CREATE TABLE shop.owned (id int PRIMARY KEY);
ALTER TABLE shop.owned OWNER TO regress_homes_owner;
GRANT USAGE ON SCHEMA shop TO regress_homes_owner;
SET ROLE regress_homes_owner;
SELECT homing.home_table('shop.owned', 'id');
SELECT homing.unhome_table('shop.owned');
SELECT homing.assign_key('shop.owned', 1, 'eu');
SELECT homing._peer_open('a', 'host=nowhere');
SELECT homing._register_table('shop.owned', 'id', 1000, 1000, 'x', 'hash', '{1}', false);
RESET ROLE;
GRANT EXECUTE ON FUNCTION homing.home_table, homing.unhome_table, homing.assign_key TO regress_homes_owner;
SET ROLE regress_homes_owner;
SELECT homing.home_table('shop.crashed', 'id');
SELECT homing.unhome_table('shop.orders');
SELECT homing.assign_key('shop.orders', 5000, 'eu');
SELECT homing.home_table('shop.owned', 'id');
SELECT homing.home_of('shop.owned', 1) IS NOT NULL AS has_home;
RESET ROLE;

-- A region that is fenced changes nothing.
UPDATE homing.local_region SET fenced = 'a test';
CREATE TABLE late (id int PRIMARY KEY);
SELECT homing.home_table('late', 'id');
SELECT homing.unhome_table('shop.orders');
SELECT homing.assign_key('shop.orders', 5000, 'eu');
UPDATE homing.local_region SET fenced = NULL;
\c regress_homes_eu
UPDATE homing.local_region SET fenced = 'a test';
\c regress_homes_us
\set VERBOSITY terse
SELECT homing.home_table('late', 'id');
\set VERBOSITY default
\c regress_homes_eu
UPDATE homing.local_region SET fenced = NULL;

-- A region that cannot be reached: the change is refused everywhere.
\c regress_homes_us
ALTER SERVER ap OPTIONS (SET dbname 'regress_homes_nowhere');
\set VERBOSITY sqlstate
SELECT homing.home_table('late', 'id');
SELECT homing.unhome_table('shop.orders');
\set VERBOSITY default
SELECT count(*) FROM homing.tables WHERE table_name = 'late'::regclass;
ALTER SERVER ap OPTIONS (SET dbname 'regress_homes_ap');
SELECT homing.home_table('late', 'id');

-- Away with all of it.
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
\c regress_homes_us
:leave;
\c regress_homes_eu
:leave;
\c regress_homes_ap
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_homes%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_homes_us WITH (FORCE);
DROP DATABASE regress_homes_eu WITH (FORCE);
DROP DATABASE regress_homes_ap WITH (FORCE);
DROP ROLE regress_homes_owner;
