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
-- prepared transaction stays as it is: the rows that it has written are those of homes of this region, which differ
-- nowhere. One that ends between 2 and 3 would be copied over: then 3 fails. Only parts that a lost region coordinated end
-- before, as the donor knows how: nobody else would tell. A failure lets the streams of the living go on, until the next try.

CREATE FUNCTION homing._region_names(regions int2[]) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('"%s"', m.name), ', ' ORDER BY m.region_id) FROM homing.member m WHERE m.region_id = ANY (regions)
$$;

-- The lost regions the end of whose streams is not here. One whose stream is gone was complete.
CREATE FUNCTION homing._lacking() RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(m.region_id ORDER BY m.region_id), '{}') FROM homing._streams() s JOIN homing.member m USING (region_id)
	WHERE m.status = 'lost' AND coalesce(pg_replication_origin_progress(s.origin, true), '0/0') < m.final_lsn
$$;
COMMENT ON FUNCTION homing._lacking() IS 'lost regions the end of whose streams this region lacks';

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

CREATE FUNCTION homing._resume_streams() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	paused name;
BEGIN
	-- A copy whose commit did not answer may yet commit, and a loss that is being decided counts with streams that stand.
	PERFORM homing._lock_change();
	FOR paused IN
		SELECT s.stream FROM homing._streams() s JOIN homing.member m USING (region_id) CROSS JOIN homing.local_region l
		WHERE NOT s.enabled AND m.status <> 'lost' AND NOT m.pending AND l.fenced IS NULL AND l.copied IS NULL
	LOOP
		EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', paused);
	END LOOP;
END
$$;

-- Waits for the sessions that write homed tables here. Not for what is prepared: who holds it up may be the lost region.
CREATE FUNCTION homing._await_writers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + interval '30 seconds';
	writers CONSTANT text[] := ARRAY(
		SELECT DISTINCT k.virtualtransaction FROM pg_locks k
		JOIN pg_database d ON d.oid = k.database AND d.datname = current_database()
		WHERE k.locktype = 'relation' AND k.pid <> pg_backend_pid()
			AND (k.relation BETWEEN 9000 AND 9999  -- homes (pg/home_lock)
				OR k.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
					AND k.relation IN (SELECT t.relid FROM homing.homed_table t
									   UNION SELECT p.relid FROM homing.homed_table t CROSS JOIN pg_partition_tree(t.relid) p)));
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

-- Step 3, in a session with this region. `prepared` is what was so in 2. Returns how many rows of homed tables it took.
CREATE FUNCTION homing._copy_from(donor int2, address text, snapshot text, positions jsonb, prepared text[]) RETURNS bigint
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
	IF EXISTS (SELECT unnest(prepared) EXCEPT SELECT p.gid FROM pg_prepared_xacts p) THEN
		RAISE EXCEPTION 'a prepared transaction has ended meanwhile' USING ERRCODE = 'serialization_failure';
	END IF;
	-- Until the commit no loss is decided in which our positions count; and none was that leaves out what we have copied.
	PERFORM homing._lock_change();
	IF NOT EXISTS (SELECT FROM homing.member m WHERE m.region_id = donor AND m.status = 'active' AND NOT m.pending)
		OR EXISTS (SELECT FROM homing.member m WHERE m.status = 'lost' AND (positions->>(m.region_id::text))::pg_lsn > m.final_lsn) THEN
		RAISE EXCEPTION 'a region was lost meanwhile' USING ERRCODE = 'serialization_failure';
	END IF;
	UPDATE homing.local_region l SET copied = positions WHERE l.missing <> '{}' AND l.copied IS NULL AND l.fenced IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this region lacks nothing any more' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	RETURN rows;
END
$$;

-- Steps 2 and 3 with one donor. `mine` is how far this region has applied the others, `written` how far it has written,
-- but for what is `prepared`.
CREATE FUNCTION homing._copy_via(donor int2, mine jsonb, written pg_lsn, prepared text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	name CONSTANT text := (SELECT m.name FROM homing.member m WHERE m.region_id = donor);
	address CONSTANT text := homing._region_conninfo(name);
	patience CONSTANT interval := '15 seconds';
	give_up timestamptz;
	theirs jsonb;
	confirmed pg_lsn;
	behind text;  -- what is waited for
	last_behind text;
	part record;
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
		SELECT concat_ws(' ', CASE WHEN (confirmed >= written) IS NOT TRUE THEN coalesce(confirmed::text, 'no slot') END,
			string_agg(m.key || ':' || coalesce(theirs->>m.key, '-'), ' ' ORDER BY m.key)) INTO behind
		FROM jsonb_each_text(mine) m WHERE m.key <> donor::text AND coalesce(theirs->>m.key, '0/0')::pg_lsn < m.value::pg_lsn;
		EXIT WHEN behind = '';
		IF behind IS DISTINCT FROM last_behind THEN
			last_behind := behind;
			give_up := clock_timestamp() + patience;
		ELSIF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'region "%" does not receive what this region has', name USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	FOR part IN SELECT p.gid, p.token FROM homing._parts p WHERE p.coordinator = ANY (here.missing) LOOP
		PERFORM homing._peer_query('self', 'INSERT INTO homing.resolution VALUES ($1, $2) ON CONFLICT DO NOTHING', part.gid, coalesce(
			(SELECT q[1] FROM homing._peer_query('step', 'SELECT committed FROM homing.outcome WHERE id = $1
				UNION ALL SELECT true FROM homing.awaited_part WHERE decision = $1 LIMIT 1', part.token::text) q), 'false'));
	END LOOP;
	IF FOUND THEN
		RAISE EXCEPTION 'parts of transactions that a lost region coordinated are about to end' USING ERRCODE = 'object_in_use';
	END IF;
	SELECT * INTO taken FROM homing._take_snapshot('step', address, name, 'complete this region');
	PERFORM homing._peer_query('self', 'BEGIN');
	SELECT q[1] INTO rows FROM homing._peer_query('self', 'SELECT homing._copy_from($1, $2, $3, $4, $5)', donor::text, address, taken.snapshot,
		taken.positions::text, prepared::text) q;
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
	here homing.local_region;
	stream record;
BEGIN
	-- No loss in which our positions count is decided meanwhile.
	PERFORM homing._lock_change();
	SELECT * INTO here FROM homing.local_region;
	IF here.copied IS NULL THEN
		RETURN;
	END IF;
	FOR stream IN
		-- Of whom it had no stream, it had all that counts.
		SELECT s.origin, coalesce((here.copied->>(s.region_id::text))::pg_lsn, m.final_lsn) AS position
		FROM homing._streams() s JOIN homing.member m USING (region_id)
	LOOP
		IF stream.position > coalesce(pg_replication_origin_progress(stream.origin, false), '0/0') THEN
			PERFORM pg_replication_origin_advance(stream.origin, stream.position);
		END IF;
	END LOOP;
	PERFORM homing._debug_point('missing-moved');
	-- A region may have been lost since, whose end the donor did not have either.
	UPDATE homing.local_region SET missing = homing._lacking(), copied = NULL;
	PERFORM homing._resume_streams();
	-- What we did not apply ourselves, nobody can have from us.
	PERFORM homing._drop_tail_slots();
	DELETE FROM homing.passed_on p WHERE p.lost = ANY (here.missing);
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
	prepared text[];
	donor record;
	rows bigint;
	what text := 'it has taken a copy already';
	failures text;
BEGIN
	-- One at a time. Other regions may be lost meanwhile.
	LOCK TABLE homing.passed_on IN SHARE UPDATE EXCLUSIVE MODE;
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
		prepared := ARRAY(SELECT p.gid FROM pg_prepared_xacts p WHERE p.database = current_database());
		SELECT q[1] INTO written FROM homing._peer_query('self', 'SELECT pg_logical_emit_message(true, ''pg_homing'', ''missing'')') q;
		mine := homing._applied_positions();
		FOR donor IN SELECT m.region_id, m.name FROM homing.member m
			WHERE m.status = 'active' AND NOT m.pending AND m.region_id <> here.region_id ORDER BY m.region_id LOOP
			BEGIN
				rows := homing._copy_via(donor.region_id, mine, written, prepared);
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
			PERFORM homing._peer_query('self', 'SELECT homing._resume_streams()');
			RAISE EXCEPTION 'this region lacks the last changes of region %, and found no other one to take them from', homing._region_names(here.missing)
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
