-- The end of a lost region's stream, passed on from the survivor that has most of it (PROTOCOL 2d).
--
-- What a region has applied of another one is in its own WAL, marked with an origin. Every region of a
-- cluster of three or more keeps that WAL as long as some region may lack it: a *tail slot*. When the third one joins,
-- all have theirs before its stream begins.
--
--  1. The worker copies one of the slots of its streams: the new tail slot stands where some region was.
--  2. When all transactions of that moment are over, it notes how far it has applied each other region. All
--     that it committed before the slot's position is below these positions. The stream of a region that joins
--     afterwards is behind the slot from its beginning on.
--  3. When every region has told that it has come as far, the older tail slot is of no use and goes.
--
-- declare_lost, for a region that has less of the lost one's stream than another:
--
--  4. At the furthest, which has it from the lost region itself, a copy of the tail slot. Its output plugin
--     sends what came from the lost region and is beyond the position of the one that lacks it.
--  5. There, a subscription of its own, until all is applied. Its name and source are durable before its first
--     change: a repeated call goes on with the same. From here on the direct stream is never resumed.
--  6. The position of the lost region's stream is moved to the end, and the subscription removed.
--
-- Regions serve only afterwards, when the map with the loss is taken. Where nobody has kept it, they take the map without,
-- and serve when they have copied what they lack (missing.sql).

CREATE TABLE homing.tail_slot (
	slot name PRIMARY KEY,
	taken xid8,               -- transactions from here on began after the slot was copied; NULL: those before are over
	positions jsonb NOT NULL DEFAULT '{}',  -- by region: all below is before the slot
	current boolean NOT NULL  -- relays use it; the other one is to follow
);
COMMENT ON TABLE homing.tail_slot IS 'slots that keep what this region applied of others until all have it; local';

CREATE TABLE homing.passed_on (
	lost int2 PRIMARY KEY,
	source int2 NOT NULL,
	stream name NOT NULL
);
COMMENT ON TABLE homing.passed_on IS 'lost regions whose last changes came here from another region, which alone can pass them on; local';

CREATE FUNCTION homing._relays(reporters int2[], positions pg_lsn[], directly boolean[],
	OUT final_position pg_lsn, OUT source int2, OUT reader int2)
RETURNS SETOF record
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_relays';
COMMENT ON FUNCTION homing._relays(int2[], pg_lsn[], boolean[]) IS
	'final position of a lost region''s stream, and who passes on the end of it to whom; source NULL: nobody can';

-- How far this region has durably applied each other one.
CREATE FUNCTION homing._applied_positions() RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(s.region_id, coalesce(pg_replication_origin_progress(s.origin, true), '0/0')), '{}')
	FROM homing._streams() s JOIN homing.member m USING (region_id) WHERE m.status <> 'lost'
$$;

-- Whether every other region has told that it has applied at least that.
CREATE FUNCTION homing._all_have(positions jsonb, heard jsonb) RETURNS boolean
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT NOT EXISTS (
		SELECT FROM homing.local_region l
		JOIN homing.member reader ON reader.region_id <> l.region_id AND reader.status <> 'lost'
		CROSS JOIN jsonb_each_text(positions) AS o(origin, position)
		JOIN homing.member publisher ON publisher.region_id = o.origin::int2 AND publisher.status <> 'lost'
		WHERE publisher.region_id <> reader.region_id
			AND ((heard->(reader.region_id::text)->>o.origin)::pg_lsn < o.position::pg_lsn) IS NOT FALSE)
$$;

-- Also one that is not noted: of a transaction that failed.
CREATE FUNCTION homing._tail_slots() RETURNS SETOF name
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.slot_name FROM pg_replication_slots s CROSS JOIN homing.local_region l
	WHERE s.slot_name ~ format('^homing_%s_tail_%s_[0-9]+$', left(l.cluster_id::text, 8), l.region_id)
$$;

CREATE FUNCTION homing._drop_tail_slots() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._drop_slot(s) FROM homing._tail_slots() s;
	DELETE FROM homing.tail_slot;
END
$$;

-- Whether there is a third region to pass anything on to, or one joins. One statement: who joins is the one, then the other.
CREATE FUNCTION homing._needs_tail() RETURNS boolean
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT (SELECT count(*) FROM homing.member m WHERE m.status <> 'lost') >= 3 OR EXISTS (SELECT FROM homing._stray_slots())
$$;

-- Drops the tail slots unless there is need of them, which it returns.
CREATE FUNCTION homing._end_tail() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	needed CONSTANT boolean := homing._needs_tail();
BEGIN
	IF needed OR NOT (EXISTS (SELECT FROM homing.tail_slot) OR EXISTS (SELECT FROM homing._tail_slots())) THEN
		RETURN needed;
	END IF;
	-- Who joins has made the slot of its stream when it comes for a tail slot: we see the one, or it waits for us.
	LOCK TABLE homing.tail_slot IN SHARE ROW EXCLUSIVE MODE;
	IF homing._needs_tail() THEN
		RETURN true;
	END IF;
	PERFORM homing._drop_tail_slots();
	RETURN false;
END
$$;

-- Of the slots of this region's streams, the one that is furthest.
CREATE FUNCTION homing._furthest_stream(OUT slot name, OUT restart_lsn pg_lsn)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.slot_name, s.restart_lsn FROM homing.local_region l
	JOIN homing.member m ON m.region_id <> l.region_id AND m.status <> 'lost'
	JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
	WHERE s.wal_status IN ('reserved', 'extended') AND s.confirmed_flush_lsn IS NOT NULL
	ORDER BY s.confirmed_flush_lsn DESC LIMIT 1
$$;

CREATE FUNCTION homing._tail_slot_name(cluster text, region int2, number int) RETURNS name
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('homing_%s_tail_%s_%s', left(cluster, 8), region, number)
$$;

-- Copies the slot of one of our streams, if there is one, and notes it. Requires: nothing written in this transaction.
CREATE FUNCTION homing._take_tail_slot(as_current boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	model CONSTANT name := (SELECT f.slot FROM homing._furthest_stream() f);
	copied name;
BEGIN
	IF model IS NULL THEN
		RETURN;
	END IF;
	SELECT x.name INTO copied
	FROM homing.local_region l, generate_series(0, 2) n, homing._tail_slot_name(l.cluster_id::text, l.region_id, n) AS x(name)
	WHERE NOT EXISTS (SELECT FROM homing.tail_slot t WHERE t.slot = x.name)
	ORDER BY n LIMIT 1;
	PERFORM homing._drop_slot(copied);
	PERFORM pg_copy_logical_replication_slot(model, copied, false);
	INSERT INTO homing.tail_slot (slot, taken, current) VALUES (copied, pg_snapshot_xmax(pg_current_snapshot()), as_current);
END
$$;

-- The first tail slot, unless it is there. Requires: nothing written in this transaction.
CREATE FUNCTION homing._begin_tail() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- The worker and who joins may come at the same time.
	LOCK TABLE homing.tail_slot IN SHARE ROW EXCLUSIVE MODE;
	IF NOT EXISTS (SELECT FROM homing.tail_slot) THEN
		PERFORM homing._take_tail_slot(true);
	END IF;
END
$$;

-- One round of the worker. `heard`: by region, what its _applied_positions told.
CREATE FUNCTION homing._keep_tails(heard jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- In bytes of WAL, as what follows.
	retention CONSTANT bigint := pg_size_bytes(current_setting('homing.relay_retention'));
	rotate_after CONSTANT bigint := least(64 * 1024 * 1024, retention / 2);
	furthest record;
	can_follow boolean;
	present homing.tail_slot;
	kept bigint;
	kept_by_next bigint;
BEGIN
	IF EXISTS (SELECT FROM homing.local_region WHERE fenced IS NOT NULL) THEN
		PERFORM homing._drop_tail_slots();
		RETURN;
	END IF;
	PERFORM homing._bound_slots();
	-- Until the copy is there, another region may be lost of whose end only we have kept something.
	IF EXISTS (SELECT FROM homing.local_region WHERE missing <> '{}') THEN
		RETURN;
	END IF;
	-- A slot is copied by a transaction that has written nothing: in the next round.
	IF pg_current_xact_id_if_assigned() IS NOT NULL OR NOT homing._end_tail() THEN
		RETURN;
	END IF;
	-- While something is passed on, its source stays.
	IF EXISTS (SELECT FROM pg_replication_slots s CROSS JOIN homing.local_region l
			   WHERE s.slot_name ~ format('^homing_%s_relay_', left(l.cluster_id::text, 8)) AND s.database = current_database()) THEN
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM homing.tail_slot t
			   WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = t.slot AND s.wal_status IN ('reserved', 'extended'))) THEN
		PERFORM homing._record_event('tail_slot_lost', NULL, session_user,
			'WAL that another region may lack is gone: if a region is lost now, not all can be passed on');
		PERFORM homing._drop_tail_slots();
		RETURN;
	END IF;

	SELECT * INTO present FROM homing.tail_slot t WHERE t.current;
	IF NOT FOUND THEN
		PERFORM homing._begin_tail();
		RETURN;
	END IF;
	SELECT f.slot, f.restart_lsn INTO furthest FROM homing._furthest_stream() f;
	-- One that a transaction of ours has left when it failed is in nobody's way: it is made anew.
	can_follow := furthest.slot IS NOT NULL
		AND (SELECT count(*) FROM pg_replication_slots s WHERE s.slot_name NOT IN (
				SELECT x FROM homing._tail_slots() x WHERE x NOT IN (SELECT t.slot FROM homing.tail_slot t)))
			< current_setting('max_replication_slots')::int;
	-- What it keeps and a new one would not: the streams need the rest in any case.
	SELECT max(k.kept) FILTER (WHERE t.current), max(k.kept) FILTER (WHERE NOT t.current) INTO kept, kept_by_next
	FROM homing.tail_slot t JOIN pg_replication_slots s ON s.slot_name = t.slot
	CROSS JOIN pg_wal_lsn_diff(coalesce(furthest.restart_lsn, pg_current_wal_flush_lsn()), s.restart_lsn) AS k(kept);
	-- A region that has just joined keeps all that joining wrote, until the next one has followed.
	IF kept > retention AND (kept_by_next > retention / 2 OR (kept_by_next IS NULL AND NOT can_follow)) THEN
		PERFORM homing._record_event('tail_slot_dropped', NULL, session_user,
			format('%s of WAL kept for regions that have not received the changes of others', pg_size_pretty(kept)));
		PERFORM homing._drop_tail_slots();
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM homing.tail_slot t WHERE t.taken <= pg_snapshot_xmin(pg_current_snapshot())) THEN
		UPDATE homing.tail_slot t SET positions = homing._applied_positions() || t.positions, taken = NULL
		WHERE t.taken <= pg_snapshot_xmin(pg_current_snapshot());
	ELSIF EXISTS (SELECT FROM homing.tail_slot t WHERE NOT t.current AND t.taken IS NULL AND homing._all_have(t.positions, heard)) THEN
		DELETE FROM homing.tail_slot t WHERE t.current;
		UPDATE homing.tail_slot t SET current = true;
		PERFORM homing._drop_slot(present.slot);
	ELSIF can_follow AND NOT EXISTS (SELECT FROM homing.tail_slot t WHERE NOT t.current)
		AND (kept > rotate_after
			 OR EXISTS (SELECT FROM jsonb_object_keys(homing._applied_positions()) o WHERE NOT present.positions ? o)) THEN
		PERFORM homing._take_tail_slot(false);
	END IF;
END
$$;
COMMENT ON FUNCTION homing._keep_tails(jsonb) IS
	'keeps the WAL from which the last changes of a region that is lost could be passed on';

-- --- at the source -----------------------------------------------------------------------------------

CREATE FUNCTION homing._relay_stream(lost int2, reader int2) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('homing_%s_relay_%s_%s', left(cluster_id::text, 8), lost, reader) FROM homing.local_region
$$;
COMMENT ON FUNCTION homing._relay_stream(int2, int2) IS
	'name of the slot at the source and of the subscription at the reader; without a reader, what all of them begin with';

-- The slot to read from, options for the connection, and the position up to which it must be read. No slot: this region has
-- not kept what the reader lacks, or has none to spare.
CREATE FUNCTION homing._open_relay(lost int2, reader int2, beyond pg_lsn, OUT slot text, OUT options text, OUT until pg_lsn)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT int2 := (SELECT region_id FROM homing.local_region);
	origin oid;
	tail record;
BEGIN
	SELECT o.roident INTO origin FROM pg_subscription s
	JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
	JOIN pg_replication_origin o ON o.roname = 'pg_' || s.oid
	WHERE s.subname = homing._stream_name(lost, here);
	slot := homing._relay_stream(lost, reader);
	IF NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = _open_relay.slot) THEN
		SELECT t.slot, (t.positions->>(lost::text))::pg_lsn AS complete_from INTO tail
		FROM homing.tail_slot t JOIN pg_replication_slots s ON s.slot_name = t.slot AND s.wal_status IN ('reserved', 'extended')
		WHERE t.current;
		IF origin IS NULL OR (tail.complete_from <= beyond) IS NOT TRUE
			OR (SELECT count(*) FROM pg_replication_slots) >= current_setting('max_replication_slots')::int THEN
			slot := NULL;
			RETURN;
		END IF;
		PERFORM pg_copy_logical_replication_slot(tail.slot, slot::name, false);
	END IF;
	options := format('-c homing.relay_origin=%s -c homing.relay_beyond=%s', origin, beyond);
	until := pg_current_wal_flush_lsn();
END
$$;

CREATE FUNCTION homing._relay_read(slot text) RETURNS pg_lsn
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.confirmed_flush_lsn FROM pg_replication_slots s WHERE s.slot_name = slot
$$;

-- --- at the region that lacks something --------------------------------------------------------------

CREATE FUNCTION homing._read_relay(lost int2, source int2, slot text, options text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	address text := homing._region_conninfo((SELECT m.name FROM homing.member m WHERE m.region_id = source));
BEGIN
	IF EXISTS (SELECT FROM homing.passed_on p WHERE p.lost = _read_relay.lost) THEN
		RETURN;  -- a call before this one has begun it
	END IF;
	SELECT string_agg(format('%s=''%s''', o.keyword, replace(replace(o.value, E'\\', E'\\\\'), '''', E'\\''')), ' ') INTO address
	FROM (SELECT keyword, value FROM homing._conninfo_options(address) WHERE keyword <> 'options'
		  UNION ALL
		  SELECT 'options', concat_ws(' ', (SELECT value FROM homing._conninfo_options(address) WHERE keyword = 'options'), options)) o;
	PERFORM homing._subscribe(slot, address);
	INSERT INTO homing.passed_on (lost, source, stream) VALUES (lost, source, slot);
END
$$;

CREATE FUNCTION homing._pause_relay(slot text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
			   WHERE s.subname = slot AND d.datname = current_database() AND s.subenabled) THEN
		EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', slot);
	END IF;
END
$$;

-- Requires: _pause_relay is committed, and all has been read.
CREATE FUNCTION homing._close_relay(lost int2, slot text, final_position pg_lsn) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	direct oid;
	worker int;
BEGIN
	LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT w.pid INTO worker FROM pg_stat_subscription w WHERE w.subname = slot AND w.pid IS NOT NULL;
		EXIT WHEN NOT FOUND;
		PERFORM pg_terminate_backend(worker);
		PERFORM pg_sleep(0.01);
	END LOOP;
	SELECT s.oid INTO STRICT direct FROM pg_subscription s
	JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
	WHERE s.subname = homing._stream_name(lost, (SELECT region_id FROM homing.local_region));
	PERFORM pg_replication_origin_advance('pg_' || direct, final_position);
	PERFORM homing._drop_subscription(slot);
END
$$;

CREATE FUNCTION homing._passed_on_by(lost int2) RETURNS int2
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT p.source FROM homing.passed_on p WHERE p.lost = _passed_on_by.lost
$$;

-- --- at the region that declares the loss ------------------------------------------------------------

-- Lets every survivor come to the same position of the lost region's stream, which it returns, but for those that are
-- `lacking`: given are those that lack something already, returned also those that cannot come there. Requires: sessions
-- "step N" with all of them, and that they have stopped applying from it; `stopped` is where (_stopped_at).
CREATE FUNCTION homing._level_survivors(map jsonb, lost int2, survivors int2[], stopped jsonb, INOUT lacking int2[], OUT final_position pg_lsn)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	name CONSTANT text := homing._member_name(map, lost);
	positions pg_lsn[] := '{}';
	sources int2[] := '{}';  -- by survivor: who passed the end on to it
	survivor int2;
	position pg_lsn;
	source int2;
	where_stopped text;
	relay record;
	opened record;
	reached pg_lsn;
	last_reached pg_lsn;
	patience CONSTANT interval := '30 seconds';
	give_up timestamptz;
BEGIN
	FOREACH survivor IN ARRAY survivors LOOP
		SELECT s.at, s."from" INTO position, source
		FROM jsonb_to_record(stopped->(survivor::text)->(lost::text)) AS s(at pg_lsn, "from" int2);
		positions := positions || position;
		sources := sources || source;
		where_stopped := concat_ws(', ', where_stopped, format('"%s" at %s', homing._member_name(map, survivor), position));
	END LOOP;
	FOR relay IN
		SELECT r.final_position, r.reader, coalesce(sources[array_position(survivors, r.reader)], r.source) AS source,
			positions[array_position(survivors, r.reader)] AS beyond
		FROM homing._relays(survivors, positions, (SELECT array_agg(s IS NULL ORDER BY n) FROM unnest(sources) WITH ORDINALITY AS u(s, n))) r
	LOOP
		final_position := relay.final_position;
		CONTINUE WHEN relay.reader IS NULL;
		-- It has already some of what comes after its position.
		IF relay.source <> ALL (survivors) THEN
			RAISE EXCEPTION 'cannot declare region "%" lost: no surviving region can pass on its last changes', name
				USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Applied up to: %s.', where_stopped),
					HINT = 'Start the region again to let the others catch up, or declare those that are behind lost as well: they can join again.';
		END IF;
		-- What it lacks already, what is passed on may build on.
		CONTINUE WHEN relay.reader = ANY (lacking);
		IF relay.source IS NOT NULL THEN
			SELECT q[1] AS slot, q[2] AS options, q[3]::pg_lsn AS until INTO opened FROM homing._peer_query('step ' || relay.source,
				'SELECT * FROM homing._open_relay($1, $2, $3)', lost::text, relay.reader::text, relay.beyond::text) q;
		ELSE
			SELECT NULL AS slot INTO opened;
		END IF;
		IF opened.slot IS NULL THEN
			lacking := lacking || relay.reader;
			CONTINUE;
		END IF;
		PERFORM homing._peer_query('step ' || relay.reader, 'SELECT homing._read_relay($1, $2, $3, $4)',
			lost::text, relay.source::text, opened.slot, opened.options);
		last_reached := NULL;
		LOOP
			SELECT q[1]::pg_lsn INTO reached FROM homing._peer_query('step ' || relay.source, 'SELECT homing._relay_read($1)', opened.slot) q;
			EXIT WHEN reached >= opened.until;
			IF reached IS DISTINCT FROM last_reached THEN
				last_reached := reached;
				give_up := clock_timestamp() + patience;
			ELSIF clock_timestamp() > give_up THEN
				RAISE EXCEPTION 'cannot declare region "%" lost: region "%" does not get on with the last changes that region "%" passes on', name,
					homing._member_name(map, relay.reader), homing._member_name(map, relay.source)
					USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('It stands at %s of %s.', reached, opened.until),
						HINT = format('Its server log says why. Then call homing.declare_lost again.');
			END IF;
			PERFORM pg_sleep(0.01);
		END LOOP;
		PERFORM homing._peer_query('step ' || relay.reader, 'SELECT homing._pause_relay($1)', opened.slot);
		PERFORM homing._peer_query('step ' || relay.reader, 'SELECT homing._close_relay($1, $2, $3)',
			lost::text, opened.slot, final_position::text);
		PERFORM homing._peer_query('step ' || relay.source, 'SELECT homing._drop_slot($1)', opened.slot);
		RAISE NOTICE 'region "%" has received the last changes of region "%" from region "%"',
			homing._member_name(map, relay.reader), name, homing._member_name(map, relay.source);
	END LOOP;
END
$$;
