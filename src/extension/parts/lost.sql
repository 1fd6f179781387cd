-- The loss of a region.

-- --- the steps of a loss at one survivor -------------------------------------------------------------

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
-- Requires: the disabled subscription is committed. A worker not yet visible will see it and not start.
CREATE FUNCTION homing._stopped_at(lost int2) RETURNS pg_lsn
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
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
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l WHERE l.fenced IS NULL);
	stream record;
	walsender int;
	clean boolean := true;
BEGIN
	-- A fenced region keeps its slots: with them goes the WAL that tells which of its writes are orphaned.
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
	IF (SELECT count(*) FROM homing.member m WHERE m.status <> 'lost') < 3 THEN
		PERFORM homing._drop_tail_slots();
	END IF;

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
			WHERE l.fenced IS NULL
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

-- --- the flows ---------------------------------------------------------------------------------------

-- Opens a session with each of these survivors, which from then on holds its change lock and does the steps, each
-- committed. Returns their maps. Those that have the map `newest` stop applying from the lost regions in the same
-- round trip: no need to know first that the others have it too, as long as somebody resumes what was stopped in vain.
CREATE FUNCTION homing._open_survivors(newest jsonb, ids int2[], losses int2[], cluster uuid, purpose text,
	OUT maps jsonb, OUT stopped jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	digest CONSTANT bigint := homing._map_digest(newest);
	failed record;
	id int2;
	map jsonb;
	state jsonb;
BEGIN
	maps := '{}';
	stopped := '{}';
	SELECT homing._member_name(newest, split_part(o.session, ' ', 2)::int2) AS region, o.failure INTO failed
	FROM homing._peer_open_all(ARRAY(SELECT 'step ' || i FROM unnest(ids) i),
		ARRAY(SELECT homing._region_conninfo(homing._member_name(newest, i)) FROM unnest(ids) i)) o LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'cannot %: region "%" cannot be reached', purpose, failed.region
			USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection', DETAIL = failed.failure,
				HINT = format('Every region that is not lost must agree. If "%s" is gone as well, declare both lost at once: homing.declare_lost(ARRAY[..., %L], force => true).', failed.region, failed.region);
	END IF;
	FOREACH id IN ARRAY ids LOOP
		-- A region whose confirmation is asked for may be the lost one.
		PERFORM homing._peer_post('step ' || id, 'SELECT set_config(s, v, false) FROM (VALUES (''lock_timeout'', ''10s''),
			(''statement_timeout'', ''0''), (''synchronous_commit'', ''local''), (''jit'', ''off'')) AS x(s, v)');
		PERFORM homing._peer_post('step ' || id, 'SELECT homing._hold_change()');
		PERFORM homing._peer_post('step ' || id, 'SELECT homing._await_recount(epoch) FROM homing.cluster_map');
		PERFORM homing._peer_post('step ' || id,
			'SELECT homing._map() FROM homing.local_region WHERE region_id = $1 AND cluster_id = $2 AND fenced IS NULL',
			id::text, cluster::text);
		PERFORM homing._peer_post('step ' || id, s, losses::text, digest::text) FROM unnest(homing._stop_steps()) s;
	END LOOP;
	FOREACH id IN ARRAY ids LOOP
		PERFORM homing._peer_take('step ' || id) FROM generate_series(1, 3);
		SELECT q[1]::jsonb INTO map FROM homing._peer_take('step ' || id) q;
		IF map IS NULL THEN
			RAISE EXCEPTION 'cannot %: region "%" is fenced', purpose, homing._member_name(newest, id)
				USING ERRCODE = 'object_not_in_prerequisite_state',
					HINT = format('If "%s" shall not come back, declare both lost at once.', homing._member_name(newest, id));
		END IF;
		maps := maps || jsonb_build_object(id::text, map);
		PERFORM homing._peer_take('step ' || id);
		SELECT q[1]::jsonb INTO state FROM homing._peer_take('step ' || id) q;
		stopped := stopped || jsonb_build_object(id::text, state);
	END LOOP;
END
$$;

-- Each a transaction of its own: the second must find that the subscription is disabled.
CREATE FUNCTION homing._stop_steps() RETURNS text[]
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY['SELECT homing._stop_applying($1::int2[], $2::bigint)', 'SELECT homing._stopped_at($1::int2[], $2::bigint)']
$$;

-- Lets the survivors stop applying from the lost regions. Returns where, as _open_survivors does.
CREATE FUNCTION homing._stop_survivors(map jsonb, ids int2[], losses int2[], purpose text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	digest CONSTANT bigint := homing._map_digest(map);
	stopped jsonb := '{}';
	state jsonb;
	id int2;
BEGIN
	PERFORM homing._peer_post('step ' || i, s, losses::text, digest::text) FROM unnest(ids) i, unnest(homing._stop_steps()) s;
	FOREACH id IN ARRAY ids LOOP
		PERFORM homing._peer_take('step ' || id);
		SELECT q[1]::jsonb INTO state FROM homing._peer_take('step ' || id) q;
		IF state IS NULL THEN
			RAISE EXCEPTION 'cannot %: the cluster map of region "%" changed meanwhile', purpose, homing._member_name(map, id)
				USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
		END IF;
		stopped := stopped || jsonb_build_object(id::text, state);
	END LOOP;
	RETURN stopped;
END
$$;

-- Steps 5 and 6 of declare_lost at all survivors; `here` has taken the map, if there is a new one. What fails is left to
-- their workers. Returns the parts of committed transactions that they noted as lost.
CREATE FUNCTION homing._tell_survivors(map jsonb, ids int2[], here int2, losses int2[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
	parts uuid[];
	noted uuid[] := '{}';
BEGIN
	FOREACH id IN ARRAY ids LOOP
		BEGIN
			IF id <> here THEN
				PERFORM homing._peer_post('step ' || id, 'SELECT homing._adopt_map($1::jsonb)', map::text);
			END IF;
			PERFORM homing._peer_post('step ' || id, 'SELECT homing._clean_up_lost()');
			PERFORM homing._peer_post('step ' || id,
				'SELECT coalesce(array_agg(p.part), ''{}'') FROM homing.lost_part p WHERE p.lost = ANY ($1::int2[])', losses::text);
			PERFORM homing._peer_post('step ' || id, 'SELECT homing._release_change()');
		EXCEPTION WHEN OTHERS THEN
			NULL;  -- told below
		END;
	END LOOP;
	FOREACH id IN ARRAY ids LOOP
		IF id <> here THEN
			BEGIN
				PERFORM homing._peer_take('step ' || id);
			EXCEPTION WHEN OTHERS THEN
				RAISE WARNING 'region "%" could not be told: %', homing._member_name(map, id), SQLERRM
					USING HINT = 'Its worker learns of the loss as soon as it reaches another region.';
			END;
		END IF;
		BEGIN
			PERFORM homing._peer_take('step ' || id);
			SELECT q[1]::uuid[] INTO parts FROM homing._peer_take('step ' || id) q;
			noted := noted || parts;
			PERFORM homing._peer_take('step ' || id);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'slots and subscriptions of the lost region are still at region "%": %',
				homing._member_name(map, id), SQLERRM
				USING HINT = 'Its worker removes them.';
		END;
	END LOOP;
	RETURN noted;
END
$$;

-- Runs a statement at all survivors at once. Requires: their sessions.
CREATE FUNCTION homing._at_survivors(ids int2[], statement text, VARIADIC args text[] DEFAULT '{}')
RETURNS TABLE (survivor int2, answer text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._peer_post('step ' || i, statement, VARIADIC args) FROM unnest(ids) i;
	FOREACH survivor IN ARRAY ids LOOP
		SELECT q INTO answer FROM homing._peer_take('step ' || survivor) q LIMIT 1;
		RETURN NEXT;
	END LOOP;
END
$$;

-- Sessions with the witnesses that can be reached, which then know the map. They hold no rows: a loss can do without
-- them if enough others vote.
CREATE FUNCTION homing._open_witnesses(map jsonb) RETURNS int2[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	reached int2[] := '{}';
	id int2;
BEGIN
	FOREACH id IN ARRAY homing._witnesses(map) LOOP
		BEGIN
			PERFORM homing._open_step('step ' || id, homing._region_conninfo(homing._member_name(map, id)));
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1::jsonb)', map::text);
			reached := reached || id;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE 'witness "%" does not vote: %', homing._member_name(map, id), SQLERRM;
		END;
	END LOOP;
	RETURN reached;
END
$$;

-- Who cannot be told hears of it: workers ask each other.
CREATE FUNCTION homing._tell(regions int2[], map jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
BEGIN
	FOREACH id IN ARRAY regions LOOP
		BEGIN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1::jsonb)', map::text);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be told: %', homing._member_name(map, id), SQLERRM
				USING HINT = 'Its worker learns of the change as soon as it reaches another region.';
		END;
	END LOOP;
END
$$;

-- Declares regions lost: their homes pass to their heirs at every survivor.
--
--  1. A session with every survivor, ourselves included, each holding the survivor's change lock; so one
--     declaration, join or home_table runs at a time. All survivors get the newest map there is; if it
--     already has the loss, only 6 is left to do. Each step is sent to all at once, and goes out with the one before
--     it where it need not know its outcome: opening a session apart, it takes two round trips until the heirs serve.
--  2. Every survivor stops applying from the lost regions and waits until its apply worker is gone.
--  3. Every survivor tells how far it applied. A survivor that missed the tail would serve keys whose last
--     writes it does not have: those who are behind receive it from the furthest (relay.sql).
--     Without force, before 2: a majority of the voters accepts the map of epoch + 1 in which the regions are
--     pending (vote.sql). They do when all that they promised to them has ended; so by then the regions do not
--     serve. And instead of 5's first adoption, a majority accepts the map of 4.
--  4. The new map: epoch + 1, the regions lost, their final positions, the survivors.
--  5. Every survivor adopts it, and serves.
--  6. Every survivor removes the subscriptions from, and the slots of, the lost regions.
--
-- A crash between 2 and 5 leaves subscriptions disabled; the next declaration, from any survivor,
-- continues. With votes there is no way back from the first one: the worker of any survivor goes on. One after the first adoption in 5 is finished by the workers. The lost regions are told
-- by the workers too.
CREATE FUNCTION homing._voting(map jsonb, reached int2[]) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(v ORDER BY v), '{}') FROM unnest(homing._voters(map)) v WHERE v = ANY (reached)
$$;

-- Lets a majority vote that the regions are about to be lost, and tells the survivors, who stop applying from them.
-- Returns the map that was decided and who voted.
CREATE FUNCTION homing._vote_lost(newest jsonb, targets int2[], survivors int2[], witnesses int2[], purpose text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	voters CONSTANT int2[] := homing._voters(newest);
	voting CONSTANT int2[] := homing._voting(newest, survivors || witnesses);
	proposed jsonb;
	decided jsonb;
	outcome jsonb;
	target int2;
BEGIN
	IF cardinality(voting) <= cardinality(voters) / 2 THEN
		RAISE EXCEPTION 'cannot %: % of % voters are no majority', purpose, cardinality(voting), cardinality(voters)
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Make sure that the lost regions are stopped and stay so, then pass force => true: it is your word for that.';
	END IF;
	-- Each round decides something: what earlier calls left, then this. Nobody else is at it, by the change locks.
	FOR attempt IN 1 .. 10 LOOP
		IF NOT EXISTS (SELECT FROM jsonb_array_elements(newest->'members') m
					   WHERE (m->>'id')::int2 = ANY (targets) AND m->>'status' <> 'lost' AND (m->>'pending')::boolean IS NOT TRUE)
			AND cardinality(homing._unfinished_votes()) = 0 THEN
			RETURN jsonb_build_object('map', newest, 'answered', outcome->'answered');
		END IF;
		proposed := jsonb_set(newest, '{epoch}', to_jsonb((newest->>'epoch')::bigint + 1));
		proposed := jsonb_set(proposed, '{members}', (
			SELECT jsonb_agg(CASE WHEN (m->>'id')::int2 = ANY (targets) AND m->>'status' <> 'lost'
				THEN m || jsonb_build_object('pending', true) ELSE m END ORDER BY (m->>'id')::int2)
			FROM jsonb_array_elements(newest->'members') m));
		outcome := homing._vote(proposed, voting, purpose);
		decided := outcome->'map';
		IF (decided->>'epoch')::bigint > (newest->>'epoch')::bigint + 1 THEN
			RAISE EXCEPTION 'cannot %: the cluster map here is not the newest', purpose
				USING ERRCODE = 'serialization_failure', HINT = 'Regions tell each other within a moment: try again.';
		END IF;
		-- What is on its way still counts.
		FOR target IN SELECT (m->>'id')::int2 FROM jsonb_array_elements(decided->'members') m WHERE (m->>'pending')::boolean LOOP
			PERFORM homing._at_survivors(survivors, 'SELECT homing._drain_lost($1)', target::text);
		END LOOP;
		PERFORM homing._at_survivors(survivors, 'SELECT homing._adopt_map($1::jsonb)', decided::text);
		PERFORM homing._tell(witnesses, decided);
		newest := decided;
	END LOOP;
	RAISE EXCEPTION 'cannot %: too many other losses are being decided', purpose
		USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Try again.';
END
$$;

-- What declare_lost has found nothing wrong with.
CREATE FUNCTION homing._declare(regions text[], force boolean, reason text, actor text, purpose text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	newest jsonb := homing._map();
	targets int2[];
	already text[] := '{}';
	survivors int2[];
	witnesses int2[];
	unopened int2[];
	behind int2[];
	opened int2[] := '{}';
	maps jsonb := '{}';
	stopped jsonb := '{}';  -- by survivor and target
	target int2;
	finals jsonb := '{}';
	votes jsonb;
	deciding int;
	noted uuid[] := '{}';
BEGIN
	BEGIN
		-- 1. Sessions, and the newest map. A newer map may name survivors that we did not know.
		LOOP
			SELECT coalesce(array_agg(DISTINCT homing._member_id(newest, r)), '{}') INTO targets
			FROM unnest(regions) r WHERE homing._member_id(newest, r) = ANY (homing._living(newest));
			SELECT array_agg(s ORDER BY s) INTO survivors FROM unnest(homing._living(newest)) s WHERE s <> ALL (targets);
			IF here.region_id <> ALL (survivors) THEN
				RAISE EXCEPTION 'this region was declared lost' USING ERRCODE = 'read_only_sql_transaction';
			END IF;
			unopened := ARRAY(SELECT s FROM unnest(survivors) s WHERE s <> ALL (opened) ORDER BY s);
			EXIT WHEN cardinality(unopened) = 0;
			SELECT maps || o.maps, stopped || o.stopped INTO maps, stopped FROM homing._open_survivors(newest, unopened,
				CASE WHEN force THEN targets ELSE '{}' END, here.cluster_id, purpose) o;
			opened := opened || unopened;
			SELECT m.value INTO newest FROM jsonb_each(maps) m ORDER BY (m.value->>'epoch')::bigint DESC LIMIT 1;
		END LOOP;
		behind := ARRAY(SELECT s FROM unnest(survivors) s WHERE homing._map_digest(maps->(s::text)) <> homing._map_digest(newest));
		PERFORM homing._at_survivors(behind, 'SELECT homing._adopt_map($1::jsonb)', newest::text);
		PERFORM homing._at_survivors(behind, 'SELECT homing._await_recount($1::bigint)', newest->>'epoch');

		SELECT coalesce(array_agg(r), '{}') INTO already FROM unnest(regions) r
		WHERE homing._member_id(newest, r) <> ALL (targets);
		IF cardinality(already) > 0 THEN
			RAISE NOTICE 'region % is already lost', (SELECT string_agg(format('"%s"', r), ', ') FROM unnest(already) r);
		END IF;

		-- A majority may have voted already, for an earlier call that did not get to the end.
		IF force IS NOT TRUE AND cardinality(targets) > 0 THEN
			witnesses := homing._open_witnesses(newest);
			votes := homing._vote_lost(newest, targets, survivors, witnesses, purpose);
			newest := votes->'map';
			-- Promises of those about to be lost no longer count anywhere: without them as voters, fewer can outvote
			-- a survivor.
			PERFORM homing._at_survivors(survivors, 'SELECT homing._await_recount($1::bigint)', newest->>'epoch');
			SELECT array_agg(t ORDER BY t) INTO targets FROM (
				SELECT (m->>'id')::int2 FROM jsonb_array_elements(newest->'members') m
				WHERE m->>'status' <> 'lost' AND (m->>'pending')::boolean) x(t);
			targets := coalesce(targets, '{}');
		END IF;

		IF cardinality(targets) > 0 THEN
			-- 2. With force it is done where the map was the newest.
			IF EXISTS (SELECT FROM unnest(survivors) s, unnest(targets) t WHERE stopped->(s::text)->(t::text) IS NULL) THEN
				stopped := homing._stop_survivors(newest, survivors, targets, purpose);
			END IF;

			-- 3.
			FOREACH target IN ARRAY targets LOOP
				finals := finals || jsonb_build_object(target::text, homing._level_survivors(newest, target, survivors, stopped));
			END LOOP;

			-- 4.
			newest := jsonb_set(newest, '{epoch}', to_jsonb(greatest((newest->>'epoch')::bigint,
				(SELECT max((a.value->>'epoch')::bigint) FROM homing.acceptor a WHERE force)) + 1));
			newest := jsonb_set(newest, '{members}', (
				SELECT jsonb_agg(CASE WHEN (m->>'id')::int2 = ANY (targets)
					THEN m || jsonb_build_object('status', 'lost', 'pending', false, 'spread', to_jsonb(homing._active(newest, survivors)),
						'final_lsn', finals->(m->>'id'), 'lost_epoch', newest->'epoch')
					ELSE m END ORDER BY (m->>'id')::int2)
				FROM jsonb_array_elements(newest->'members') m));
			newest := newest || jsonb_build_object('events', (
				SELECT jsonb_agg(jsonb_build_object('at', clock_timestamp(), 'epoch', newest->'epoch', 'kind', 'declare_lost',
					'region', homing._member_name(newest, t), 'actor', actor, 'reason', reason))
				FROM unnest(targets) t));

			IF force IS NOT TRUE THEN
				SELECT v->'map', v->'answered' INTO newest, votes FROM homing._vote(newest, homing._voting(newest, survivors || witnesses), purpose) v;
			END IF;

			-- 5. Here first: what is decided is then durable where the operator is.
			SELECT q[1]::int INTO deciding FROM homing._peer_query('step ' || here.region_id, 'SELECT pg_backend_pid()') q;
			PERFORM homing._peer_query('step ' || here.region_id, 'SELECT homing._adopt_map($1::jsonb)', newest::text);
		END IF;
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		-- The first adoption decides. Interrupted, it may yet commit: it is over when its session is. Where no session
		-- could be opened, nothing was begun.
		IF (cardinality(opened) > 0 OR SQLSTATE <> '08001') AND cardinality(targets) > 0
			AND (deciding IS NULL OR pg_terminate_backend(deciding, 5000)
				AND NOT EXISTS (SELECT FROM homing.member m WHERE m.region_id = ANY (targets) AND m.status = 'lost')) THEN
			PERFORM homing._resume_all(survivors, targets);
		END IF;
		RAISE;
	END;
	noted := homing._tell_survivors(newest, survivors, here.region_id, targets);
	IF witnesses IS NULL THEN
		witnesses := homing._open_witnesses(newest);
	ELSE
		PERFORM homing._tell(witnesses, newest);
	END IF;
	PERFORM homing._peer_close('step ' || o) FROM unnest(opened || witnesses) o WHERE o <> ALL (survivors);
	PERFORM homing._peer_give_back('step ' || s) FROM unnest(survivors) s;
	IF EXISTS (SELECT FROM jsonb_array_elements(newest->'members') m WHERE m->>'status' <> 'lost' AND (m->>'id')::int2 IN (
			SELECT homing._member_id(newest, r) FROM unnest(regions) r)) THEN
		RAISE EXCEPTION 'cannot %: another loss was decided first', purpose
			USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
	END IF;
	noted := ARRAY(SELECT DISTINCT unnest(noted));
	IF cardinality(noted) > 0 THEN
		RAISE WARNING 'parts of % committed transactions were lost with region %', cardinality(noted),
			(SELECT string_agg(format('"%s"', homing._member_name(newest, t)), ', ') FROM unnest(targets) t)
			USING DETAIL = 'They were prepared there, and no other region had received that they were committed.',
				HINT = 'homing.lost_parts lists them. When the region comes back, homing.rejoin records what they wrote in homing.orphaned_writes.';
	END IF;
	RETURN homing._loss(newest, regions) || CASE WHEN cardinality(noted) = 0 THEN '{}' ELSE jsonb_build_object('lost_parts', cardinality(noted)) END
		|| CASE WHEN votes IS NULL THEN '{}'
		ELSE jsonb_build_object('voted', CASE jsonb_typeof(votes) WHEN 'array' THEN votes ELSE votes->'answered' END) END;
END
$$;

-- --- by a process that has sessions with the survivors already (rehome/declarer) ---------------------

CREATE FUNCTION homing._ask_declarer(request text) RETURNS text
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_ask_declarer';
COMMENT ON FUNCTION homing._ask_declarer(text) IS
	'lets the declarer of this region do _declare_for(request); NULL: it did not, or not to the end';

CREATE FUNCTION homing._declare_for(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN homing._declare(ARRAY(SELECT r FROM jsonb_array_elements_text(request->'regions') r), true, request->>'reason',
		request->>'actor', request->>'purpose');
END
$$;

-- What a loss will do in the session is done for nobody: it is then known there.
CREATE FUNCTION homing._rehearse_loss() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	map CONSTANT jsonb := homing._map();
BEGIN
	PERFORM homing._drain_lost(0::int2), homing._stop_applying('{}'::int2[], homing._map_digest(map)),
		homing._stopped_at('{}'::int2[], homing._map_digest(map)), homing._adopt_map(map), homing._has_lost_streams();
END
$$;

-- Sessions with all regions that the worker here has heard of lately: nobody is to wait for one that is gone. False:
-- this is no region that could declare a loss.
CREATE FUNCTION homing._keep_step_sessions() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	map CONSTANT jsonb := homing._map();
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l WHERE l.fenced IS NULL);
	lately CONSTANT timestamptz := clock_timestamp() - 3 * current_setting('homing.probe_interval')::interval;
	heard CONSTANT int2[] := ARRAY(SELECT m FROM unnest(homing._living(map)) m
		WHERE m = here OR EXISTS (SELECT FROM homing._peer_seen() p WHERE p.region_id = m AND p.last_seen > lately));
	id int2;
BEGIN
	IF map IS NULL OR homing._is_witness() THEN
		RETURN false;
	END IF;
	PERFORM homing._peer_close('step ' || (m->>'id')) FROM jsonb_array_elements(map->'members') m
	WHERE (m->>'id')::int2 <> ALL (heard) OR here IS NULL;
	IF here IS NULL THEN
		RETURN true;
	END IF;
	PERFORM homing._peer_open_all(ARRAY(SELECT 'step ' || h FROM unnest(heard) h),
		ARRAY(SELECT homing._region_conninfo(homing._member_name(map, h)) FROM unnest(heard) h));
	FOREACH id IN ARRAY heard LOOP
		BEGIN
			PERFORM homing._peer_post('step ' || id, 'SELECT set_config(s, v, false) FROM (VALUES (''idle_session_timeout'', ''0''),
				(''jit'', ''off'')) AS x(s, v)');
			PERFORM homing._peer_post('step ' || id, 'SELECT homing._rehearse_loss()');
		EXCEPTION WHEN OTHERS THEN
			PERFORM homing._peer_close('step ' || id);
		END;
	END LOOP;
	FOREACH id IN ARRAY heard LOOP
		BEGIN
			PERFORM homing._peer_take('step ' || id) FROM generate_series(1, 2);
		EXCEPTION WHEN OTHERS THEN
			PERFORM homing._peer_close('step ' || id);
		END;
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION homing._keep_step_sessions() IS
	'opens, for the declarer, sessions with the regions that answer, and closes others; false where it has nothing to do';

CREATE FUNCTION homing.declare_lost(regions text[], force boolean DEFAULT false, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here homing.local_region;
	purpose text;
	newest jsonb;
	name text;
	target int2;
	result jsonb;
BEGIN
	SELECT * INTO here FROM homing.local_region;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of a cluster' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	PERFORM homing._refuse_witness();
	IF here.fenced IS NOT NULL THEN
		RAISE EXCEPTION 'this region is fenced: %', here.fenced
			USING ERRCODE = 'read_only_sql_transaction', HINT = 'Declare the loss at a region that serves.';
	END IF;
	IF coalesce(cardinality(regions), 0) = 0 OR array_position(regions, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'the name of the lost region must be given' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	newest := homing._map();
	FOREACH name IN ARRAY regions LOOP
		target := homing._member_id(newest, name);
		IF EXISTS (SELECT FROM homing.witness w WHERE w.name = name AND w.status <> 'removed') THEN
			RAISE EXCEPTION '"%" is a witness: it has nothing to lose', name USING ERRCODE = 'invalid_parameter_value',
				HINT = 'homing.remove_region removes it, whether or not it can be reached.';
		END IF;
		IF target IS NULL THEN
			RAISE EXCEPTION 'region "%" does not exist', name USING ERRCODE = 'invalid_parameter_value',
				HINT = 'homing.regions lists the regions.';
		END IF;
		IF target = here.region_id THEN
			RAISE EXCEPTION 'a region cannot declare itself lost' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Call homing.declare_lost at a region that goes on.';
		END IF;
	END LOOP;
	purpose := format('declare region %s lost', (SELECT string_agg(format('"%s"', r), ', ') FROM unnest(regions) r));
	IF force IS NOT TRUE AND homing._lease_left() IS NULL THEN
		RAISE EXCEPTION 'cannot % without force', purpose USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = 'Without leases, nothing but your word keeps a region that is declared lost from serving.',
			HINT = 'Make sure that the region is stopped and stays so, then pass force => true: it is your word for that.';
	END IF;
	-- The steps run in sessions of their own: they would wait for this transaction's locks for ever, and it
	-- must see what they committed.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'cannot % in a transaction of isolation level %', purpose, upper(current_setting('transaction_isolation'))
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
		RAISE EXCEPTION 'cannot % in a transaction that has written', purpose USING ERRCODE = 'active_sql_transaction';
	END IF;

	IF force THEN
		result := homing._ask_declarer(jsonb_build_object('regions', regions, 'reason', reason, 'actor', session_user,
			'purpose', purpose)::text);
	END IF;
	RETURN coalesce(result, homing._declare(regions, force, reason, session_user, purpose));
END
$$;
COMMENT ON FUNCTION homing.declare_lost(text[], boolean, text) IS
	'declares several regions lost at once; see declare_lost(text, boolean, text)';

CREATE FUNCTION homing.declare_lost(region text, force boolean DEFAULT false, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN homing.declare_lost(ARRAY[region], force, reason);
END
$$;
COMMENT ON FUNCTION homing.declare_lost(text, boolean, text) IS
	'declares a region lost: its homes pass to its heirs at every other region. A majority of the regions votes for it, when all leases of the lost one have ended; without leases, or without a majority, force is the operator''s word that the region is stopped. Fails with 08001 when another region cannot be reached, with 55000 when the survivors have not received the same changes from it';

CREATE FUNCTION homing._majority_is_silent(silences bigint[], voters int4, limit_ms bigint) RETURNS boolean
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_majority_is_silent';

-- Regions that this one has not heard of for so long; 0: none.
CREATE FUNCTION homing._silent_here(limit_ms bigint) RETURNS int2[]
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT coalesce(array_agg(m.region_id ORDER BY m.region_id), '{}')
		FROM homing.local_region l JOIN homing.member m ON m.region_id <> l.region_id AND m.status = 'active'
		WHERE limit_ms > 0 AND l.fenced IS NULL AND homing._silent_for(m.region_id) >= limit_ms);
END
$$;

-- What the worker of a survivor does about losses when nobody else has for a while: finishes those that somebody began
-- to declare, and declares the regions that a majority has not heard of. Returns what it declared.
CREATE FUNCTION homing._declare_by_itself(limit_ms bigint) RETURNS jsonb
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	map CONSTANT jsonb := homing._map();
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l);
	voters CONSTANT int2[] := homing._voters(map);
	unfinished CONSTANT text[] := homing._unfinished_losses();
	silent CONSTANT int2[] := homing._silent_here(limit_ms);
	silences jsonb := '{}';
	lost text[] := '{}';
	voter int2;
	region int2;
	heard bigint;
BEGIN
	IF cardinality(unfinished) > 0 THEN
		RETURN homing.declare_lost(unfinished, false, 'begun earlier');
	END IF;
	IF cardinality(silent) = 0 THEN
		RETURN NULL;
	END IF;
	FOREACH voter IN ARRAY voters LOOP
		CONTINUE WHEN voter = ANY (silent);
		BEGIN
			PERFORM homing._peer_open('ask ' || voter, homing._region_conninfo(homing._member_name(map, voter)));
			FOREACH region IN ARRAY silent LOOP
				SELECT q[1]::bigint INTO heard FROM homing._peer_query('ask ' || voter, 'SELECT homing._silent_for($1)', region::text) q;
				silences := jsonb_set(silences, ARRAY[region::text], coalesce(silences->(region::text), '[]') || to_jsonb(heard));
			END LOOP;
		EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection OR connection_failure THEN
			NULL;  -- it does not count
		END;
	END LOOP;
	FOREACH region IN ARRAY silent LOOP
		IF homing._majority_is_silent(ARRAY(SELECT jsonb_array_elements_text(silences->(region::text))::bigint),
				cardinality(voters), limit_ms) THEN
			lost := lost || homing._member_name(map, region);
		END IF;
	END LOOP;
	IF cardinality(lost) = 0 THEN
		RETURN NULL;
	END IF;
	RETURN homing.declare_lost(lost, false, format('a majority has not heard of it for %s s', limit_ms / 1000));
END
$$;
COMMENT ON FUNCTION homing._declare_by_itself(bigint) IS
	'finishes losses that were begun, and declares regions lost that a majority has not heard of for so long; for the worker';

-- Sessions may be gone with the failure that brought us here: new ones. What is still going on in the old ones is over
-- when they have let go of the change lock.
CREATE FUNCTION homing._resume_all(survivors int2[], targets int2[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	survivor int2;
	target int2;
	name text;
BEGIN
	FOREACH survivor IN ARRAY survivors LOOP
		SELECT m.name INTO name FROM homing.member m WHERE m.region_id = survivor;
		BEGIN
			PERFORM homing._peer_close('step ' || survivor);
			PERFORM homing._peer_open('resume ' || survivor, homing._region_conninfo(name));
			PERFORM homing._peer_query('resume ' || survivor, 'SET lock_timeout = ''10s''');
			FOREACH target IN ARRAY targets LOOP
				PERFORM homing._peer_query('resume ' || survivor, 'SELECT homing._lock_change(), homing._resume_applying($1)', target::text);
			END LOOP;
			PERFORM homing._peer_close('resume ' || survivor);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be told to resume replication: %', name, SQLERRM
				USING HINT = 'Call homing.declare_lost again when the region can be reached.';
		END;
	END LOOP;
END
$$;

CREATE FUNCTION homing._loss(map jsonb, regions text[]) RETURNS jsonb
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('epoch', map->'epoch',
		'lost', (SELECT jsonb_agg(jsonb_build_object('region', m->'name', 'epoch', m->'lost_epoch',
					'final_lsn', m->'final_lsn') ORDER BY (m->>'id')::int2)
				 FROM jsonb_array_elements(map->'members') m
				 WHERE m->>'status' = 'lost' AND m->>'name' = ANY (regions)),
		'survivors', (SELECT jsonb_agg(homing._member_name(map, s) ORDER BY s) FROM unnest(homing._living(map)) s))
$$;
