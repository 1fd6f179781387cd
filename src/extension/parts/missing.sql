-- A survivor that lacks the end of a lost region's stream, which nobody has kept for it (relay.sql).
--
-- It takes the map with the loss as the others do, and notes what it lacks: until it has that, it serves nothing. It votes
-- and promises as before, so that the others go on without it. Its worker takes what it lacks from a donor, a region that
-- lacks nothing. Not only rows of the lost region: what is on its way from the others comes on top of those, some of it
-- already in the donor's rows. So it is all rows as of one moment, and the streams go on from there.
--
--  1. All streams to this region stop, for good.
--  2. Its writers have ended. The donor has received all that it wrote, and has of every other region at least as much.
--  3. A snapshot of the donor. In one transaction, rows here that differ become those of the snapshot, and it is noted how
--     far of each region's stream that is.
--  4. The streams are moved there. With them going on, this region serves.
--
-- A crash before the commit of 3 leads back to 1, one after it to 4: as long as the streams stand, nothing moves on. A
-- prepared part stays as it is: the rows that it holds are those of homes of this region, which differ nowhere. One that
-- ends between 2 and 3 would be copied over: then 3 fails.

CREATE FUNCTION homing._missing_names(missing int2[]) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('"%s"', m.name), ', ' ORDER BY m.region_id) FROM homing.member m WHERE m.region_id = ANY (missing)
$$;

-- The streams to this region, as subscriptions here.
CREATE FUNCTION homing._streams(OUT region_id int2, OUT stream name, OUT origin text, OUT enabled boolean) RETURNS SETOF record
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.region_id, s.subname, 'pg_' || s.oid, s.subenabled FROM homing.local_region l
	JOIN homing.member m ON m.region_id <> l.region_id
	JOIN pg_subscription s ON s.subname = homing._stream_name(m.region_id, l.region_id)
	JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
$$;

CREATE FUNCTION homing._pause_streams() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	paused name;
BEGIN
	FOR paused IN SELECT s.stream FROM homing._streams() s WHERE s.enabled LOOP
		EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', paused);
	END LOOP;
	-- The end of a lost region's stream that was passed on in part comes with the copy.
	PERFORM homing._drop_subscription(homing._relay_stream(p.lost, l.region_id)) FROM homing.passed_on p CROSS JOIN homing.local_region l;
END
$$;

-- Waits for the sessions that write homed tables here. Not for prepared parts: who holds them up may be the lost region.
CREATE FUNCTION homing._await_writers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + interval '30 seconds';
	writers CONSTANT text[] := ARRAY(
		SELECT DISTINCT k.virtualtransaction FROM pg_locks k
		JOIN pg_database d ON d.oid = k.database AND d.datname = current_database()
		WHERE k.locktype = 'relation' AND k.pid <> pg_backend_pid()
			AND k.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
			AND k.relation IN (SELECT t.relid FROM homing.homed_table t
							   UNION SELECT p.relid FROM homing.homed_table t CROSS JOIN pg_partition_tree(t.relid) p));
BEGIN
	WHILE EXISTS (SELECT FROM pg_locks k WHERE k.virtualtransaction = ANY (writers) AND k.pid IS NOT NULL) LOOP
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'writers of homed tables did not end in time' USING ERRCODE = 'lock_not_available',
				HINT = 'pg_stat_activity shows long transactions: end them.';
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;

-- Step 3, in a session with this region. `parts` are those that were prepared in 2. Returns how many rows of homed tables
-- it took.
CREATE FUNCTION homing._copy_from(address text, snapshot text, positions jsonb, parts text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	homed record;
	ours record;
	rows bigint := 0;
BEGIN
	PERFORM homing._open_donor(address, snapshot);
	FOR homed IN
		SELECT q[1] AS name, q[2] AS key, t.relid AS here
		FROM homing._peer_query('donor',
			'SELECT t.relid::regclass, a.attname, t.table_id FROM homing.homed_table t JOIN homing.activation USING (table_id)
			 JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum ORDER BY table_id') q
		LEFT JOIN homing.homed_table t ON t.table_id = q[3]::bigint AND t.relid = to_regclass(q[1])
	LOOP
		IF homed.here IS NULL THEN
			RAISE EXCEPTION 'table "%" is not homed in this region', homed.name USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		rows := rows + homing._renew_rows('donor', homed.here, homed.key);
	END LOOP;
	-- What this region wrote itself since, the donor receives.
	FOR ours IN SELECT * FROM unnest(homing._replicated_tables(), ARRAY['table_id', 'key', 'key', 'epoch', 'home', 'seq', 'id', 'part', 'id', 'id'])
			WITH ORDINALITY AS r (relation, key, place) ORDER BY r.place LOOP
		PERFORM homing._renew_rows('donor', ours.relation, ours.key, only_add => true);
	END LOOP;
	IF EXISTS (SELECT unnest(parts) EXCEPT SELECT p.gid FROM homing._parts p) THEN
		RAISE EXCEPTION 'a part of a transaction over several regions has ended meanwhile' USING ERRCODE = 'serialization_failure';
	END IF;
	UPDATE homing.local_region l SET copied = positions WHERE l.missing <> '{}' AND l.copied IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this region lacks nothing any more' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	RETURN rows;
END
$$;

-- Steps 2 and 3 with one donor. `mine` is how far this region has applied the others, `written` how far it has written,
-- but for `parts`.
CREATE FUNCTION homing._copy_via(donor int2, mine jsonb, written pg_lsn, parts text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	name CONSTANT text := (SELECT m.name FROM homing.member m WHERE m.region_id = donor);
	address CONSTANT text := homing._region_conninfo(name);
	patience CONSTANT interval := '15 seconds';
	give_up timestamptz;
	theirs jsonb;
	last_theirs jsonb;
	confirmed pg_lsn;
	last_confirmed pg_lsn;
	taken record;
	rows bigint;
BEGIN
	PERFORM homing._open_step('step', address);
	LOOP
		SELECT q[1]::jsonb INTO theirs FROM homing._peer_query('step', 'SELECT homing._applied_positions() FROM homing.local_region
			WHERE cluster_id = $1 AND region_id = $2 AND fenced IS NULL AND missing = ''{}''', here.cluster_id::text, donor::text) q;
		IF theirs IS NULL THEN
			RAISE EXCEPTION 'region "%" is fenced, or lacks something itself', name USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		SELECT s.confirmed_flush_lsn INTO confirmed FROM pg_replication_slots s
		WHERE s.slot_name = homing._stream_name(here.region_id, donor);
		EXIT WHEN confirmed >= written AND NOT EXISTS (
			SELECT FROM jsonb_each_text(mine) m WHERE m.key <> donor::text AND ((theirs->>m.key)::pg_lsn < m.value::pg_lsn) IS NOT FALSE);
		IF theirs IS DISTINCT FROM last_theirs OR confirmed IS DISTINCT FROM last_confirmed THEN
			last_theirs := theirs;
			last_confirmed := confirmed;
			give_up := clock_timestamp() + patience;
		ELSIF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'region "%" does not receive what this region has', name USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	SELECT * INTO taken FROM homing._take_snapshot('step', address, name, 'complete this region');
	PERFORM homing._peer_query('self', 'BEGIN');
	SELECT q[1] INTO rows FROM homing._peer_query('self', 'SELECT homing._copy_from($1, $2, $3, $4)', address, taken.snapshot,
		taken.positions::text, parts::text) q;
	PERFORM homing._debug_point('missing-copied');
	PERFORM homing._peer_query('self', 'COMMIT');
	PERFORM homing._peer_close('snapshot');
	PERFORM homing._peer_close('step');
	RETURN rows;
END
$$;

-- Step 4, in a session with this region. The positions move at once, its commit lets the streams go on.
CREATE FUNCTION homing._end_missing(reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	stream record;
BEGIN
	FOR stream IN
		SELECT s.stream, s.origin, m.status = 'active' AND NOT m.pending AS goes_on,
			coalesce((here.copied->>(s.region_id::text))::pg_lsn, m.final_lsn) AS position
		FROM homing._streams() s JOIN homing.member m USING (region_id)
	LOOP
		IF stream.position > coalesce(pg_replication_origin_progress(stream.origin, false), '0/0') THEN
			PERFORM pg_replication_origin_advance(stream.origin, stream.position);
		END IF;
		IF stream.goes_on THEN
			EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', stream.stream);
		END IF;
	END LOOP;
	PERFORM homing._debug_point('missing-moved');
	-- What we did not apply ourselves, nobody can have from us.
	PERFORM homing._drop_tail_slots();
	DELETE FROM homing.passed_on p WHERE p.lost = ANY (here.missing);
	UPDATE homing.local_region SET missing = '{}', copied = NULL;
	PERFORM homing._record_event('completed', m.name, session_user, reason) FROM homing.member m WHERE m.region_id = ANY (here.missing);
END
$$;

CREATE FUNCTION homing._take_missing() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s'
AS $$
DECLARE
	here homing.local_region;
	mine jsonb;
	written pg_lsn;
	parts text[];
	donor record;
	rows bigint;
	what text := 'it has taken a copy already';
	failures text;
BEGIN
	-- Nobody else joins or is lost meanwhile with our help.
	PERFORM homing._lock_change();
	SELECT * INTO here FROM homing.local_region;
	IF here.missing = '{}' THEN
		RETURN NULL;
	END IF;
	PERFORM homing._open_step('self', homing._region_conninfo(homing._here_name()));
	IF here.copied IS NULL THEN
		PERFORM homing._peer_query('self', 'SELECT homing._pause_streams()');
		PERFORM homing._peer_query('self', 'SELECT homing._stopped_at($1)', s.region_id::text) FROM homing._streams() s;
		PERFORM homing._debug_point('missing-paused');
		PERFORM homing._peer_query('self', 'SELECT homing._await_writers()');
		IF EXISTS (SELECT FROM homing._parts p WHERE EXISTS (SELECT FROM homing.outcome o WHERE o.id = p.token)
					OR EXISTS (SELECT FROM homing.resolution r WHERE r.gid = p.gid)) THEN
			RAISE EXCEPTION 'parts of transactions over several regions are about to end' USING ERRCODE = 'object_in_use';
		END IF;
		parts := ARRAY(SELECT p.gid FROM homing._parts p);
		SELECT q[1] INTO written FROM homing._peer_query('self', 'SELECT pg_logical_emit_message(true, ''pg_homing'', ''missing'')') q;
		mine := homing._applied_positions();
		FOR donor IN SELECT m.region_id, m.name FROM homing.member m
			WHERE m.status = 'active' AND NOT m.pending AND m.region_id <> here.region_id ORDER BY m.region_id LOOP
			BEGIN
				rows := homing._copy_via(donor.region_id, mine, written, parts);
				what := format('%s rows taken from region "%s"', rows, donor.name);
				EXIT;
			EXCEPTION WHEN OTHERS THEN
				failures := concat_ws('; ', failures, format('"%s": %s', donor.name, SQLERRM));
				PERFORM homing._peer_close(s) FROM unnest(ARRAY['step', 'freeze', 'snapshot', 'self']) s;
				PERFORM homing._open_step('self', homing._region_conninfo(homing._here_name()));
				EXIT WHEN (SELECT l.copied IS NOT NULL FROM homing.local_region l);  -- its commit did not answer
			END;
		END LOOP;
		IF (SELECT l.copied IS NULL FROM homing.local_region l) THEN
			RAISE EXCEPTION 'this region lacks the last changes of region %, and found no other one to take them from', homing._missing_names(here.missing)
				USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = failures;
		END IF;
		PERFORM homing._debug_point('missing-committed');
	END IF;
	PERFORM homing._peer_query('self', 'SELECT homing._end_missing($1)', what);
	RETURN what;
END
$$;
COMMENT ON FUNCTION homing._take_missing() IS
	'takes a copy of what this region lacks of lost ones, and lets it serve; for the worker. NULL: it lacks nothing';
