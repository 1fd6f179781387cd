-- DDL and TRUNCATE on homed tables: in every region, or in none.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_ddl_us'
\set eu :server ' dbname=regress_ddl_eu'
CREATE DATABASE regress_ddl_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_ddl_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_ddl_eu
CREATE EXTENSION pg_homing;
\c regress_ddl_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
\c regress_ddl_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_ddl_us
SET client_min_messages = warning;
CREATE SCHEMA shop;
SET search_path = shop;
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE DOMAIN amount AS numeric CHECK (VALUE >= 0);
CREATE TYPE address AS (street text, city text);
CREATE TABLE customers (id bigint PRIMARY KEY, name text, address address);
CREATE TABLE orders (customer_id bigint REFERENCES customers, n int, state state, total amount, PRIMARY KEY (customer_id, n));
CREATE TABLE events (k state, at date, note text, PRIMARY KEY (k, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE plain (id int PRIMARY KEY, customer_id bigint);
SELECT homing.home_table('customers', 'id');
SELECT homing.home_table('orders', 'customer_id', colocate_with => 'customers');
SELECT homing.home_table('events', 'k', placement => 'region', region => 'us');

-- What a table looks like, at both regions.
SELECT homing.run_everywhere($x$CREATE FUNCTION public.look(schema name DEFAULT 'shop') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT format('column %s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
			CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid)) AS line
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		WHERE c.relnamespace = to_regnamespace(schema) AND c.relkind IN ('r', 'p') AND c.relname <> 'plain'
		UNION ALL SELECT format('index %s', pg_get_indexdef(i.indexrelid)) || CASE WHEN indisvalid THEN '' ELSE ' invalid' END
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = to_regnamespace(schema) AND c.relname <> 'plain'
		UNION ALL SELECT format('constraint %s of %s: %s', k.conname, k.conrelid::regclass, pg_get_constraintdef(k.oid))
		FROM pg_constraint k WHERE k.connamespace = to_regnamespace(schema) AND k.conrelid <> 0 AND k.conrelid IS DISTINCT FROM to_regclass('shop.plain')
		UNION ALL SELECT format('trigger %s on %s %s', t.tgname, t.tgrelid::regclass, t.tgenabled)
		FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = to_regnamespace(schema) AND NOT t.tgisinternal
		UNION ALL SELECT format('policy %s on %s', p.polname, p.polrelid::regclass)
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = to_regnamespace(schema)
		UNION ALL SELECT format('rule %s on %s', r.rulename, r.tablename) FROM pg_rules r WHERE r.schemaname = schema
		UNION ALL SELECT format('statistics %s', pg_get_statisticsobjdef(s.oid)) FROM pg_statistic_ext s WHERE s.stxnamespace = to_regnamespace(schema)
		UNION ALL SELECT format('comment %s: %s', pg_describe_object(classoid, objoid, objsubid), description) FROM pg_description WHERE objoid >= 16384
			AND description LIKE 'said%'
		UNION ALL SELECT format('partition %s of %s', inhrelid::regclass, inhparent::regclass) FROM pg_inherits JOIN pg_class ON oid = inhrelid
			WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace(schema)
		UNION ALL SELECT format('label %s', enumlabel) FROM pg_enum JOIN pg_type t ON t.oid = enumtypid WHERE typnamespace = to_regnamespace(schema)
		UNION ALL SELECT format('homed %s', relid::regclass) FROM homing.homed_table
	) lines
$$$x$);
RESET client_min_messages;

-- every kind
ALTER TABLE customers ADD COLUMN extra int DEFAULT 5, ADD COLUMN since date;
ALTER TABLE customers RENAME COLUMN since TO customer_since;
ALTER TABLE orders RENAME TO purchases;
ALTER TABLE purchases ADD CONSTRAINT positive CHECK (n > 0);
ALTER TABLE purchases ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
CREATE INDEX customers_name ON customers (name);
CREATE INDEX CONCURRENTLY customers_extra ON customers (extra) WHERE extra > 0;
CREATE INDEX CONCURRENTLY gone ON customers (extra);
ALTER INDEX customers_name RENAME TO customers_by_name;
DROP INDEX CONCURRENTLY gone;
CREATE TRIGGER t BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE POLICY p ON customers USING (id > 0);
CREATE RULE r AS ON UPDATE TO purchases WHERE false DO INSTEAD NOTHING;
CREATE STATISTICS s ON id, name FROM customers;
COMMENT ON TABLE customers IS 'said of a table';
COMMENT ON COLUMN customers.name IS 'said of a column';
COMMENT ON CONSTRAINT positive ON purchases IS 'said of a constraint';
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
SELECT homing.run_everywhere('CREATE TABLE shop.events_3 (LIKE shop.events)');
ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE events DETACH PARTITION events_1;
ALTER TABLE events_2 ADD CHECK (note <> '');
ALTER TYPE state ADD VALUE 'sent';
ALTER DOMAIN amount DROP CONSTRAINT amount_check;
ALTER TYPE address ADD ATTRIBUTE zip text CASCADE;
ALTER TYPE address RENAME ATTRIBUTE city TO town;
ALTER TABLE customers ALTER name TYPE varchar(100), ALTER name SET DEFAULT 'nobody';
BEGIN;
ALTER TABLE customers DROP COLUMN extra;
SAVEPOINT s;
ALTER TABLE customers ADD COLUMN undone int;
ROLLBACK TO s;
ALTER TABLE customers ADD COLUMN done int;
COMMIT;
BEGIN;
ALTER TABLE customers ADD COLUMN undone int;
ROLLBACK;
DO $$ BEGIN EXECUTE 'ALTER TABLE shop.customers ADD COLUMN by_do int'; END $$;
\c regress_ddl_us
SET search_path = shop;
SELECT public.look();
SELECT public.look() AS us \gset
\c regress_ddl_eu
SET search_path = shop;
SELECT line AS different FROM unnest(string_to_array(public.look(), E'\n')) line WHERE line <> ALL (string_to_array(:'us', E'\n'))
UNION ALL SELECT line FROM unnest(string_to_array(:'us', E'\n')) line WHERE line <> ALL (string_to_array(public.look(), E'\n'));

-- also from the other region, and with rows around it
INSERT INTO customers (id, name) SELECT k, 'c' || k FROM generate_series(1, 100) k;
INSERT INTO purchases SELECT k, 1, 'sent', 1 FROM generate_series(1, 100) k;
ALTER TABLE customers ADD COLUMN from_eu int DEFAULT 3;
UPDATE customers SET from_eu = 4 WHERE id <= 50;
ALTER TABLE purchases DROP COLUMN total;
DELETE FROM purchases WHERE customer_id > 90;
DELETE FROM customers WHERE id > 90;
ALTER TABLE purchases ADD COLUMN total int;
UPDATE purchases SET total = n WHERE customer_id = 1;
CREATE PROCEDURE public.await(wanted text) LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT concat_ws(' ', count(*), sum(from_eu)) FROM shop.customers) <> wanted LOOP
		PERFORM pg_sleep(0.02);
		COMMIT;
	END LOOP;
END
$$;
SET statement_timeout = '60s';
CALL public.await('90 320');
SELECT count(*), sum(from_eu) FROM customers;

-- TRUNCATE
TRUNCATE customers;
TRUNCATE customers, purchases;
SELECT count(*) FROM customers;
INSERT INTO customers (id) SELECT k FROM generate_series(1, 10) k;
TRUNCATE customers CASCADE;
INSERT INTO customers (id) SELECT k FROM generate_series(1, 5) k;
CALL public.await('5 15');
\c regress_ddl_us
SELECT count(*), sum(from_eu) FROM shop.customers;
SET search_path = shop;
-- all homes of its table are here: it is replicated
INSERT INTO events VALUES ('new', '2025-01-02', 'x'), ('paid', '2026-01-02', 'y');
TRUNCATE events_2;
SELECT * FROM events;
COPY events FROM stdin;
new	2025-02-02	copied
paid	2026-02-02	copied
\.
TRUNCATE events;
SELECT count(*) FROM events;

-- what cannot be
ALTER TABLE customers DROP COLUMN id;
ALTER TABLE purchases ALTER customer_id TYPE int;
ALTER TABLE purchases SET UNLOGGED;
ALTER TABLE purchases DISABLE TRIGGER homing_guard;
ALTER TABLE purchases DISABLE TRIGGER ALL;
ALTER TABLE purchases ENABLE TRIGGER USER;
DROP TRIGGER homing_guard ON purchases;
ALTER TRIGGER homing_guard ON purchases RENAME TO g;
ALTER TYPE state RENAME VALUE 'new' TO 'old';
CREATE TABLE child () INHERITS (customers);
ALTER TABLE plain INHERIT customers;
ALTER TABLE events DETACH PARTITION events_2 CONCURRENTLY;
ALTER TABLE customers ADD COLUMN s serial;
ALTER TABLE customers ADD COLUMN at timestamptz DEFAULT now();
BEGIN;
CREATE INDEX CONCURRENTLY ON customers (name);
ROLLBACK;
BEGIN;
INSERT INTO customers (id) VALUES (1000);
ALTER TABLE customers ADD COLUMN never int;
ROLLBACK;
BEGIN;
ALTER TABLE customers ADD COLUMN never int;
INSERT INTO customers (id) VALUES (1000);
ROLLBACK;
-- a cascade does not reach a homed table
DROP SCHEMA shop CASCADE;
DROP TYPE address CASCADE;
DROP DOMAIN amount CASCADE;
CREATE ROLE regress_ddl_owner;
GRANT CREATE, USAGE ON SCHEMA shop TO regress_ddl_owner;
SELECT homing.run_everywhere('GRANT CREATE, USAGE ON SCHEMA shop TO regress_ddl_owner');
SET ROLE regress_ddl_owner;
ALTER TABLE customers ADD COLUMN never int;
TRUNCATE customers;
SELECT homing._begin_change_everywhere('{shop.customers}', false);
SELECT homing._begin_change_everywhere('{}', false);
SELECT homing._begin_change_everywhere('{shop.nothing}', false);
SELECT homing.run_everywhere('CREATE TYPE shop.mood AS ENUM (''sad'')');
RESET ROLE;
-- errors of another region
\c regress_ddl_eu
DROP TABLE IF EXISTS shop.plain;
INSERT INTO shop.customers (id, name) VALUES (7, 'seven');
\c regress_ddl_us
SET search_path = shop;
ALTER TABLE customers ADD FOREIGN KEY (done) REFERENCES plain;
SELECT homing.run_everywhere('COMMENT ON TABLE shop.plain IS ''said''');
SELECT homing.run_everywhere('UPDATE shop.plain SET id = 1');
SELECT homing.run_everywhere('SELECT 1; VACUUM');

-- in one region only, on request
SET homing.local_ddl = on;
ALTER TABLE customers ADD COLUMN here int;
ALTER TABLE customers DROP COLUMN here;
RESET homing.local_ddl;

-- a region that cannot be reached
ALTER SERVER eu OPTIONS (SET port '1');
\set VERBOSITY sqlstate
ALTER TABLE customers ADD COLUMN never int;
TRUNCATE customers CASCADE;
SELECT homing.run_everywhere('GRANT SELECT ON shop.plain TO PUBLIC');
CREATE INDEX CONCURRENTLY ON customers (name);
\set VERBOSITY default
SELECT current_setting('port') AS port \gset
ALTER SERVER eu OPTIONS (SET port :'port');

-- a homed table that is dropped
DROP TABLE purchases;
SELECT homing.run_everywhere('DROP SCHEMA shop CASCADE');
SELECT count(*) FROM homing.homed_table;
\c regress_ddl_eu
SELECT count(*) FROM homing.homed_table;
SELECT to_regnamespace('shop');
\c regress_ddl_us

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_ddl_eu
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_ddl%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_ddl_us WITH (FORCE);
DROP DATABASE regress_ddl_eu WITH (FORCE);
DROP ROLE regress_ddl_owner;
