-- Witnesses: voters without data. One more vote where there are two regions: either goes on with it when the other is
-- gone, without anybody's word, and neither can with itself alone.
--
-- A witness keeps what a voter keeps, and the cluster map. It is in no publication, owns no homes and is nobody's
-- heir; it proposes nothing, needs no lease, and what it says does not confirm a region after a restart.
--
-- The voters change in two steps, each at every region before the next begins: first "joining" (or "leaving"), with
-- which regions need leases as if it voted (pg/lease), then "active" (or "removed"). So no region that still serves without
-- a lease knows others that can outvote it; and of two majorities, before and after a step, one voter is in both.

-- The map with the witness in that status; NULL: without it. One that could not be made makes room for another of its name.
CREATE FUNCTION homing._map_with_witness(map jsonb, id int2, name text, status text) RETURNS jsonb
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT map - 'witnesses' || jsonb_build_object('epoch', (map->>'epoch')::bigint + 1)
		|| coalesce((SELECT jsonb_build_object('witnesses', jsonb_agg(w ORDER BY (w->>'id')::int2))
					FROM (SELECT w FROM jsonb_array_elements(map->'witnesses') w
						  WHERE (w->>'id')::int2 <> id AND (w->>'name' <> name OR w->>'status' <> 'joining')
						  UNION ALL
						  SELECT jsonb_build_object('id', id, 'name', name, 'status', status) WHERE status IS NOT NULL) x(w)
					HAVING count(*) > 0), '{}')
$$;

CREATE FUNCTION homing._check_witness(plan jsonb, nonce text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	name CONSTANT text := plan->>'name';
	region text;
	id int2;
	unfit record;
	version text;
BEGIN
	IF EXISTS (SELECT FROM jsonb_array_elements(plan->'map'->'members') m WHERE m->>'name' = plan->>'name' AND m->>'status' <> 'lost')
		OR EXISTS (SELECT FROM jsonb_array_elements(plan->'map'->'witnesses') w
				   WHERE w->>'name' = plan->>'name' AND w->>'status' NOT IN ('joining', 'removed')) THEN
		RAISE EXCEPTION 'region "%" already exists', name USING ERRCODE = 'duplicate_object',
			HINT = 'Choose a name that no region and no witness of the cluster has.';
	END IF;
	SELECT u.setting, u.value, u.needed, u.hint INTO unfit FROM homing._unfit_settings(0) u
	WHERE u.setting IN ('shared_preload_libraries', 'max_worker_processes') LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'witness "%" has % = %, but needs %', name, unfit.setting, coalesce(nullif(unfit.value, ''), ''''''), unfit.needed
			USING ERRCODE = 'config_file_error', HINT = unfit.hint;
	END IF;
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		region := homing._member_name(plan->'map', id);
		SELECT q[1] INTO version FROM homing._peer_query('step ' || id,
			'SELECT extversion FROM pg_extension WHERE extname = ''pg_homing''') q;
		IF version IS DISTINCT FROM (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pg_homing') THEN
			RAISE EXCEPTION 'this database has another version of pg_homing than region "%", which has %', region, version
				USING ERRCODE = 'config_file_error', HINT = 'All voters of a cluster must have the same.';
		END IF;
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_no_loss()');
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_server_name($1, $2)', region, name);
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_reaches($1, $2, $3)', region, plan->>'conninfo', nonce);
	END LOOP;
END
$$;

-- --- the first step, at the witness and at the others ------------------------------------------------------------

CREATE FUNCTION homing._become_witness(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
BEGIN
	INSERT INTO homing.local_region (region_id, cluster_id, admin)
	VALUES ((plan->>'id')::int2, (plan->>'cluster')::uuid, plan->>'admin');
	INSERT INTO homing.cluster_map (epoch) VALUES ((plan->'map'->>'epoch')::bigint);
	PERFORM homing._forget_other_votes();
	PERFORM homing._adopt_map(plan->'joining');
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._put_server(homing._member_name(plan->'map', id), plan->'conninfos'->>(id::text), plan->>'admin');
	END LOOP;
	PERFORM homing._put_server(plan->>'name', plan->>'conninfo', plan->>'admin');
	PERFORM homing._start_worker();
END
$$;

CREATE FUNCTION homing._welcome_witness(name text, conninfo text, map jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT homing._adopt_map(map) THEN
		RAISE EXCEPTION 'the cluster map at region "%" changed meanwhile', homing._here_name()
			USING ERRCODE = 'serialization_failure', HINT = 'Call homing.create_witness again.';
	END IF;
	PERFORM homing._put_server(name, conninfo, (SELECT admin FROM homing.local_region));
END
$$;

CREATE FUNCTION homing._drop_witness_server(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM homing.member m WHERE m.name = _drop_witness_server.name) THEN
		EXECUTE format('DROP SERVER IF EXISTS %I CASCADE', name);
	END IF;
END
$$;

CREATE FUNCTION homing._undo_witness(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	without CONSTANT jsonb := homing._map_with_witness(plan->'joining', (plan->>'id')::int2, plan->>'name', NULL);
	id int2;
	session text;
BEGIN
	PERFORM homing._peer_close('join');
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._peer_close('step ' || id);
		session := 'undo ' || id;
		BEGIN
			PERFORM homing._open_step(session, plan->'conninfos'->>(id::text));
			PERFORM homing._peer_query(session, 'SELECT homing._adopt_map($1)', without::text);
			PERFORM homing._peer_query(session, 'SELECT homing._drop_witness_server($1)', plan->>'name');
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be cleaned up after the failed call: %', homing._member_name(plan->'map', id), SQLERRM
				USING HINT = 'Call homing.create_witness again, or homing.remove_region.';
		END;
	END LOOP;
END
$$;

-- --- the functions -------------------------------------------------------------------------------------------------

CREATE FUNCTION homing.create_witness(name text, conninfo text, via text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	nonce CONSTANT text := homing._nonce();
	plan jsonb;
	active jsonb;
	deciding int;
	id int2;
BEGIN
	plan := homing._join_meet(homing._join_start(name, conninfo, via, nonce, true));
	IF EXISTS (SELECT FROM homing.local_region) THEN
		-- Only the second step was missing.
		plan := plan || jsonb_build_object('joining', plan->'map', 'id', (SELECT region_id FROM homing.local_region));
	ELSE
		PERFORM homing._check_witness(plan, nonce);
		FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1)', plan->>'map');
		END LOOP;
		plan := plan || jsonb_build_object('joining',
			homing._map_with_witness(plan->'map', (plan->>'id')::int2, name, 'joining'));
		BEGIN
			PERFORM homing._open_step('join', plan->>'conninfo');
			PERFORM homing._peer_query('join', 'BEGIN');
			PERFORM homing._peer_query('join', 'SELECT homing._become_witness($1)', plan::text);
			FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
				PERFORM homing._peer_query('step ' || id, 'SELECT homing._welcome_witness($1, $2, $3)',
					name, plan->>'conninfo', plan->>'joining');
			END LOOP;
			SELECT q[1]::int INTO deciding FROM homing._peer_query('join', 'SELECT pg_backend_pid()') q;
			PERFORM homing._peer_query('join', 'COMMIT');
		EXCEPTION WHEN query_canceled OR OTHERS THEN
			IF NOT homing._join_committed(deciding) THEN
				PERFORM homing._undo_witness(plan);
				RAISE;
			END IF;
		END;
	END IF;
	PERFORM homing._await_recounts(plan);
	active := homing._map_with_witness(plan->'joining', (plan->>'id')::int2, name, 'active')
		|| jsonb_build_object('events', jsonb_build_array(jsonb_build_object('at', clock_timestamp(),
			'epoch', (plan->'joining'->>'epoch')::bigint + 1, 'kind', 'create_witness', 'region', name, 'actor', session_user, 'reason', NULL)));
	PERFORM homing._peer_query('self', 'SELECT homing._adopt_map($1)', active::text);
	PERFORM homing._tell(homing._jsonb_regions(plan->'living'), active);
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._peer_close('step ' || id);
		PERFORM homing._peer_close('lock ' || id);
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing.create_witness(text, text, text) IS
	'makes this database a witness of the cluster that via leads to: it votes and keeps no data. conninfo says how the regions reach it, as superuser. Takes effect at once, whatever becomes of the calling transaction. Fails with F0000 when a setting does not fit, 08001 when a region cannot be reached, 42710 when the name is in use, 55000 while a loss is being decided; then nothing is left behind';

-- Called at a region; the witness itself need not be there.
CREATE FUNCTION homing._remove_witness(witness text, reason text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	purpose CONSTANT text := format('remove witness "%s"', witness);
	address CONSTANT text := homing._region_conninfo(witness);
	map jsonb := homing._map();
	regions CONSTANT int2[] := homing._living(map);
	leaving CONSTANT int2 := (SELECT w.region_id FROM homing.witness w WHERE w.name = witness AND w.status <> 'removed');
	id int2;
	maps jsonb;
	status text;
	message text;
	failure text;
BEGIN
	PERFORM homing._require_clean_transaction('remove a witness');
	BEGIN
		SELECT o.maps INTO maps FROM homing._open_survivors(map, regions, '{}', (SELECT l.cluster_id FROM homing.local_region l), purpose) o;
	EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, failure = PG_EXCEPTION_DETAIL;
		RAISE EXCEPTION '%', message
			USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection', DETAIL = failure,
				HINT = 'Every region takes part when the voters change. Try again when it can be reached, or declare it lost.';
	END;
	FOREACH id IN ARRAY regions LOOP
		IF homing._map_digest(maps->(id::text)) <> homing._map_digest(map) THEN
			RAISE EXCEPTION 'the cluster map of region "%" is not the one here', homing._member_name(map, id)
				USING ERRCODE = 'serialization_failure', HINT = 'Regions tell each other within a moment: try again.';
		END IF;
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_no_loss()');
	END LOOP;
	FOREACH status IN ARRAY ARRAY['leaving', 'removed'] LOOP
		map := homing._map_with_witness(map, leaving, witness, status);
		IF status = 'removed' THEN
			map := map || jsonb_build_object('events', jsonb_build_array(jsonb_build_object('at', clock_timestamp(),
				'epoch', map->'epoch', 'kind', 'remove_region', 'region', witness, 'actor', session_user,
				'reason', coalesce(reason, 'a witness'))));
		END IF;
		FOREACH id IN ARRAY regions LOOP
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1::jsonb)', map::text);
		END LOOP;
	END LOOP;
	FOREACH id IN ARRAY regions LOOP
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._drop_witness_server($1)', witness);
		PERFORM homing._peer_close('step ' || id);
	END LOOP;
	BEGIN
		PERFORM homing._open_step('leaving', address);
		PERFORM homing._peer_query('leaving', 'SELECT homing._leave_cluster(false)');
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'witness "%" is removed, but could not be told to forget the cluster: %', witness, SQLERRM
			USING HINT = 'Drop its database.';
	END;
	RETURN jsonb_build_object('region', witness, 'homes_moved', 0, 'epoch', map->'epoch',
		'survivors', (SELECT jsonb_agg(homing._member_name(map, r) ORDER BY r) FROM unnest(regions) r));
END
$$;
