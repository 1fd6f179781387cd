-- What hangs on a table does at its home what it does on one server: triggers, references, row security, views, rules,
-- procedures, cursors, partitions. The tables' only home is eu, the statements come from us.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_objects_us'
\set eu :server ' dbname=regress_objects_eu'
CREATE DATABASE regress_objects_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_objects_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE ROLE regress_objects_alice LOGIN;
CREATE ROLE regress_objects_bob LOGIN;
\c regress_objects_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, owner name NOT NULL DEFAULT current_user, total int NOT NULL DEFAULT 0 CHECK (total < 1000), version int DEFAULT 0);
CREATE TABLE orders (customer_id int REFERENCES customer ON UPDATE CASCADE ON DELETE CASCADE, n int, amount int, PRIMARY KEY (customer_id, n));
CREATE TABLE note (customer_id int, n int, order_n int, body text, PRIMARY KEY (customer_id, n),
	FOREIGN KEY (customer_id, order_n) REFERENCES orders ON DELETE SET NULL (order_n) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE log (customer_id int, n bigserial, what text, at text DEFAULT current_database(), PRIMARY KEY (customer_id, n));
CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		RETURN CASE WHEN OLD.name = 'kept' THEN NULL ELSE OLD END;
	END IF;
	NEW.name := upper(NEW.name);
	NEW.version := NEW.version + 1;
	RETURN CASE WHEN NEW.name = 'SKIP' THEN NULL ELSE NEW END;
END $$;
CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON customer FOR EACH ROW EXECUTE FUNCTION before();
CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (customer_id, what) SELECT coalesce(NEW.customer_id, OLD.customer_id), TG_OP || ' at depth ' || pg_trigger_depth();
	UPDATE customer SET total = total + coalesce(NEW.amount, 0) - coalesce(OLD.amount, 0) WHERE id = coalesce(NEW.customer_id, OLD.customer_id);
	RETURN NULL;
END $$;
CREATE TRIGGER after AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION after();
CREATE FUNCTION each_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% of % rows at %', TG_OP, (SELECT count(*) FROM changed), current_database();
	RETURN NULL;
END $$;
CREATE TRIGGER each_statement AFTER UPDATE ON orders REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION each_statement();
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.body = 'refused' THEN
		RAISE 'refused at commit' USING ERRCODE = 'ZZ001', HINT = 'Write something else.';
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON note DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
CREATE VIEW rich AS SELECT id, name, total AS money, owner FROM customer WHERE total > 100;
CREATE VIEW checked AS SELECT id, name, total FROM customer WHERE total < 500 WITH CASCADED CHECK OPTION;
CREATE VIEW both_tables AS SELECT c.id, c.name, o.n, o.amount FROM customer c JOIN orders o ON o.customer_id = c.id;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE orders SET amount = NEW.amount WHERE customer_id = OLD.id AND n = OLD.n;
	RETURN NEW;
END $$;
CREATE TRIGGER instead INSTEAD OF UPDATE ON both_tables FOR EACH ROW EXECUTE FUNCTION instead();
CREATE VIEW ruled AS SELECT customer_id, n, amount FROM orders;
CREATE RULE put AS ON INSERT TO ruled DO INSTEAD INSERT INTO orders VALUES (NEW.customer_id, NEW.n, NEW.amount) RETURNING *;
CREATE RULE keep AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE reading (sensor int, day date, value int, PRIMARY KEY (sensor, day)) PARTITION BY RANGE (day);
CREATE TABLE reading_old PARTITION OF reading FOR VALUES FROM (MINVALUE) TO ('2025-01-01') PARTITION BY LIST (sensor);
CREATE TABLE reading_old_1 (value int, sensor int NOT NULL, day date NOT NULL);
ALTER TABLE reading_old ATTACH PARTITION reading_old_1 FOR VALUES IN (1, 2, 3);
CREATE TABLE reading_old_rest PARTITION OF reading_old DEFAULT;
CREATE TABLE reading_new PARTITION OF reading FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_objects_alice, regress_objects_bob;
GRANT ALL ON SEQUENCE log_n_seq TO regress_objects_alice, regress_objects_bob;
\c regress_objects_eu
CREATE EXTENSION pg_homing;
SET client_min_messages = warning;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_objects_us
SELECT homing.home_table('customer', 'id', placement => 'region', region => 'eu');
SELECT homing.home_table('orders', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('note', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('log', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('reading', 'sensor', placement => 'region', region => 'eu');
CREATE USER MAPPING FOR regress_objects_alice SERVER eu OPTIONS (user 'regress_objects_alice', password_required 'false');
CREATE USER MAPPING FOR regress_objects_bob SERVER eu OPTIONS (user 'regress_objects_bob', password_required 'false');
SELECT homing.run_everywhere('GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_objects_alice, regress_objects_bob; GRANT ALL ON SEQUENCE log_n_seq TO regress_objects_alice, regress_objects_bob');
\unset QUIET

-- Triggers.
INSERT INTO customer (id, name) VALUES (1, 'one'), (2, 'two'), (3, 'kept'), (4, 'skip') RETURNING id, name, version;
INSERT INTO orders VALUES (1, 1, 100), (1, 2, 50), (2, 1, 200);
UPDATE orders SET amount = amount + 1 WHERE customer_id = 1 RETURNING *;
UPDATE customer SET name = 'kept' WHERE id = 2 RETURNING name, total, version;
INSERT INTO orders VALUES (1, 9, 999);
SELECT id, name, total, version FROM customer ORDER BY id;
SELECT customer_id, what, at FROM log ORDER BY n;
BEGIN;
INSERT INTO note VALUES (1, 1, 1, 'refused');
COMMIT;
BEGIN;
INSERT INTO note VALUES (1, 1, 99, 'no such order');
COMMIT;
-- SET CONSTRAINTS, before and after the transaction reaches the other region.
BEGIN;
INSERT INTO note VALUES (1, 1, 99, 'no such order');
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
BEGIN;
SET CONSTRAINTS at_commit, note_customer_id_order_n_fkey IMMEDIATE;
SAVEPOINT s;
INSERT INTO note VALUES (1, 1, 1, 'refused');
ROLLBACK TO s;
INSERT INTO note VALUES (1, 1, 99, 'no such order');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK TO s;
INSERT INTO note VALUES (1, 1, 99, 'no such order');
UPDATE note SET order_n = 1 WHERE customer_id = 1 AND n = 1;
COMMIT;
DELETE FROM note;
BEGIN;
INSERT INTO note VALUES (1, 1, 8, 'the order comes later'), (1, 2, 2, 'second');
INSERT INTO orders VALUES (1, 8, 8);
COMMIT;

-- References.
INSERT INTO orders VALUES (77, 1, 1);
DELETE FROM orders WHERE customer_id = 1 AND n = 2;
SELECT * FROM note ORDER BY n;
UPDATE customer SET id = 10 WHERE id = 2 RETURNING id;
SELECT * FROM orders ORDER BY 1, 2;
DELETE FROM note WHERE customer_id = 1;
DELETE FROM customer WHERE id = 10 RETURNING name;
SELECT * FROM orders ORDER BY 1, 2;

-- Views and rules.
UPDATE rich SET name = 'rich one' WHERE id = 1 RETURNING *;
DELETE FROM rich WHERE id = 3;
INSERT INTO checked VALUES (5, 'five', 5) RETURNING *;
INSERT INTO checked VALUES (6, 'six', 600);
UPDATE checked SET total = 600 WHERE id = 5;
UPDATE both_tables SET amount = 77 WHERE id = 1 AND n = 1 RETURNING *;
INSERT INTO ruled VALUES (5, 1, 1) RETURNING *;
DELETE FROM ruled WHERE customer_id = 5;
SELECT * FROM orders ORDER BY 1, 2;

-- Procedures, blocks, cursors, temporary tables.
CREATE PROCEDURE work(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first .. last LOOP
		INSERT INTO customer (id, name) VALUES (i, 'p' || i);
		IF i % 2 = 0 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;
CALL work(20, 25);
SELECT id, name FROM customer WHERE id >= 20 ORDER BY id;
DO $$
DECLARE
	c CURSOR FOR SELECT * FROM customer WHERE id = 21 FOR UPDATE;
	r record;
BEGIN
	OPEN c;
	FETCH c INTO r;
	RAISE NOTICE 'locked %', r.name;
	BEGIN
		UPDATE customer SET total = 5000 WHERE id = r.id;
	EXCEPTION WHEN check_violation THEN
		RAISE NOTICE '% %', SQLSTATE, SQLERRM;
	END;
	UPDATE customer SET name = 'from a block' WHERE id = r.id;
	COMMIT;
	DELETE FROM customer WHERE id = 23;
	ROLLBACK;
END $$;
SELECT id, name FROM customer WHERE id >= 20 ORDER BY id;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM customer WHERE id = 1;
FETCH c;
UPDATE customer SET total = 0 WHERE CURRENT OF c;
ROLLBACK;
CREATE TEMP TABLE mine (id int, name text);
INSERT INTO mine VALUES (1, 'mine'), (30, 'thirty');
UPDATE customer SET name = m.name FROM mine m WHERE m.id = customer.id AND customer.id = 1;
INSERT INTO customer (id, name) SELECT id, name FROM mine WHERE id = 30 RETURNING id, name;
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no % in %', tg_tag, current_database() USING ERRCODE = 'ZZ002'; END $$;
CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION forbid();
ALTER TABLE customer ADD COLUMN never int;
DROP EVENT TRIGGER forbid;
\c regress_objects_eu
SET client_min_messages = warning;
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no % in %', tg_tag, current_database() USING ERRCODE = 'ZZ002'; END $$;
CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION forbid();
\c regress_objects_us
ALTER TABLE customer ADD COLUMN never int;
SELECT count(*) FROM pg_attribute WHERE attrelid = 'customer'::regclass AND attname = 'never';
\c regress_objects_eu
DROP EVENT TRIGGER forbid;
\c regress_objects_us

-- Row security sees the caller.
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customer USING (owner = current_user) WITH CHECK (owner = current_user AND total < 100);
\c 'dbname=regress_objects_us user=regress_objects_alice'
INSERT INTO customer (id, name) VALUES (40, 'of alice') RETURNING id, owner;
INSERT INTO customer (id, name, owner) VALUES (41, 'of bob', 'regress_objects_bob');
UPDATE customer SET total = 200 WHERE id = 40;
UPDATE customer SET name = 'hers' RETURNING id, name;
SET SESSION AUTHORIZATION regress_objects_alice;
\c 'dbname=regress_objects_us user=regress_objects_bob'
UPDATE customer SET name = 'taken' WHERE id = 40;
DELETE FROM customer RETURNING id;
SELECT id FROM customer WHERE id = 40 FOR UPDATE;
SET row_security = off;
DELETE FROM customer WHERE id = 40;
\c 'dbname=regress_objects_us user=postgres'
ALTER TABLE customer DISABLE ROW LEVEL SECURITY;
SELECT id, name, owner = current_user AS mine FROM customer ORDER BY id;

-- Partitions: homed at the root, whatever they are cut by.
INSERT INTO reading VALUES (1, '2024-01-01', 1), (4, '2024-01-01', 4), (1, '2025-01-01', 5), (2, '2024-02-02', 2) RETURNING tableoid::regclass, *;
INSERT INTO reading VALUES (1, '2030-01-01', 1);
INSERT INTO reading_old_1 (sensor, day, value) VALUES (3, '2024-03-03', 3) RETURNING *;
INSERT INTO reading_new VALUES (3, '2024-03-03', 3);
UPDATE reading SET day = '2025-06-06' WHERE sensor = 1 AND day = '2024-01-01' RETURNING tableoid::regclass, *;
UPDATE reading_old SET value = value * 10 WHERE sensor = 4 RETURNING *;
UPDATE reading_old_1 SET value = value + 1 RETURNING *;
DELETE FROM reading_new WHERE sensor = 1 AND day < '2025-03-03' RETURNING *;
COPY reading FROM stdin;
7	2024-07-07	7
8	2025-08-08	8
\.
COPY reading_old_1 (sensor, day) FROM stdin;
1	2024-09-09
\.
SELECT homing.run_everywhere('CREATE TABLE reading_later (LIKE reading)');
ALTER TABLE reading ATTACH PARTITION reading_later FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
INSERT INTO reading VALUES (9, '2026-09-09', 9) RETURNING tableoid::regclass, *;
INSERT INTO reading_later VALUES (9, '2026-10-10', 10);
ALTER TABLE reading DETACH PARTITION reading_old;
INSERT INTO reading VALUES (9, '2024-09-09', 9);
INSERT INTO reading_old VALUES (9, '2024-09-09', 9) RETURNING *;
TRUNCATE reading_later;
SELECT tableoid::regclass, * FROM reading ORDER BY sensor, day;
SELECT pubviaroot FROM pg_publication WHERE pubname = 'homing';
SELECT homing.home_table('parent', 'id');
SELECT homing.home_table('child', 'id');
SELECT homing.home_table('reading_new', 'sensor');
DO $$
DECLARE
	written pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	WHILE EXISTS (SELECT FROM pg_replication_slots WHERE database LIKE 'regress_objects%' AND confirmed_flush_lsn < written) LOOP
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END
$$;
\c regress_objects_eu
SELECT tableoid::regclass, * FROM reading ORDER BY sensor, day;
SELECT count(*) FROM reading_old WHERE sensor = 9;
SELECT id, name, total FROM customer ORDER BY id;
\c regress_objects_us

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_objects_eu
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FROM pg_replication_slots WHERE database LIKE 'regress_objects%';
DROP DATABASE regress_objects_us WITH (FORCE);
DROP DATABASE regress_objects_eu WITH (FORCE);
DROP ROLE regress_objects_alice, regress_objects_bob;
