-- COPY FROM into tables whose rows live at another region.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original,
	current_setting('data_directory') || '/regress_homing_copy' AS file \gset
\set us :server ' dbname=regress_copy_us'
\set eu :server ' dbname=regress_copy_eu'
CREATE DATABASE regress_copy_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_copy_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_copy_eu
CREATE EXTENSION pg_homing;
\c regress_copy_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
\c regress_copy_eu
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_copy_us
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE book (
	id bigint PRIMARY KEY,
	title text DEFAULT 'untitled',
	pages int CONSTRAINT few_pages CHECK (pages < 1000),
	mood mood,
	tags text[],
	twice int GENERATED ALWAYS AS (pages * 2) STORED
);
CREATE TABLE word (
	k text PRIMARY KEY,
	n int
);
CREATE TABLE auto (
	n int,
	note text,
	id uuid DEFAULT gen_random_uuid() PRIMARY KEY
);
SELECT homing.home_table('book', 'id', placement => 'region', region => 'eu');
SELECT homing.home_table('word', 'k', placement => 'region', region => 'eu');
SELECT homing.home_table('auto', 'id', placement => 'region', region => 'eu');
\unset QUIET

-- text: columns, defaults, quoting
COPY book (title, id, pages, mood, tags) FROM stdin;
one	1	10	sad	{a,"b c"}
tab\tand\\slash	2	20	\N	\N
new\nline	3	\N	happy	{}
\.
COPY book (id, pages) FROM stdin WITH (DELIMITER '|', NULL 'none');
4|none
5|50
\.
-- CSV: a header, quotes, lines in a value, columns that may not be NULL
COPY book (title, pages, id) FROM stdin WITH (FORMAT csv, HEADER match, FORCE_NOT_NULL (title), FORCE_NULL (pages));
title,pages,id
"a ""quote"", and
a line",60,6
,"",7
\.
COPY book (id, title) FROM stdin (FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\', NULL 'x');
8;'it\'s'
'9';x
\.
-- a condition
COPY book (id, pages) FROM stdin WHERE pages > 5 AND id <> 11;
10	1
11	11
12	12
\.
-- every column
COPY word FROM stdin;
b\\l	1
\\N	2
	3
\.
\c regress_copy_eu
SELECT id, title, pages, mood, tags, twice FROM book ORDER BY id;
SELECT * FROM word ORDER BY n;
\c regress_copy_us

-- a key that is not in the file: evaluated once for each row, here
COPY auto (n, note) FROM stdin;
1	x
2	y
\.
COPY auto (n, note) FROM stdin (FORMAT csv);
3,"x"
4,y
\.
\c regress_copy_eu
SELECT n, note, id IS NOT NULL AS has_id FROM auto ORDER BY n;

-- binary, files and programs
COPY book (id, title, pages, mood, tags) TO :'file' (FORMAT binary);
COPY (SELECT n + 10, note FROM auto ORDER BY n) TO PROGRAM 'cat > /dev/null';
\c regress_copy_us
BEGIN;
DELETE FROM book WHERE id >= 0;
COPY book (id, title, pages, mood, tags) FROM :'file' (FORMAT binary);
COMMIT;
\c regress_copy_eu
SELECT count(*), sum(pages), count(title) FROM book;
COPY (SELECT n + 10 AS n, note FROM auto ORDER BY n) TO :'file' (FORMAT binary);
\c regress_copy_us
COPY auto (n, note) FROM :'file' (FORMAT binary);
COPY word FROM PROGRAM 'printf "p1,1\np2,2\n"' (FORMAT csv);
COPY word FROM PROGRAM 'echo p3,3; exit 3' (FORMAT csv);
\c regress_copy_eu
SELECT count(*), count(DISTINCT id) FROM auto;
SELECT * FROM word WHERE k LIKE 'p%' ORDER BY k;
\c regress_copy_us

-- another encoding
SET client_encoding = latin1;
COPY word FROM PROGRAM 'printf "\344,5\n"' (FORMAT csv);
COPY word FROM PROGRAM 'printf "\303\266,6\n"' (FORMAT csv, ENCODING 'utf8');
RESET client_encoding;
\c regress_copy_eu
SELECT * FROM word WHERE n IN (5, 6) ORDER BY n;
\c regress_copy_us

-- errors name the line of the file and undo all of it
COPY book (id, pages) FROM stdin (FORMAT csv, HEADER);
id,pages
20,1
21,"2"
22,5000
23,3
\.
COPY book (id, title, pages) FROM stdin (FORMAT csv);
19,x,1
20,"two
lines",1
21,x,many
\.
COPY book (id, pages) FROM stdin;
20	1
21
\.
COPY book (id, pages) FROM stdin;
20	1
many	1
\.
COPY book (id, pages) FROM stdin;
20	1	1
\.
COPY book (id, pages) FROM stdin;
1	1
\.
COPY book (id, pages) FROM stdin;
\N	1
\.
COPY book (pages) FROM stdin;
1
\.
COPY book (id, pages, pages) FROM stdin;
\.
COPY book (id, nothing) FROM stdin;
\.
COPY book (id, twice) FROM stdin;
\.
COPY book (id, pages) FROM stdin (FORMAT xml);
\.
COPY book (id, pages) FROM stdin (homing_numbered_rows);
\.
COPY book (id, pages) FROM stdin WHERE twice > 2;
\.
COPY book (id, pages) FROM '/nowhere/at all';
COPY book FROM :'file' (FORMAT binary);
COPY book (id, pages) FROM stdin (HEADER match);
id	title
\.
BEGIN READ ONLY;
COPY book (id, pages) FROM stdin;
\.
ROLLBACK;
CREATE ROLE regress_copy_user;
SET ROLE regress_copy_user;
COPY book (id, pages) FROM stdin;
\.
COPY book (id, pages) FROM '/etc/passwd';
RESET ROLE;
SELECT count(*) FROM book WHERE id >= 20 OR id IS NULL;

-- inside a transaction
BEGIN;
COPY word FROM stdin;
t1	1
\.
SAVEPOINT s;
COPY word FROM stdin;
t2	2
t3	3
\.
ROLLBACK TO s;
SAVEPOINT s;
COPY word FROM stdin;
t1	2
\.
ROLLBACK TO s;
COPY word FROM stdin;
t4	4
\.
COMMIT;
BEGIN;
COPY word FROM stdin;
t5	5
\.
ROLLBACK;
\c regress_copy_eu
SELECT * FROM word WHERE k LIKE 't%' ORDER BY k;

-- triggers fire at the home, statement triggers once; notices come back
\c regress_copy_eu
SET homing.local_ddl = on;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% % of % at %', TG_WHEN, TG_OP, TG_LEVEL, current_database();
	RETURN NEW;
END
$$;
CREATE TRIGGER tell_row BEFORE INSERT ON word FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell_statement AFTER INSERT ON word FOR EACH STATEMENT EXECUTE FUNCTION tell();
\c regress_copy_us
COPY word FROM stdin;
n1	1
n2	2
\.

-- rows of several homes
CREATE TABLE visit (id bigint PRIMARY KEY, n int CHECK (n < 1000), note text);
SELECT homing.home_table('visit', 'id');
SELECT homing.home_of('visit', k::bigint), count(*) FROM generate_series(1, 1000) k GROUP BY 1 ORDER BY 1;
COPY (SELECT k, k % 100, 'note ' || k FROM generate_series(1, 1000) k) TO :'file';
COPY visit FROM :'file';
CREATE PROCEDURE await(wanted int) LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT count(*) FROM visit) <> wanted LOOP
		PERFORM pg_sleep(0.02);
		COMMIT;
	END LOOP;
END
$$;
SET statement_timeout = '60s';
CALL await(1000);
SELECT count(*), sum(n), md5(string_agg(v::text, '|' ORDER BY id)) FROM visit v;
COPY (SELECT k::bigint, k % 100, 'note ' || k FROM generate_series(1001, 2000) k) TO :'file' (FORMAT binary);
COPY visit FROM :'file' (FORMAT binary) WHERE n < 50;
COPY (SELECT k, CASE WHEN k = 2990 THEN 1000 ELSE 1 END AS n FROM generate_series(2001, 3000) k) TO :'file' (FORMAT csv, HEADER);
COPY visit (id, n) FROM :'file' (FORMAT csv, HEADER);
COPY (SELECT k::bigint, CASE WHEN k IN (2500, 2501, 2502, 2503) THEN 1000 ELSE 1 END AS n FROM generate_series(2001, 3000) k) TO :'file' (FORMAT binary);
\set VERBOSITY terse
COPY visit (id, n) FROM :'file' (FORMAT binary);
\set VERBOSITY default
BEGIN;
COPY visit (id, n) FROM stdin;
3001	1
3002	1
3003	1
3004	1
3005	1
\.
SAVEPOINT s;
COPY visit (id, n) FROM stdin;
3011	1
3012	1
3013	1
3014	1
3015	1
\.
ROLLBACK TO s;
COPY visit (id, n) FROM stdin;
3021	1
3022	1
3023	1
3024	1
3025	1
\.
COMMIT;
\set same 'SELECT count(*), sum(n), md5(string_agg(v::text, ''|'' ORDER BY id)) FROM visit v'
CALL await(1510);
:same;
\c regress_copy_eu
:same;

\c regress_copy_us

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_copy_eu
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FILTER (WHERE slot_name !~ '_tail_')
FROM (SELECT * FROM pg_replication_slots WHERE database LIKE 'regress_copy%' ORDER BY slot_name ~ '_tail_') s;
DROP DATABASE regress_copy_us WITH (FORCE);
DROP DATABASE regress_copy_eu WITH (FORCE);
COPY (SELECT 1 WHERE false) TO PROGRAM 'rm -f regress_homing_copy';
DROP ROLE regress_copy_user;
