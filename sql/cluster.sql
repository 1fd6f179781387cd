-- A cluster of three databases of one server: how it comes to be, what is refused, what a failure leaves.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT current_database() AS original,
	format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server \gset
\set us :server ' dbname=regress_homing_us'
\set eu :server ' dbname=regress_homing_eu'
\set ap :server ' dbname=regress_homing_ap'
\set odd :server ' dbname=regress_homing_odd'
CREATE DATABASE regress_homing_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_homing_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_homing_ap TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_homing_odd TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE ROLE regress_homing_app LOGIN;

-- The first region.
\c regress_homing_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('US', :'us');
SELECT homing.create_cluster('', :'us');
SELECT homing.create_cluster(NULL, :'us');
SELECT homing.create_cluster('us', NULL);
SELECT homing.create_cluster('us', 'no connection string');
SELECT homing.create_cluster('us', 'postgresql://x:secret@/?nonsense=1');
\set VERBOSITY terse
SELECT homing.create_cluster('us', :'eu');
SELECT homing.create_cluster('us', :'us' || ' user=regress_homing_app');
SELECT homing.create_cluster('us', :'us' || ' connect_timeout=2');
\set VERBOSITY default
CREATE PUBLICATION homing;
ALTER PUBLICATION homing ADD TABLES IN SCHEMA public;
SELECT homing.create_cluster('us', :'us');
DROP PUBLICATION homing;
CREATE SERVER us FOREIGN DATA WRAPPER homing;
SELECT homing.create_cluster('us', :'us');
DROP SERVER us;
-- Nothing of these attempts is left; a rolled back one leaves nothing either.
BEGIN;
SELECT homing.create_cluster('us', :'us');
ROLLBACK;
SELECT (SELECT count(*) FROM homing.local_region) AS regions, (SELECT count(*) FROM pg_foreign_server) AS servers,
	(SELECT count(*) FROM pg_publication) AS publications;
SELECT * FROM homing.regions;

SELECT homing.create_cluster('us', :'us' || ' password=''a secret''');
SELECT homing.create_cluster('us', :'us');
-- The password went into the user mapping.
SELECT srvname, srvoptions::text LIKE '%secret%' AS password_in_server FROM pg_foreign_server;
SELECT umoptions::text LIKE '%password=a secret%' AS password_in_mapping FROM pg_user_mapping;
SELECT name, status, epoch, homes, fenced FROM homing.regions;
SELECT epoch, kind, region, actor = current_user AS by_me, reason FROM homing.events;

CREATE SCHEMA shop;
CREATE TYPE shop.plan AS ENUM ('free', 'pro');
CREATE TABLE shop.customers (id bigint PRIMARY KEY, plan shop.plan NOT NULL DEFAULT 'free', note text);
CREATE INDEX ON shop.customers (plan);
CREATE TABLE at_us (id int PRIMARY KEY, writer text);
INSERT INTO shop.customers SELECT g, 'free', 'from us' FROM generate_series(1, 100) g;
SELECT homing.home_table('shop.customers', 'id');
SELECT homing.home_table('at_us', 'id', placement => 'region', region => 'us');

-- What a joining database must be like.
\c regress_homing_eu
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('eu', :'eu', via => NULL);
SELECT homing.join_cluster('e-u', :'eu', via => :'us');
SELECT homing.join_cluster('us', :'eu', via => :'us');
SELECT homing.join_cluster('eu', :'eu', via => :'eu');
\set VERBOSITY terse
SELECT homing.join_cluster('eu', :'us', via => :'us');
SELECT homing.join_cluster('eu', :'eu', via => :'server' || ' dbname=' || :'original');
SELECT homing.join_cluster('eu', :'eu', via => :'server' || ' dbname=template1');
\set VERBOSITY sqlstate
SELECT homing.join_cluster('eu', :'eu', via => 'host=/nonexistent');
\set VERBOSITY default
CREATE SERVER us FOREIGN DATA WRAPPER homing;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
DROP SERVER us;
CREATE TABLE at_us (id bigint PRIMARY KEY, writer text);
SELECT homing.join_cluster('eu', :'eu', via => :'us');
DROP TABLE at_us;
CREATE TABLE at_us (id int PRIMARY KEY, writer text UNIQUE);
SELECT homing.join_cluster('eu', :'eu', via => :'us');
DROP TABLE at_us;
CREATE TABLE at_us (id int PRIMARY KEY, writer text);
INSERT INTO at_us VALUES (1);
SELECT homing.join_cluster('eu', :'eu', via => :'us');
DELETE FROM at_us;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
ROLLBACK;
BEGIN;
CREATE TABLE t ();
SELECT homing.join_cluster('eu', :'eu', via => :'us');
ROLLBACK;
\c regress_homing_odd
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('odd', :'odd', via => :'us');

-- Failures when much is done already: nothing is left anywhere, and the next try succeeds.
\c regress_homing_us
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused by an event trigger'; END$$;
CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('ALTER SUBSCRIPTION') EXECUTE FUNCTION refuse();
\c regress_homing_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_homing_us
DROP EVENT TRIGGER refuse;
-- At the commit of the new region, when the others have committed.
\c regress_homing_eu
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused at commit'; END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON homing.milestone INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT homing.join_cluster('eu', :'eu', via => :'us');
DROP TRIGGER refuse ON homing.milestone;

SELECT (SELECT count(*) FROM homing.member) AS members, (SELECT count(*) FROM pg_foreign_server) AS servers,
	(SELECT count(*) FROM pg_publication) AS publications, (SELECT count(*) FROM pg_user_mapping) AS mappings,
	(SELECT count(*) FROM at_us) AS rows, to_regclass('shop.customers') AS brought;
SELECT count(*) FROM pg_replication_slots WHERE database LIKE 'regress_homing%' AND slot_name !~ '_tail_';
SELECT count(*) FROM pg_subscription WHERE subname LIKE 'homing%';
\c regress_homing_us
SELECT name, status FROM homing.regions;
SELECT srvname FROM pg_foreign_server;

-- It joins: one table is here already, the other is brought.
\c regress_homing_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
SELECT homing.join_cluster('eu', :'eu', via => :'us');
SELECT homing.create_cluster('eu', :'eu');
SELECT name, status, homes FROM homing.regions;
SELECT table_name, key_column, placement, homes, state FROM homing.tables ORDER BY 1;
SELECT count(*), min(note), max(plan) FROM shop.customers;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'shop' ORDER BY 1;
SELECT kind, region FROM homing.events WHERE kind = 'join_cluster';
\c regress_homing_ap
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('ap', :'ap', via => :'eu');
SELECT name, status, homes FROM homing.regions;
-- It is home to nothing that was homed before it joined.
SELECT DISTINCT owner FROM homing.homes;

-- Every region writes its own tables; all have all of it.
\c regress_homing_eu
CREATE TABLE at_eu (id int PRIMARY KEY, writer text);
SELECT homing.home_table('at_eu', 'id', placement => 'region', region => 'eu');
SELECT homing.home_table('at_ap', 'id', placement => 'region', region => 'ap');
CREATE TABLE at_ap (id int PRIMARY KEY, writer text);
SELECT homing.home_table('at_ap', 'id', placement => 'region', region => 'ap');
SELECT homing._await_replication();
INSERT INTO at_eu VALUES (1, 'eu'), (2, 'eu'), (3, 'eu');
DELETE FROM at_eu WHERE id = 2;
SELECT homing._await_replication();
\c regress_homing_ap
INSERT INTO at_ap VALUES (1, 'ap'), (2, 'ap');
UPDATE at_ap SET writer = 'ap again' WHERE id = 2;
SELECT homing._await_replication();
\c regress_homing_us
INSERT INTO at_us VALUES (1, 'us'), (2, 'us');
UPDATE at_us SET id = 7 WHERE id = 2;
INSERT INTO shop.customers VALUES (101, 'pro', 'after the join');
SELECT homing._await_replication();
\set everything 'SELECT (SELECT string_agg(t::text, '' '' ORDER BY id) FROM at_us t) AS at_us, (SELECT string_agg(t::text, '' '' ORDER BY id) FROM at_eu t) AS at_eu, (SELECT string_agg(t::text, '' '' ORDER BY id) FROM at_ap t) AS at_ap, (SELECT count(*) FROM shop.customers) AS customers'
:everything;
\c regress_homing_eu
:everything;
\c regress_homing_ap
:everything;
-- What was applied is not sent on: each stream holds only what its publisher wrote.
SELECT count(*) FROM pg_stat_subscription_stats WHERE subname LIKE 'homing%' AND apply_error_count > 0;

-- The password rule: who is no superuser needs one, unless a superuser says otherwise.
GRANT USAGE ON SCHEMA public TO regress_homing_app;
GRANT SELECT, UPDATE ON at_us TO regress_homing_app;
\c regress_homing_us
GRANT SELECT, UPDATE ON at_us TO regress_homing_app;
\c regress_homing_ap
SET ROLE regress_homing_app;
UPDATE at_us SET writer = 'app' WHERE id = 1;
RESET ROLE;
CREATE USER MAPPING FOR regress_homing_app SERVER us OPTIONS (user 'regress_homing_app');
SET ROLE regress_homing_app;
UPDATE at_us SET writer = 'app' WHERE id = 1;
SELECT homing.home_of('at_us', 1), name FROM homing.regions ORDER BY name LIMIT 1;
RESET ROLE;
ALTER USER MAPPING FOR regress_homing_app SERVER us OPTIONS (ADD password_required 'false');
SET ROLE regress_homing_app;
UPDATE at_us SET writer = 'app' WHERE id = 1 RETURNING *;
RESET ROLE;

-- A second cluster on the same server.
\c regress_homing_odd
SELECT homing.create_cluster('us', :'odd');
SELECT name, status FROM homing.regions;

-- Away with all of it.
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
\c regress_homing_us
:leave;
\c regress_homing_eu
:leave;
\c regress_homing_ap
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_homing%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_homing_us WITH (FORCE);
DROP DATABASE regress_homing_eu WITH (FORCE);
DROP DATABASE regress_homing_ap WITH (FORCE);
DROP DATABASE regress_homing_odd WITH (FORCE);
DROP ROLE regress_homing_app;
