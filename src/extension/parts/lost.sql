-- The steps of a loss at one survivor (declare.sql).

-- Waits until what the region sent has been applied here: its apply worker is gone or idle. Helps the
-- survivors to stop at one position, no more: the positions are compared in any case.
CREATE FUNCTION homing._drain_lost(lost int2) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stream CONSTANT text := homing._stream_name(lost, (SELECT region_id FROM homing.local_region));
	give_up CONSTANT timestamptz := clock_timestamp() + interval '5 seconds';
	worker record;
	idle_at pg_lsn;
BEGIN
	LOOP
		-- Statistics are read once per transaction unless told otherwise.
		PERFORM pg_stat_clear_snapshot();
		SELECT w.pid, w.received_lsn, a.wait_event IS NOT DISTINCT FROM 'LogicalApplyMain' AS idle,
			a.wait_event IS NOT DISTINCT FROM 'LibPQWalReceiverConnect' AS away INTO worker
		FROM pg_stat_subscription w LEFT JOIN pg_stat_activity a USING (pid)
		WHERE w.subname = stream AND w.relid IS NULL;
		IF NOT FOUND OR worker.pid IS NULL OR worker.away THEN
			RETURN true;
		END IF;
		-- Twice idle with nothing received in between: the socket was empty.
		IF worker.idle AND worker.received_lsn IS NOT DISTINCT FROM idle_at THEN
			RETURN true;
		END IF;
		idle_at := CASE WHEN worker.idle THEN worker.received_lsn END;
		IF clock_timestamp() > give_up THEN
			RETURN false;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;

CREATE FUNCTION homing._stop_applying(lost int2) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stream CONSTANT text := homing._stream_name(lost, (SELECT region_id FROM homing.local_region));
BEGIN
	IF EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
			   WHERE s.subname = stream AND d.datname = current_database() AND s.subenabled) THEN
		EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', stream);
	END IF;
	-- Rows of later transactions are not what the lost region left.
	INSERT INTO homing.loss_mark AS m (lost, xid) VALUES (lost, pg_current_xact_id())
	ON CONFLICT ON CONSTRAINT loss_mark_pkey DO UPDATE SET xid = excluded.xid;
END
$$;

-- First what has arrived is applied, then nothing more is taken. False, and nothing is done: the map here is not that one.
CREATE FUNCTION homing._stop_applying(losses int2[], digest bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF digest IS DISTINCT FROM homing._map_digest() THEN
		RETURN false;
	END IF;
	PERFORM homing._drain_lost(l) FROM unnest(losses) l;
	PERFORM homing._stop_applying(l) FROM unnest(losses) l;
	RETURN true;
END
$$;

CREATE FUNCTION homing._resume_applying(lost int2) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stream CONSTANT text := homing._stream_name(lost, (SELECT region_id FROM homing.local_region));
BEGIN
	-- Some of what it would send may have come here another way: only the loss leads on.
	IF EXISTS (SELECT FROM homing.passed_on p WHERE p.lost = _resume_applying.lost) THEN
		RAISE EXCEPTION 'changes of region "%" have been passed on to this region', (SELECT m.name FROM homing.member m WHERE m.region_id = lost)
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	-- It takes its streams up again when it has what it lacks.
	IF EXISTS (SELECT FROM homing.local_region l WHERE l.missing <> '{}') THEN
		RETURN;
	END IF;
	-- A majority may have voted: then only the loss leads on, too.
	IF homing._has_voted_against(lost) OR EXISTS (SELECT FROM homing.member m WHERE m.region_id = lost AND m.pending) THEN
		RETURN;
	END IF;
	-- The loss may have been decided by somebody else meanwhile.
	IF EXISTS (SELECT FROM homing.member m WHERE m.region_id = lost AND m.status <> 'lost')
		AND EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
					WHERE s.subname = stream AND d.datname = current_database() AND NOT s.subenabled) THEN
		EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', stream);
	END IF;
END
$$;

-- How far the region's stream is applied here, read after its apply worker is gone, so that it is final.
-- Requires: the disabled subscription is committed. A worker not yet visible will see it and not start. One that is gone by
-- itself is worth no warning.
CREATE FUNCTION homing._stopped_at(lost int2) RETURNS pg_lsn
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error
AS $$
DECLARE
	stream CONSTANT text := homing._stream_name(lost, (SELECT region_id FROM homing.local_region));
	subscription oid;
	worker int;
BEGIN
	SELECT s.oid INTO subscription FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
	WHERE s.subname = stream AND d.datname = current_database() AND NOT s.subenabled;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'region "%" has no stopped subscription "%"',
			(SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id)), stream
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT w.pid INTO worker FROM pg_stat_subscription w WHERE w.subid = subscription AND w.pid IS NOT NULL;
		EXIT WHEN NOT FOUND;
		PERFORM pg_terminate_backend(worker);
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN coalesce(pg_replication_origin_progress('pg_' || subscription, true), '0/0');
END
$$;

-- The same of several, by region: "at", and "from" whom the end of the stream came. NULL: the map here is not that one,
-- so nothing was stopped.
CREATE FUNCTION homing._stopped_at(losses int2[], digest bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF digest IS DISTINCT FROM homing._map_digest() THEN
		RETURN NULL;
	END IF;
	RETURN (SELECT jsonb_object_agg(l, jsonb_build_object('at', homing._stopped_at(l), 'from', homing._passed_on_by(l)))
			FROM unnest(losses) l);
END
$$;

-- Removes what lost regions left at this survivor: subscriptions from them, their slots, their walsenders.
-- Returns whether nothing is left. Safe to repeat and to run at two places at once.
CREATE FUNCTION homing._clean_up_lost() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l WHERE l.fenced IS NULL AND l.missing = '{}');
	stream record;
	walsender int;
	clean boolean := true;
BEGIN
	-- A fenced region keeps its slots: with them goes the WAL that tells which of its writes are orphaned. One that lacks
	-- something knows by its streams what that is.
	IF here IS NULL OR NOT homing._has_lost_streams() THEN
		RETURN true;
	END IF;
	-- Takes turns with another clean-up here, and blocks neither readers nor an adoption.
	LOCK TABLE homing.event IN SHARE UPDATE EXCLUSIVE MODE;
	PERFORM homing._note_lost_parts();

	PERFORM homing._drop_subscription(s.subname) FROM homing.member m
	JOIN pg_subscription s ON s.subname IN (homing._stream_name(m.region_id, here), homing._relay_stream(m.region_id, here))
	JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
	WHERE m.status = 'lost';
	PERFORM homing._end_tail();

	FOR stream IN
		SELECT s.slot_name FROM homing.member m
		JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(here, m.region_id)
			OR (s.slot_name ^@ homing._relay_stream(m.region_id, NULL) AND s.database = current_database())
		WHERE m.status = 'lost'
	LOOP
		-- A region that still runs connects again and again; between two tries its slot is free.
		FOR attempt IN 1 .. 100 LOOP
			SELECT s.active_pid INTO walsender FROM pg_replication_slots s WHERE s.slot_name = stream.slot_name;
			EXIT WHEN NOT FOUND;
			BEGIN
				IF walsender IS NOT NULL THEN
					PERFORM pg_terminate_backend(walsender, 1000);
				END IF;
				PERFORM pg_drop_replication_slot(stream.slot_name);
				EXIT;
			EXCEPTION WHEN object_in_use OR undefined_object THEN
				PERFORM pg_sleep(0.02);
			END;
		END LOOP;
		clean := clean AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = stream.slot_name);
	END LOOP;
	RETURN clean;
END
$$;
COMMENT ON FUNCTION homing._clean_up_lost() IS
	'removes the subscriptions and slots of lost regions from this region; true when none is left';

CREATE FUNCTION homing._has_lost_streams() RETURNS boolean
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT EXISTS (
			SELECT FROM homing.local_region l JOIN homing.member m ON m.status = 'lost' AND m.region_id <> l.region_id
			WHERE l.fenced IS NULL AND l.missing = '{}'
				AND (EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
							 WHERE s.subname = homing._stream_name(m.region_id, l.region_id)
								AND d.datname = current_database())
					OR EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
							   WHERE s.subname = homing._relay_stream(m.region_id, l.region_id) AND d.datname = current_database())
					OR EXISTS (SELECT FROM pg_replication_slots s
							   WHERE s.slot_name = homing._stream_name(l.region_id, m.region_id)
								OR (s.slot_name ^@ homing._relay_stream(m.region_id, NULL) AND s.database = current_database())))));
END
$$;
