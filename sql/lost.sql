-- A region is lost: heirs, epochs, fences, what is cleaned up. Regions are databases of one server, so the
-- lost one goes on running: the operator's word that it is stopped was wrong, and it must fence itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
SELECT current_database() AS original,
	format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server \gset
CREATE DATABASE regress_lost_us TEMPLATE template0;
CREATE DATABASE regress_lost_eu TEMPLATE template0;
CREATE DATABASE regress_lost_ap TEMPLATE template0;
CREATE DATABASE regress_lost_sa TEMPLATE template0;
\set us :server ' dbname=regress_lost_us'
\set eu :server ' dbname=regress_lost_eu'
\set ap :server ' dbname=regress_lost_ap'
\set sa :server ' dbname=regress_lost_sa'

\c regress_lost_us
CREATE EXTENSION pg_homing;
SELECT homing.declare_lost('us', force => true);
SELECT homing.set_heirs('us', '{}');
SELECT homing.create_cluster('us', :'us');
\c regress_lost_eu
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
\c regress_lost_ap
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('ap', :'ap', via => :'us');
\c regress_lost_sa
CREATE EXTENSION pg_homing;
SELECT homing.join_cluster('sa', :'sa', via => :'us');
CREATE TABLE accounts (id int PRIMARY KEY, balance int);
INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 200) i;
SELECT homing.home_table('accounts', 'id', homes => 16);
SELECT owner, count(*) FROM homing.homes GROUP BY 1 ORDER BY 1;

-- Heirs.
SELECT homing.set_heirs('nowhere', '{us}');
SELECT homing.set_heirs('us', '{nowhere}');
SELECT homing.set_heirs('us', '{us}');
SELECT homing.set_heirs('us', '{eu,eu}');
SELECT homing.set_heirs('us', '{eu,NULL}');
SELECT epoch FROM homing.cluster_map \gset
SELECT homing.set_heirs('us', '{ap,eu}');
SELECT homing.set_heirs('eu', '{ap}');
SELECT epoch - :epoch AS risen FROM homing.cluster_map;
SELECT DISTINCT owner, heirs FROM homing.homes WHERE owner IN ('us', 'eu') ORDER BY 1;
SELECT heirs, count(*) FROM homing.homes WHERE owner = 'ap' GROUP BY 1 ORDER BY 1;
BEGIN;
SELECT homing.set_heirs('sa', '{us}');
ROLLBACK;
\c regress_lost_eu
SELECT epoch - :epoch AS risen FROM homing.cluster_map;
SELECT DISTINCT owner, heirs FROM homing.homes WHERE owner IN ('us', 'eu', 'sa') ORDER BY 1, 2;
SELECT kind, region, reason FROM homing.events WHERE kind = 'set_heirs' ORDER BY epoch;

-- What is refused, and changes nothing.
SELECT homing.declare_lost('eu', force => true);
SELECT homing.declare_lost('nowhere', force => true);
SELECT homing.declare_lost('{}'::text[], force => true);
SELECT homing.declare_lost(NULL::text, force => true);
BEGIN;
CREATE TABLE written (i int);
SELECT homing.declare_lost('us', force => true);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT homing.declare_lost('us', force => true);
ROLLBACK;
-- Every survivor must be reached.
ALTER SERVER ap OPTIONS (SET dbname 'regress_lost_nowhere');
\set VERBOSITY sqlstate
SELECT homing.declare_lost('us', force => true);
\set VERBOSITY default
ALTER SERVER ap OPTIONS (SET dbname 'regress_lost_ap');
-- Survivors at different positions, and the one that is behind has some of what comes then from a region that is gone:
-- nobody takes over, and the others go on.
SELECT format('homing_%s_1_2', left(cluster_id::text, 8)) AS us_to_eu, format('homing_%s_1_3', left(cluster_id::text, 8)) AS us_to_ap,
	format('homing_%s_1_4', left(cluster_id::text, 8)) AS us_to_sa FROM homing.local_region \gset
ALTER SUBSCRIPTION :us_to_eu DISABLE;
DO $$
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_subscription WHERE subname LIKE 'homing%_1_2' AND pid IS NOT NULL);
		PERFORM pg_stat_clear_snapshot();
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
\c regress_lost_us
SELECT min(id) AS key FROM accounts WHERE homing.home_of('accounts', id) = 'us' \gset
UPDATE accounts SET balance = 1 WHERE id = :key;
DO $$
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		EXIT WHEN (SELECT count(*) = 2 FROM pg_replication_slots WHERE database = 'regress_lost_us' AND slot_name !~ '_tail_' AND confirmed_flush_lsn >= pg_current_wal_flush_lsn());
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
\c regress_lost_ap
UPDATE homing.tail_slot SET positions = positions || '{"1": "FFFFFFFF/0"}';
\c regress_lost_eu
INSERT INTO homing.passed_on VALUES (1, 9, 'gone');
\set VERBOSITY terse
SELECT homing.declare_lost('us', force => true);
\set VERBOSITY default
DELETE FROM homing.passed_on;
ALTER SUBSCRIPTION :us_to_eu ENABLE;
SELECT epoch - :epoch AS risen FROM homing.cluster_map;
SELECT s.subname = :'us_to_eu' AS ours, s.subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE s.subname IN (:'us_to_eu', :'us_to_ap', :'us_to_sa') ORDER BY subname;

\c regress_lost_us
DO $$
BEGIN
	FOR attempt IN 1 .. 2000 LOOP
		EXIT WHEN (SELECT count(*) = 3 FROM pg_replication_slots WHERE database = 'regress_lost_us' AND slot_name !~ '_tail_' AND confirmed_flush_lsn >= pg_current_wal_flush_lsn());
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
-- Now it is lost.
\c regress_lost_eu
SELECT array_agg(id ORDER BY id) AS of_us FROM accounts WHERE homing.home_of('accounts', id) = 'us' \gset
SELECT array_agg(homing.home_of('accounts', id) ORDER BY id) AS others FROM accounts WHERE homing.home_of('accounts', id) <> 'us' \gset
SELECT array_agg(id ORDER BY id) AS other_ids FROM accounts WHERE homing.home_of('accounts', id) <> 'us' \gset
SELECT jsonb_path_query_array(r, '$.lost[*].region') AS lost, r->'survivors' AS survivors,
	(r->>'epoch')::bigint - :epoch AS risen, (r->'lost'->0->>'final_lsn') IS NOT NULL AS final
FROM homing.declare_lost('us', force => true, reason => 'test') r;
SELECT DISTINCT homing.home_of('accounts', id) FROM unnest(:'of_us'::int[]) id;
SELECT array_agg(homing.home_of('accounts', id) ORDER BY id) = :'others' AS unmoved FROM unnest(:'other_ids'::int[]) id;
UPDATE accounts SET balance = balance + 10 WHERE id = ANY (:'of_us'::int[]);
SELECT name, status, homes FROM homing.regions ORDER BY name;
SELECT kind, region, reason FROM homing.events WHERE kind = 'declare_lost';
SELECT count(*) FROM pg_subscription WHERE subname IN (:'us_to_eu', :'us_to_ap', :'us_to_sa');
SELECT database, count(*) FROM pg_replication_slots WHERE database LIKE 'regress_lost%' AND slot_name !~ '_tail_' GROUP BY 1 ORDER BY 1;
-- Again, from elsewhere: no news.
\c regress_lost_sa
SELECT r->'lost'->0->'region' AS lost FROM homing.declare_lost('us', force => true) r;
SELECT epoch - :epoch AS risen FROM homing.cluster_map;
SELECT DISTINCT homing.home_of('accounts', id) FROM unnest(:'of_us'::int[]) id;
SELECT count(*) FROM homing.events WHERE kind = 'declare_lost';
SELECT homing.set_heirs('us', '{eu}');
SELECT homing.set_heirs('sa', '{us}');
SELECT homing.assign_key('accounts', 1000, 'us');

-- The lost region hears of it and fences itself: reads go on, writes do not.
\c regress_lost_us
DO $$
BEGIN
	FOR attempt IN 1 .. 3000 LOOP
		EXIT WHEN (SELECT fenced IS NOT NULL FROM homing.local_region);
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT fenced LIKE 'declared lost at epoch %' AS fenced FROM homing.local_region;
\set VERBOSITY sqlstate
UPDATE accounts SET balance = 100 WHERE id = :key;
INSERT INTO accounts VALUES (1000, 0);
SELECT homing.declare_lost('eu', force => true);
SELECT homing.set_heirs('eu', '{us}');
\set VERBOSITY default
SELECT max(balance) < 100 AS unwritten FROM accounts;
SELECT name, status, fenced FROM homing.regions WHERE name = 'us';
SELECT kind, region FROM homing.events WHERE kind IN ('fence', 'declare_lost') ORDER BY 1;

-- Maps: only newer ones, only of this cluster; two of one epoch fence.
\c regress_lost_sa
SELECT homing._map() AS map \gset
SELECT homing._adopt_map(:'map') AS taken;
SELECT homing._adopt_map(jsonb_set(:'map', '{epoch}', '1')) AS taken;
SELECT homing._adopt_map(jsonb_set(:'map', '{cluster}', '"00000000-0000-0000-0000-000000000000"'));
\set VERBOSITY sqlstate
SELECT homing._adopt_map(jsonb_set(:'map', '{members,1,status}', '"lost"'));
\set VERBOSITY default
SELECT count(*) FROM homing._exchange('00000000-0000-0000-0000-000000000000', 2::int2, 1);
SELECT region_id, fenced, lost, map->'members'->0->'status' AS us FROM homing._exchange((:'map'::jsonb->>'cluster')::uuid, 1::int2, 1);
SELECT region_id, fenced, lost, map FROM homing._exchange((:'map'::jsonb->>'cluster')::uuid, 2::int2, 1000);

-- Two at once.
SELECT r->'survivors' AS survivors FROM homing.declare_lost(ARRAY['eu', 'ap'], force => true) r;
SELECT owner, count(*) FROM homing.homes GROUP BY 1;
SELECT count(*) FROM pg_replication_slots WHERE database = 'regress_lost_sa' AND slot_name !~ '_tail_';
UPDATE accounts SET balance = 0;
SELECT min(balance), max(balance) FROM accounts;

-- Away with all of it.
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
\c regress_lost_us
:leave;
\c regress_lost_eu
:leave;
\c regress_lost_ap
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) >= 0 AS dropped FROM pg_replication_slots WHERE database LIKE 'regress_lost%';
DROP DATABASE regress_lost_us WITH (FORCE);
DROP DATABASE regress_lost_eu WITH (FORCE);
DROP DATABASE regress_lost_ap WITH (FORCE);
DROP DATABASE regress_lost_sa WITH (FORCE);
