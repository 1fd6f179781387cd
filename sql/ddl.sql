-- DDL, TRUNCATE and COPY on homed tables.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
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

-- this region and another one, filled in by hand
INSERT INTO homing.local_region VALUES (1, '00000000-0000-0000-0000-000000000001', current_user);
INSERT INTO homing.cluster_map VALUES (2);
INSERT INTO homing.member (region_id, name, status, joined_epoch) VALUES (1, 'us', 'active', 1), (2, 'eu', 'active', 2);
INSERT INTO homing.keyspace VALUES (1, 'customers', 'hash', 2, '{1,2}'), (2, 'events', 'hash', 1, '{1}');
DO $$ BEGIN PERFORM homing._install_guard(t) FROM unnest('{customers, orders, events}'::regclass[]) t; END $$;
INSERT INTO homing.homed_table VALUES (1, 'customers'::regclass, 1, 1), (2, 'orders'::regclass, 1, 1), (3, 'events'::regclass, 2, 1);
INSERT INTO homing.activation VALUES (1), (2), (3);

-- every kind is refused while another region has the table
ALTER TABLE customers ADD COLUMN extra int;
ALTER TABLE customers RENAME COLUMN name TO full_name;
ALTER TABLE customers RENAME TO clients;
ALTER TABLE customers SET SCHEMA public;
ALTER TABLE customers ADD CONSTRAINT c CHECK (id > 0);
ALTER TABLE plain ADD FOREIGN KEY (customer_id) REFERENCES customers;
CREATE INDEX ON customers (name);
CREATE INDEX CONCURRENTLY ON customers (name);
DROP INDEX customers_pkey;
ALTER INDEX customers_pkey RENAME TO pk;
CREATE TRIGGER t BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE POLICY p ON customers;
CREATE RULE r AS ON INSERT TO customers DO NOTHING;
CREATE STATISTICS s ON id, name FROM customers;
COMMENT ON TABLE customers IS 'x';
COMMENT ON COLUMN customers.name IS 'x';
COMMENT ON CONSTRAINT customers_pkey ON customers IS 'x';
DROP TABLE customers CASCADE;
DROP TABLE plain, orders;
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE child () INHERITS (customers);
ALTER TABLE events DETACH PARTITION events_1;
ALTER TABLE events_1 ADD CHECK (note <> '');
ALTER TYPE state ADD VALUE 'sent';
ALTER DOMAIN amount DROP CONSTRAINT amount_check;
ALTER TYPE address ADD ATTRIBUTE zip text CASCADE;
ALTER TYPE address RENAME ATTRIBUTE city TO town;
ALTER TYPE state SET SCHEMA public;
ALTER SCHEMA shop RENAME TO store;

-- so is what a cascade would reach
DROP SCHEMA shop CASCADE;
DROP TYPE address CASCADE;
DROP DOMAIN amount CASCADE;
CREATE ROLE homing_ddl_owner;
GRANT CREATE, USAGE ON SCHEMA shop TO homing_ddl_owner;
SET ROLE homing_ddl_owner;
SET search_path = shop;
CREATE TYPE mood AS ENUM ('sad');
RESET ROLE;
SET homing.local_ddl = on;
ALTER TABLE customers ADD COLUMN mood mood;
RESET homing.local_ddl;
DROP OWNED BY homing_ddl_owner CASCADE;
DO $$ BEGIN EXECUTE 'DROP TABLE shop.orders'; END $$;

-- other tables and types are free
ALTER TABLE plain ADD COLUMN extra int;
CREATE TYPE unused AS ENUM ('a');
ALTER TYPE unused ADD VALUE 'b';
DROP TYPE unused;

-- one region only, on request; some changes never
SET homing.local_ddl = on;
DROP OWNED BY homing_ddl_owner CASCADE;
ALTER TABLE customers ADD COLUMN extra int;
ALTER TABLE customers DROP COLUMN extra;
CREATE INDEX customers_name ON customers (name);
DROP INDEX customers_name;
ALTER TABLE orders DROP COLUMN customer_id;
ALTER TABLE orders ALTER customer_id TYPE int;
ALTER TABLE orders ALTER n TYPE bigint;
ALTER TABLE orders SET UNLOGGED;
ALTER TABLE orders DISABLE TRIGGER homing_guard;
ALTER TABLE orders DISABLE TRIGGER ALL;
ALTER TABLE orders ENABLE TRIGGER USER;
DROP TRIGGER homing_guard ON orders;
ALTER TRIGGER homing_guard ON orders RENAME TO g;
ALTER TYPE state RENAME VALUE 'new' TO 'old';
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_3 (LIKE events);
ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE events DETACH PARTITION events_1;
SELECT tgrelid::regclass, tgenabled FROM pg_trigger WHERE tgname = 'homing_guard' ORDER BY 1;
DROP TABLE orders;
SELECT count(*) FROM homing.homed_table WHERE table_id = 2;
RESET homing.local_ddl;

-- TRUNCATE
TRUNCATE customers;
TRUNCATE plain, customers CASCADE;
CREATE TABLE parent (id bigint PRIMARY KEY);
SET homing.local_ddl = on;
ALTER TABLE customers ADD FOREIGN KEY (id) REFERENCES parent;
RESET homing.local_ddl;
TRUNCATE parent CASCADE;
TRUNCATE parent;
TRUNCATE plain;

-- all its homes are here
INSERT INTO events VALUES ('new', '2025-01-02', 'x'), ('paid', '2026-01-02', 'y');
TRUNCATE events_2;
SELECT * FROM events;
COPY events FROM stdin;
new	2025-02-02	copied
paid	2026-02-02	copied
\.
COPY events_2 (at, k) FROM stdin (FORMAT csv);
2025-03-03,paid
\.
SELECT * FROM events ORDER BY at;
TRUNCATE events;
SELECT count(*) FROM events;

-- this region may not serve
UPDATE homing.local_region SET fenced = 'a test says so';
TRUNCATE events;
COPY events FROM stdin;
\.
UPDATE homing.local_region SET fenced = NULL;

-- alone, everything goes
UPDATE homing.member SET status = 'lost', spread = '{1}' WHERE name = 'eu';
ALTER TABLE customers ADD COLUMN extra int;
ALTER TABLE customers DROP COLUMN id;
COPY customers (id, extra) FROM stdin;
\.
TRUNCATE customers, plain;
DROP TABLE customers CASCADE;
SELECT count(*) FROM homing.homed_table;

DROP ROLE homing_ddl_owner;
DROP EXTENSION pg_homing CASCADE;
DROP SCHEMA shop CASCADE;
