-- Values of every kind of type, written at home and from another region, and identifiers of every kind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_types_us'
\set eu :server ' dbname=regress_types_eu'
CREATE DATABASE regress_types_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_types_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
-- The numbers of types differ from region to region.
\c regress_types_eu
CREATE TYPE unrelated AS ENUM ('a', 'b');
CREATE EXTENSION pg_homing;
\c regress_types_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
CREATE SCHEMA extra;
CREATE EXTENSION hstore SCHEMA extra;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'o''k "quoted"', 'happy');
CREATE TYPE "Place Of" AS ("Street 1" text, zip int, at timestamptz, moods mood[]);
CREATE DOMAIN amount AS numeric(20, 4) CHECK (VALUE > -1000000);
CREATE DOMAIN amounts AS amount[] CHECK (array_length(VALUE, 1) < 10);
CREATE DOMAIN located AS "Place Of" CHECK ((VALUE).zip > 0);
CREATE TYPE spans AS RANGE (subtype = float8);
CREATE TABLE everything (
	gone_1 int,
	id bigint PRIMARY KEY,
	i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, money money,
	gone_2 text,
	t text, vc varchar(12), c char(5), n name, qc "char", raw bytea, b boolean, bits bit(3), vbits varbit,
	d date, ti time(3), titz timetz, ts timestamp, tstz timestamptz, iv interval,
	u uuid, j json, jb jsonb, jp jsonpath, x xml,
	ints int[], texts text[][], bounded int[],
	r4 int4range, rn numrange, rts tstzrange, m4 int4multirange, fr spans, fm spans_multirange[],
	e mood, es mood[], p "Place Of", ps "Place Of"[], am amount, ams amounts, lo located,
	h extra.hstore, hs extra.hstore[], ci citext, cis citext[],
	point point, box box, path path, poly polygon, circle circle, line line,
	ip inet, net cidr, mac macaddr, mac8 macaddr8, tv tsvector, tq tsquery, lsn pg_lsn,
	typ regtype, pro regprocedure, cls regclass, snap pg_snapshot
);
ALTER TABLE everything DROP COLUMN gone_1, DROP COLUMN gone_2;
INSERT INTO everything (id) SELECT generate_series(1, 2);
SELECT homing.home_table('everything', 'id');
\c regress_types_eu
SET client_min_messages = warning;
CREATE SCHEMA extra;
CREATE EXTENSION hstore SCHEMA extra;
CREATE EXTENSION citext;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
RESET client_min_messages;
\c regress_types_us
SELECT homing.hand_over('everything', 'us', 'eu', (SELECT array_agg(h) FROM generate_series(1, 127, 2) h));
CREATE PROCEDURE settle() LANGUAGE plpgsql AS $$
DECLARE
	written pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	WHILE EXISTS (SELECT FROM pg_replication_slots WHERE database LIKE 'regress_types%' AND confirmed_flush_lsn < written) LOOP
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END
$$;
SELECT min(k) FILTER (WHERE homing.home_of('everything', k) = 'us') AS here, min(k) FILTER (WHERE homing.home_of('everything', k) = 'eu') AS there
FROM generate_series(1::bigint, 30) k \gset
SELECT min(k) FILTER (WHERE homing.home_of('everything', k) = 'us') AS here2, min(k) FILTER (WHERE homing.home_of('everything', k) = 'eu') AS there2
FROM generate_series(31::bigint, 60) k \gset
SELECT min(k) FILTER (WHERE homing.home_of('everything', k) = 'us') AS here3, min(k) FILTER (WHERE homing.home_of('everything', k) = 'eu') AS there3
FROM generate_series(61::bigint, 90) k \gset
SELECT min(k) FILTER (WHERE homing.home_of('everything', k) = 'us') AS here4, min(k) FILTER (WHERE homing.home_of('everything', k) = 'eu') AS there4
FROM generate_series(91::bigint, 120) k \gset
-- The rows at home, and what is not the same in the row from elsewhere: nothing.
CREATE FUNCTION differences(here bigint, there bigint) RETURNS TABLE (name text, at_home text, forwarded text) LANGUAGE sql AS $$
	SELECT h.key, h.value, t.value
	FROM (SELECT * FROM jsonb_each_text((SELECT to_jsonb(r) - 'id' FROM everything r WHERE id = here))) h
	FULL JOIN (SELECT * FROM jsonb_each_text((SELECT to_jsonb(r) - 'id' FROM everything r WHERE id = there))) t USING (key)
	WHERE h.value IS DISTINCT FROM t.value
$$;
\unset QUIET

-- Values in the text of the statement.
\set columns '(id, i2, i4, i8, f4, f8, num, money, t, vc, c, n, qc, raw, b, bits, vbits, d, ti, titz, ts, tstz, iv, u, j, jb, jp, x, ints, texts, bounded, r4, rn, rts, m4, fr, fm, e, es, p, ps, am, ams, lo, h, hs, ci, cis, point, box, path, poly, circle, line, ip, net, mac, mac8, tv, tq, lsn, typ, pro, cls, snap)'
\set literals '-32768, 2147483647, -9223372036854775808, ''NaN'', ''-Infinity'', ''-Infinity'', ''-1.23'', E''quote '''' double " back\\\\slash\nnew\tline $1 €'', ''a\\b'', ''c'', ''it''''s'', ''x'', ''\\x00ff27225c0a'', false, B''101'', ''1'', ''infinity'', ''24:00'', ''01:02:03.4-05:30'', ''-infinity'', ''infinity'', ''-1 mons +2 days -03:04:05.000006'', ''00000000-0000-0000-0000-0000000000ff'', ''{"a" :  1, "a": 2}'', ''{"k": [null, "\\u20ac", 1e40]}'', ''$.a[*] ? (@ > 1)'', ''<a b="c">d</a>'', ''[0:2]={1,NULL,3}'', ''{{a,"NULL"},{NULL,"c\\"d,"}}'', ''{}'', ''empty'', ''(,1.5]'', ''[2024-01-01 00:00+00,infinity)'', ''{[1,3),[5,)}'', ''[0.1,Infinity]'', array[''{[1,2)}'', null]::spans_multirange[], ''o''''k "quoted"'', ''{sad,NULL,"o''''k \\"quoted\\""}'', row(''a,"b'', 1, ''2024-05-06 07:08:09+00'', ''{happy}''), array[row(null, null, null, null), null]::"Place Of"[], 1.23456, ''{1,NULL,2.55555}'', row(null, 5, null, ''{}''), ''a=>"b \\"c", d=>NULL'', array[''x=>y'']::extra.hstore[], ''MiXed'', ''{A,b}'', ''(1,-0)'', ''(1,2),(0,0)'', ''[(0,0),(1,1)]'', ''((0,0),(1,1),(1,0))'', ''<(0,0),1e-300>'', ''{1,-1,0}'', ''::1/64'', ''10.0.0.0/8'', ''01:02:03:04:05:06'', ''01:02:03:04:05:06:07:08'', $$''it''''s'':1A,2 b$$, ''a & !b | c:*'', ''16/B374D848'', ''mood'', ''lower(text)'', ''everything'', ''10:20:10,14,15'''
INSERT INTO everything :columns VALUES (:here, :literals) ON CONFLICT (id) DO UPDATE SET t = 'conflict' RETURNING t;
DELETE FROM everything WHERE id IN (:here, :there);
INSERT INTO everything :columns VALUES (:here, :literals);
INSERT INTO everything :columns VALUES (:there, :literals);
CALL settle();
\x on
SELECT * FROM everything WHERE id = :there;
\x off
SELECT * FROM differences(:here, :there);
INSERT INTO everything :columns VALUES (:here2, :literals), (:there2, :literals) RETURNING id IS NOT NULL AS rows;
CALL settle();
SELECT * FROM differences(:here, :here2) UNION ALL SELECT * FROM differences(:here, :there2);

-- Values from rows, parameters, PL/pgSQL, COPY, and back.
INSERT INTO everything SELECT (jsonb_populate_record(r, jsonb_build_object('id', k))).* FROM everything r, (VALUES (:here3), (:there3)) v (k) WHERE id = :there;
CALL settle();
SELECT * FROM differences(:here3, :there3);
DELETE FROM everything WHERE id IN (:here3, :there3);
INSERT INTO everything SELECT e.* FROM everything e WHERE false;
CREATE FUNCTION put(k bigint, original bigint) RETURNS SETOF everything LANGUAGE plpgsql AS $$
DECLARE
	r everything;
BEGIN
	SELECT * INTO r FROM everything WHERE id = original;
	r.id := k;
	RETURN QUERY INSERT INTO everything VALUES (r.*) RETURNING *;
	RETURN QUERY UPDATE everything x SET t = r.t, p = r.p, ps = r.ps, h = r.h, fm = r.fm, es = r.es, tstz = r.tstz, num = r.num, raw = r.raw, ams = r.ams, lo = r.lo WHERE id = k RETURNING *;
	RETURN QUERY DELETE FROM everything x WHERE id = k AND p IS NOT DISTINCT FROM r.p AND h::text = r.h::text AND es = r.es AND x.e = r.e AND am = r.am AND ci = r.ci AND fr = r.fr AND num = r.num AND tstz = r.tstz RETURNING *;
END
$$;
SELECT count(*), count(DISTINCT md5((f)::text)) FROM put(:here3, :there) f;
SELECT count(*), count(DISTINCT md5((f)::text)) FROM put(:there3, :there) f;
SELECT md5(string_agg((to_jsonb(f) - 'id')::text, ' ')) = (SELECT md5(string_agg((to_jsonb(f) - 'id')::text, ' ')) FROM put(:here3, :here) f) AS same FROM put(:there3, :here) f;
CREATE TEMP TABLE copied AS SELECT e.* FROM everything e WHERE id = :there;
INSERT INTO copied SELECT * FROM copied;
UPDATE copied SET id = CASE WHEN ctid = (SELECT min(ctid) FROM copied) THEN :here3 ELSE :there3 END;
\copy copied TO regress_homing_types
\copy everything FROM regress_homing_types
DELETE FROM everything WHERE id IN (:here3, :there3);
\copy copied TO regress_homing_types WITH BINARY
\copy everything FROM regress_homing_types WITH BINARY
ALTER TABLE copied DROP typ, DROP pro, DROP cls;
SELECT string_agg(attname, ', ' ORDER BY attnum) AS portable FROM pg_attribute WHERE attrelid = 'copied'::regclass AND attnum > 0 AND NOT attisdropped \gset
\copy copied TO regress_homing_types WITH BINARY
\set copy '\\copy everything (' :portable ') FROM regress_homing_types WITH BINARY'
:copy
\! rm -f regress_homing_types
CALL settle();
SELECT * FROM differences(:here3, :there3);
SELECT * FROM differences(:here, :there3) WHERE name NOT IN ('typ', 'pro', 'cls');

-- NULLs.
INSERT INTO everything (id) VALUES (:here4), (:there4);
UPDATE everything SET t = NULL, p = NULL, am = NULL, lo = NULL, h = NULL, es = NULL, fm = NULL, num = 'NaN', tstz = '-infinity' WHERE id IN (:here3, :there3) RETURNING id IN (:here3, :there3) AS ours, t, p, am, lo, h, es, fm, num, tstz;
PREPARE nulls AS UPDATE everything SET t = $2, e = $3, am = $4, h = $5, p = $6, num = $7, ps = $8 WHERE id = $1 RETURNING t, e, am, h, p, num, ps;
EXECUTE nulls (:there4, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
EXECUTE nulls (:there4, '', 'happy', 0, '', '(,,,)', 'Infinity', '{}');
EXECUTE nulls (:here4, '', 'happy', 0, '', '(,,,)', 'Infinity', '{}');
CALL settle();
SELECT * FROM differences(:here3, :there3) UNION ALL SELECT * FROM differences(:here4, :there4);
SELECT jsonb_object_agg(id, to_jsonb(r)) AS us FROM everything r \gset
\c regress_types_eu
\set ECHO none
SELECT id, u.key AS name, u.value AS at_us, e.value AS at_eu
FROM everything r, jsonb_each(:'us'::jsonb->id::text) u, jsonb_each(to_jsonb(r)) e WHERE e.key = u.key AND e.value <> u.value;
SELECT count(*) = (SELECT count(*) FROM jsonb_object_keys(:'us')) AS complete FROM everything;
\set ECHO all
\c regress_types_us

-- Values that are refused: the home's own errors.
UPDATE everything SET ams = '{1,2,3,4,5,6,7,8,9,10}' WHERE id = :there;
UPDATE everything SET lo = row(NULL, -1, NULL, NULL) WHERE id = :there;
UPDATE everything SET am = am - 1000000 WHERE id = :there;
UPDATE everything SET vc = repeat(vc, 10) WHERE id = :there;
UPDATE everything SET e = (t || 'x')::mood WHERE id = :there;
UPDATE everything SET ci = NULL, t = ci || NULL, n = repeat('é', 40) WHERE id = :there RETURNING t, octet_length(n::text);
UPDATE everything SET raw = decode(repeat('00', 1000000), 'hex') WHERE id = :there RETURNING octet_length(raw);
-- Identifiers.
CREATE SCHEMA "Schéma ""x"" $1";
CREATE TABLE "Schéma ""x"" $1"."select" ("from" int, "Ünï ""quoted"" "" col'umn" text DEFAULT 'd', abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh_63 int,
	"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH 63" mood, gone int, PRIMARY KEY ("from"));
ALTER TABLE "Schéma ""x"" $1"."select" DROP COLUMN gone;
SELECT homing.home_table('"Schéma ""x"" $1"."select"', 'from');
INSERT INTO "Schéma ""x"" $1"."select" SELECT k, 'v' || k, k, 'sad' FROM generate_series(1, 20) k;
INSERT INTO "Schéma ""x"" $1"."select" ("from") VALUES (21), (22), (23), (24);
UPDATE "Schéma ""x"" $1"."select" AS "a ""b" SET "Ünï ""quoted"" "" col'umn" = "a ""b"."Ünï ""quoted"" "" col'umn" || '!', abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh_63 = 1
WHERE "from" = 1 OR "from" IN (2, 3) RETURNING *;
INSERT INTO "Schéma ""x"" $1"."select" AS "x y" ("from", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH 63") VALUES (1, 'happy'), (2, 'happy'), (3, NULL)
ON CONFLICT ("from") DO UPDATE SET "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH 63" = excluded."ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH 63" RETURNING *;
DELETE FROM "Schéma ""x"" $1"."select" WHERE "from" > 3 AND abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh_63 % 7 = 0 RETURNING "from";
COPY "Schéma ""x"" $1"."select" ("Ünï ""quoted"" "" col'umn", "from") FROM stdin;
tab\tnew\nline	30
\N	31
€	32
\.
CALL settle();
SELECT md5(string_agg(e::text, ' ' ORDER BY "from")) AS us FROM "Schéma ""x"" $1"."select" e \gset
SELECT "from", "Ünï ""quoted"" "" col'umn" FROM "Schéma ""x"" $1"."select" WHERE "from" >= 30 ORDER BY 1;
\c regress_types_eu
SELECT md5(string_agg(e::text, ' ' ORDER BY "from")) = :'us' AS same FROM "Schéma ""x"" $1"."select" e;
\c regress_types_us

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_types_eu
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FROM pg_replication_slots WHERE database LIKE 'regress_types%';
DROP DATABASE regress_types_us WITH (FORCE);
DROP DATABASE regress_types_eu WITH (FORCE);
