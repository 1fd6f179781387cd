-- All survivors at once, over sessions "step <id>", for who declares a loss (declare.sql).

-- Opens a session with each of these survivors, which from then on holds its change lock and does the steps, each
-- committed. Returns their maps, and those that lack something of earlier losses. Those that have the map `newest` stop
-- applying from the lost regions in the same round trip: no need to know first that the others have it too, as long as
-- somebody resumes what was stopped in vain.
CREATE FUNCTION homing._open_survivors(newest jsonb, ids int2[], losses int2[], cluster uuid, purpose text,
	OUT maps jsonb, OUT stopped jsonb, OUT lacking int2[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	digest CONSTANT bigint := homing._map_digest(newest);
	failed record;
	id int2;
	met record;
	state jsonb;
BEGIN
	maps := '{}';
	stopped := '{}';
	lacking := '{}';
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
			'SELECT homing._map(), missing <> ''{}'' FROM homing.local_region
			 WHERE region_id = $1 AND cluster_id = $2 AND fenced IS NULL AND copied IS NULL',
			id::text, cluster::text);
		PERFORM homing._peer_post('step ' || id, s, losses::text, digest::text) FROM unnest(homing._stop_steps()) s;
	END LOOP;
	FOREACH id IN ARRAY ids LOOP
		BEGIN
			PERFORM homing._peer_take('step ' || id) FROM generate_series(1, 3);
		EXCEPTION WHEN lock_not_available THEN
			RAISE EXCEPTION 'cannot %: another change is going on at region "%"', purpose, homing._member_name(newest, id)
				USING ERRCODE = 'lock_not_available', HINT = 'Regions join, are lost, and tables are homed one after the other: try again later.';
		END;
		SELECT q[1]::jsonb AS map, q[2]::boolean AS lacks INTO met FROM homing._peer_take('step ' || id) q;
		IF met.map IS NULL THEN
			RAISE EXCEPTION 'cannot %: region "%" is fenced', purpose, homing._member_name(newest, id)
				USING ERRCODE = 'object_not_in_prerequisite_state',
					HINT = format('If "%s" shall not come back, declare both lost at once.', homing._member_name(newest, id));
		END IF;
		maps := maps || jsonb_build_object(id::text, met.map);
		IF met.lacks THEN
			lacking := lacking || id;
		END IF;
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
