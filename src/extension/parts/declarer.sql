-- Losses that the region's own processes declare: the declarer for others (rehome/declarer), with sessions that are open
-- already, and the worker by itself.

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

-- What a loss will do in the session is done for nobody, once for each map: it is then known there.
CREATE FUNCTION homing._rehearse_loss() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	map CONSTANT jsonb := homing._map();
	digest CONSTANT bigint := homing._map_digest(map);
BEGIN
	IF current_setting('homing_rehearsed.map', true) IS DISTINCT FROM digest::text THEN
		PERFORM homing._drain_lost(0::int2), homing._stop_applying('{}'::int2[], digest),
			homing._stopped_at('{}'::int2[], digest), homing._adopt_map(map), homing._has_lost_streams();
		PERFORM set_config('homing_rehearsed.map', digest::text, false);
	END IF;
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
	IF here IS NULL OR cardinality(homing._living(map)) = 1 THEN
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

-- --- the worker --------------------------------------------------------------------------------------

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

-- What the worker of a survivor does about losses: takes what this region lacks of them; when nobody else has for a while,
-- finishes those that somebody began to declare, and declares the regions that a majority has not heard of. Returns what it
-- did.
CREATE FUNCTION homing._see_to_losses(limit_ms bigint) RETURNS text
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
	IF EXISTS (SELECT FROM homing.local_region l WHERE l.fenced IS NULL AND l.missing <> '{}') THEN
		RETURN homing._take_missing();
	END IF;
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
COMMENT ON FUNCTION homing._see_to_losses(bigint) IS
	'takes what this region lacks of lost ones, finishes losses that were begun, and declares regions lost that a majority has not heard of for so long; for the worker';
