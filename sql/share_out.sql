-- Statements whose rows live in several regions (DESIGN §6), seen from one of three.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_share_us'
\set eu :server ' dbname=regress_share_eu'
\set ap :server ' dbname=regress_share_ap'
CREATE DATABASE regress_share_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_share_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_share_ap TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_share_ap
CREATE EXTENSION pg_homing;
\c regress_share_eu
CREATE EXTENSION pg_homing;
\c regress_share_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
\c regress_share_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_share_ap
SELECT homing.join_cluster('ap', :'ap', via => :'us');
\c regress_share_us
CREATE TYPE place AS (street text, zip int, town text);
-- The key is not the first column, and a column between was dropped.
CREATE TABLE item (note text DEFAULT 'none', gone int, price numeric(8, 2) CHECK (price >= 0), id bigint PRIMARY KEY,
	tags text[], at place, twice numeric GENERATED ALWAYS AS (price * 2) STORED);
ALTER TABLE item DROP COLUMN gone;
CREATE TABLE part (item_id bigint REFERENCES item ON DELETE CASCADE, no int, weight int, PRIMARY KEY (item_id, no));
CREATE TABLE code (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int);
SELECT homing.home_table('item', 'id');
SELECT homing.home_table('part', 'item_id', colocate_with => 'item');
SELECT homing.home_table('code', 'id');
SELECT k, homing.home_of('item', k::bigint) FROM generate_series(1, 12) k;
-- Waits until all regions have applied what was written here.
CREATE PROCEDURE settle() LANGUAGE plpgsql AS $$
DECLARE
	written pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	WHILE EXISTS (SELECT FROM pg_replication_slots WHERE database LIKE 'regress_share%' AND slot_name !~ '_tail_' AND confirmed_flush_lsn < written) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
\unset QUIET

-- INSERT … VALUES. RETURNING keeps the order of VALUES.
INSERT INTO item (id, note, price) VALUES (3, 'c', 3), (1, 'a', 1), (2, 'b', 2), (4, DEFAULT, 4) RETURNING id, note, price, twice;
INSERT INTO item (price, id) VALUES (5, 5), (6, 6), (7, 7) RETURNING note, id;
INSERT INTO item (tags, price, id, note) VALUES ('{a}', 8, 8, 'h'), (NULL, DEFAULT, 9, NULL), (ARRAY['b', 'c'], 10, 10, 'j') RETURNING id, price, tags;
INSERT INTO item (id, at.zip, tags[2], at.town) VALUES (11, 1, 'x', 'A'), (12, 2, 'y', 'B') RETURNING id, at, tags;
INSERT INTO item (id, note) VALUES (1, 'again'), (2, 'again'), (13, 'new') ON CONFLICT (id) DO UPDATE SET note = item.note || excluded.note RETURNING id, note;
INSERT INTO item (id) VALUES (1), (2), (3) ON CONFLICT DO NOTHING RETURNING id;
INSERT INTO item (id) VALUES (20), (21), (NULL);
INSERT INTO item (id) VALUES (20), (21), (1);
INSERT INTO code (n) VALUES (1), (2), (3), (4), (5), (6) RETURNING n;
SELECT count(*) FROM item WHERE id >= 20;

-- INSERT … SELECT.
CALL settle();
INSERT INTO part (item_id, no, weight) SELECT i.id, k, i.price FROM item i CROSS JOIN generate_series(1, 2) k WHERE i.id < 10;
INSERT INTO part (no, item_id) SELECT 3, v.c1 FROM (VALUES (1), (2), (3)) AS v (c1) RETURNING item_id, no;
INSERT INTO code (n) SELECT 7 FROM generate_series(1, 5) RETURNING n;
INSERT INTO item (id, at.street, note) SELECT 30 + g, 'S' || g, 'x' FROM generate_series(1, 4) g RETURNING id, at;

-- UPDATE and DELETE without a single home.
EXPLAIN (COSTS OFF) UPDATE item SET price = price + 1;
UPDATE item SET price = coalesce(price, 0) + 100;
UPDATE item SET note = 'range' WHERE id BETWEEN 1 AND 4;
UPDATE item SET note = 'list' WHERE id IN (5, 6, 7);
UPDATE item SET note = 'nobody' WHERE id = ANY ('{}'::bigint[]);
UPDATE item SET note = 'nobody' WHERE false;
UPDATE item SET note = 'nobody' WHERE id = 1 AND id = 2;
UPDATE item SET note = 'part' FROM part WHERE part.item_id = item.id AND part.no = 3;
UPDATE item SET note = 'many' WHERE EXISTS (SELECT FROM part WHERE item_id = item.id AND no = 2) AND note <> 'part';
UPDATE item SET (tags, note, price) = (SELECT ARRAY['t'], 'multi', 1) WHERE id IN (1, 2);
UPDATE item SET at.zip = 9, at.street = 'T', tags[1] = 'one', tags[3] = 'three' WHERE id IN (10, 11, 12);
UPDATE item SET price = -1;
UPDATE item SET note = 1 / (id - 7) WHERE id > 3;
DELETE FROM item WHERE id > 30 AND note = 'x';
DELETE FROM part USING item WHERE item.id = part.item_id AND item.price > 105;
CALL settle();
SELECT id, note, price, tags, at FROM item ORDER BY id;
SELECT * FROM part ORDER BY item_id, no;

-- A transaction over several regions, with savepoints.
BEGIN;
UPDATE item SET note = 'all' WHERE id <= 3;
SAVEPOINT s;
DELETE FROM item WHERE id <= 3;
UPDATE item SET price = -1 WHERE id > 3;
ROLLBACK TO s;
INSERT INTO item (id) VALUES (41), (42), (43);
COMMIT;
BEGIN;
DELETE FROM item;
ROLLBACK;
CALL settle();
SELECT count(*), count(*) FILTER (WHERE note = 'all') FROM item;

BEGIN;
COPY item (id, note) FROM STDIN;
51	x
52	x
53	x
54	x
55	x
\.
COPY item (id, note) FROM STDIN;
56	x
57	x
58	x
59	x
\.
DELETE FROM item WHERE note = 'x';
SAVEPOINT s;
COPY item (id, note) FROM STDIN;
51	x
52	x
53	x
54	x
55	x
1	again
\.
ROLLBACK TO s;
UPDATE item SET note = 'after' WHERE id = 43;
COMMIT;
CALL settle();
SELECT id, note FROM item WHERE id > 40 ORDER BY id;

-- UPDATE of the key: a part moves with its item.
UPDATE part SET item_id = item_id + 1 WHERE no = 3 AND item_id = 3 RETURNING item_id, no;
UPDATE part SET item_id = 99 WHERE no = 3;
UPDATE part SET item_id = NULL WHERE no = 3;
UPDATE part SET (no, item_id) = (SELECT 7, 5) WHERE no = 1;
-- A row that others refer to stays with them, as in an UPDATE of one server.
UPDATE item SET id = id + 100 WHERE id IN (1, 41);
UPDATE item SET id = id + 100 WHERE id IN (41, 42) RETURNING id;

-- MERGE and writes in WITH need one home.
MERGE INTO item USING (VALUES (1, 'merged')) AS v (id, note) ON item.id = v.id
WHEN MATCHED THEN UPDATE SET note = v.note, at.zip = 1, at.town = 'M' WHEN NOT MATCHED THEN INSERT (id, note) VALUES (v.id, v.note);
MERGE INTO item USING (VALUES (1, 'x'), (2, 'y'), (3, 'z')) AS v (id, note) ON item.id = v.id WHEN MATCHED THEN DELETE;
WITH gone AS (DELETE FROM part WHERE item_id = 2 RETURNING *) SELECT count(*) FROM gone;
WITH gone AS (DELETE FROM part RETURNING *) SELECT count(*) FROM gone;
SELECT id FROM item WHERE id = 2 FOR UPDATE;
SELECT id FROM item FOR UPDATE;

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_share_eu
:leave;
\c regress_share_ap
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_share%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_share_us WITH (FORCE);
DROP DATABASE regress_share_eu WITH (FORCE);
DROP DATABASE regress_share_ap WITH (FORCE);
