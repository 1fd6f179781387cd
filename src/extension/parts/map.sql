-- The cluster map as regions exchange it, and heirs.
--
-- A map travels as jsonb: {"cluster", "epoch", "members": [{"id", "name", "status", "heirs", "spread",
-- "pending", "final_lsn", "joined_epoch", "lost_epoch"}], "witnesses": [{"id", "name", "status"}], "events": [...]};
-- "witnesses" only if there are any. A region takes a map only if its epoch
-- is higher than its own; so maps may arrive late, twice, and from anybody.

CREATE FUNCTION homing._map() RETURNS jsonb
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT jsonb_build_object(
			'cluster', l.cluster_id,
			'epoch', c.epoch,
			'members', (SELECT jsonb_agg(jsonb_build_object(
							'id', m.region_id, 'name', m.name, 'status', m.status, 'heirs', to_jsonb(m.heirs),
							'spread', to_jsonb(m.spread), 'pending', m.pending, 'final_lsn', m.final_lsn,
							'joined_epoch', m.joined_epoch, 'lost_epoch', m.lost_epoch) ORDER BY m.region_id)
						FROM homing.member m))
			|| coalesce((SELECT jsonb_build_object('witnesses', jsonb_agg(jsonb_build_object(
							'id', w.region_id, 'name', w.name, 'status', w.status) ORDER BY w.region_id))
						FROM homing.witness w HAVING count(*) > 0), '{}')
		FROM homing.local_region l CROSS JOIN homing.cluster_map c);
END
$$;
COMMENT ON FUNCTION homing._map() IS
	'the cluster map this region knows; NULL outside a cluster';

-- A text of our own making, so that the number depends on nothing but the map.
CREATE FUNCTION homing._map_digest(map jsonb DEFAULT homing._map()) RETURNS bigint
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT ('x' || substr(encode(sha256(convert_to(concat_ws('|', map->>'cluster', map->>'epoch',
			(SELECT string_agg(concat_ws(':', m->>'id', m->>'name', m->>'status', m->>'heirs', m->>'spread',
										 coalesce((m->>'final_lsn')::pg_lsn::text, '-'),
										 CASE WHEN (m->>'pending')::boolean THEN 'pending' END),
							   ';' ORDER BY (m->>'id')::int)
			 FROM jsonb_array_elements(map->'members') m),
			(SELECT string_agg(concat_ws(':', w->>'id', w->>'name', w->>'status'), ';' ORDER BY (w->>'id')::int)
			 FROM jsonb_array_elements(map->'witnesses') w)), 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint
		WHERE map IS NOT NULL);
END
$$;
COMMENT ON FUNCTION homing._map_digest(jsonb) IS
	'a number that is equal at two regions exactly when their maps are equal';

CREATE FUNCTION homing._stream_name(publisher int2, subscriber int2) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('homing_%s_%s_%s', left(cluster_id::text, 8), publisher, subscriber)
	FROM homing.local_region
$$;
COMMENT ON FUNCTION homing._stream_name(int2, int2) IS
	'name of the replication slot at the publisher and of the subscription at the subscriber';

CREATE FUNCTION homing._jsonb_regions(regions jsonb) RETURNS int2[]
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(r.id::int2 ORDER BY r.place), '{}')
	FROM jsonb_array_elements_text(regions) WITH ORDINALITY AS r(id, place)
$$;

CREATE FUNCTION homing._is_witness() RETURNS boolean
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT EXISTS (SELECT FROM homing.local_region JOIN homing.witness USING (region_id)));
END
$$;
COMMENT ON FUNCTION homing._is_witness() IS 'whether this database votes only';

CREATE FUNCTION homing._here_name() RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(m.name, w.name) FROM homing.local_region l
	LEFT JOIN homing.member m USING (region_id) LEFT JOIN homing.witness w USING (region_id)
$$;
COMMENT ON FUNCTION homing._here_name() IS 'name of this region or witness';

CREATE FUNCTION homing._refuse_witness() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF homing._is_witness() THEN
		RAISE EXCEPTION 'this database is witness "%": it votes only', homing._here_name()
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call the function at a region.';
	END IF;
END
$$;

-- The region stops serving. Writers that are past their check finish; the next ones are refused.
CREATE FUNCTION homing._fence(reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here record;
BEGIN
	UPDATE homing.local_region l SET fenced = reason WHERE l.fenced IS NULL;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT homing._here_name() AS name, c.epoch INTO here FROM homing.cluster_map c;
	INSERT INTO homing.event (at, epoch, kind, region, actor, reason)
	VALUES (clock_timestamp(), here.epoch, 'fence', here.name, session_user, reason);
END
$$;

-- Takes a newer map; returns whether it did. Touches tables only, never waits for a peer or a worker:
-- from its commit on, the heirs serve. What a lost region left here is removed by _clean_up_lost.
--
-- By then nothing applies from a region that the map calls lost: declare_lost has disabled those
-- subscriptions at every survivor before the map with the loss existed (PROTOCOL 2c). They are disabled
-- here once more so that this does not rest on the order of messages.
CREATE FUNCTION homing._adopt_map(map jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here homing.local_region;
	mine bigint;
	theirs CONSTANT bigint := (map->>'epoch')::bigint;
	region record;
	stream text;
	lacking int2[];
BEGIN
	SELECT * INTO here FROM homing.local_region;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of a cluster' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	IF (map->>'cluster')::uuid IS DISTINCT FROM here.cluster_id OR theirs IS NULL THEN
		RAISE EXCEPTION 'the map is not of the cluster of this region' USING ERRCODE = 'invalid_parameter_value';
	END IF;

	-- The row lock makes adoptions take turns.
	SELECT epoch INTO STRICT mine FROM homing.cluster_map FOR UPDATE;
	IF theirs = mine AND homing._map_digest(map) <> homing._map_digest() THEN
		RAISE EXCEPTION 'two different cluster maps of epoch %', mine
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	IF theirs <= mine THEN
		RETURN false;
	END IF;
	PERFORM homing._check_not_voted(map);

	FOR region IN
		SELECT m.id, m.status
		FROM jsonb_to_recordset(map->'members') AS m(id int2, status text, pending boolean)
		WHERE (m.status = 'lost' OR m.pending)
			AND NOT EXISTS (SELECT FROM homing.member k WHERE k.region_id = m.id AND (k.status = 'lost' OR k.pending))
	LOOP
		FOR stream IN
			SELECT s.subname FROM pg_subscription s
			WHERE s.subdbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
				AND s.subenabled
				-- A lost region has no use for its subscriptions: their slots at the survivors go away.
				AND CASE WHEN region.id = here.region_id
					THEN s.subname ~ format('^homing_%s_[0-9]+_%s$', left(here.cluster_id::text, 8), here.region_id)
					ELSE s.subname = homing._stream_name(region.id, here.region_id) END
		LOOP
			EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', stream);
		END LOOP;
	END LOOP;

	INSERT INTO homing.member AS k
		(region_id, name, status, heirs, spread, pending, final_lsn, joined_epoch, lost_epoch)
	SELECT m.id, m.name, m.status, homing._jsonb_regions(m.heirs), homing._jsonb_regions(m.spread),
		coalesce(m.pending, false), m.final_lsn, m.joined_epoch, m.lost_epoch
	FROM jsonb_to_recordset(map->'members') AS m(id int2, name text, status text, heirs jsonb, spread jsonb,
		pending boolean, final_lsn pg_lsn, joined_epoch bigint, lost_epoch bigint)
	ON CONFLICT (region_id) DO UPDATE
	SET name = excluded.name, status = excluded.status, heirs = excluded.heirs, spread = excluded.spread,
		pending = excluded.pending, final_lsn = excluded.final_lsn, joined_epoch = excluded.joined_epoch, lost_epoch = excluded.lost_epoch
	WHERE (k.name, k.status, k.heirs, k.spread, k.pending, k.final_lsn, k.joined_epoch, k.lost_epoch)
		IS DISTINCT FROM (excluded.name, excluded.status, excluded.heirs, excluded.spread, excluded.pending, excluded.final_lsn,
						  excluded.joined_epoch, excluded.lost_epoch);
	-- A region that a failed join left in an older map.
	DELETE FROM homing.member k
	WHERE k.region_id <> here.region_id
		AND NOT EXISTS (SELECT FROM jsonb_array_elements(map->'members') m WHERE (m->>'id')::int2 = k.region_id);
	INSERT INTO homing.witness AS k (region_id, name, status)
	SELECT w.id, w.name, w.status FROM jsonb_to_recordset(map->'witnesses') AS w(id int2, name text, status text)
	ON CONFLICT (region_id) DO UPDATE SET name = excluded.name, status = excluded.status
	WHERE (k.name, k.status) IS DISTINCT FROM (excluded.name, excluded.status);
	-- One that could not be made.
	DELETE FROM homing.witness k
	WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(map->'witnesses') w WHERE (w->>'id')::int2 = k.region_id);
	UPDATE homing.cluster_map SET epoch = theirs;

	INSERT INTO homing.event (at, epoch, kind, region, actor, reason)
	SELECT e.at, e.epoch, e.kind, e.region, e.actor, e.reason
	FROM jsonb_to_recordset(coalesce(map->'events', '[]')) AS e(at timestamptz, epoch bigint, kind text,
		region text, actor text, reason text)
	WHERE e.epoch > mine
	ORDER BY e.epoch, e.at;

	IF EXISTS (SELECT FROM jsonb_array_elements(map->'witnesses') w
			   WHERE (w->>'id')::int2 = here.region_id AND w->>'status' <> 'removed') THEN
		RETURN true;
	END IF;
	IF NOT EXISTS (SELECT FROM homing.member k WHERE k.region_id = here.region_id AND k.status <> 'lost') THEN
		PERFORM homing._fence(format('declared lost at epoch %s', theirs));
	ELSIF EXISTS (SELECT FROM homing.member k WHERE k.region_id = here.region_id AND k.pending) THEN
		PERFORM homing._fence(format('a majority of the regions has voted at epoch %s that this region is lost', theirs));
	ELSIF here.copied IS NULL THEN
		-- Who survives has stopped applying before a final position was known: its own one is final too.
		lacking := homing._lacking();
		IF lacking <> here.missing THEN
			UPDATE homing.local_region SET missing = lacking;
			PERFORM homing._record_event('lacks_end', m.name, session_user, 'nobody has kept its last changes for this region, which serves when it has copied them')
			FROM homing.member m WHERE m.region_id = ANY (lacking) AND m.region_id <> ALL (here.missing);
		END IF;
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION homing._adopt_map(jsonb) IS
	'takes a cluster map of a higher epoch; fences this region when the map says it is lost';

-- What a region answers a peer that shows its epoch and digest. Read only: who is behind asks again
-- by itself. The map comes along when the caller's is older. `lost` is about the caller, `applied` is how far
-- this region has applied each other one.
CREATE FUNCTION homing._exchange(cluster uuid, caller int2, caller_epoch bigint,
	OUT region_id int2, OUT epoch bigint, OUT digest bigint, OUT fenced boolean, OUT lost boolean, OUT applied jsonb,
	OUT map jsonb)
RETURNS SETOF record
VOLATILE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT l.region_id, c.epoch, homing._map_digest(),
		l.fenced IS NOT NULL OR l.missing <> '{}' OR NOT homing._is_witness() AND coalesce(homing._lease_left() <= interval '0', false),
		coalesce((SELECT m.status = 'lost' FROM homing.member m WHERE m.region_id = caller),
			(SELECT w.status = 'removed' FROM homing.witness w WHERE w.region_id = caller), true),
		homing._applied_positions(),
		CASE WHEN c.epoch > caller_epoch THEN homing._map() || jsonb_build_object('events',
			(SELECT jsonb_agg(jsonb_build_object('at', e.at, 'epoch', e.epoch, 'kind', e.kind,
				'region', e.region, 'actor', e.actor, 'reason', e.reason) ORDER BY e.event_id)
			 FROM homing.event e WHERE e.epoch > caller_epoch AND e.kind IN ('declare_lost', 'join_cluster', 'set_heirs', 'create_witness', 'remove_region')))
		END
	FROM homing.local_region l CROSS JOIN homing.cluster_map c
	WHERE l.cluster_id = cluster
$$;
COMMENT ON FUNCTION homing._exchange(uuid, int2, bigint) IS
	'the epoch, digest and, if newer, map of this region, for the worker of a peer; no row in another cluster';

-- The region's newest incarnation of that name. Witnesses are not regions here.
CREATE FUNCTION homing._member_id(map jsonb, region text) RETURNS int2
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT max((m->>'id')::int2) FROM jsonb_array_elements(map->'members') m WHERE m->>'name' = region
$$;

CREATE FUNCTION homing._member_name(map jsonb, id int2) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m->>'name' FROM jsonb_array_elements(map->'members' || coalesce(map->'witnesses', '[]')) m WHERE (m->>'id')::int2 = id
$$;

-- The members of a map that are not lost, ascending.
CREATE FUNCTION homing._living(map jsonb) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg((m->>'id')::int2 ORDER BY (m->>'id')::int2), '{}')
	FROM jsonb_array_elements(map->'members') m WHERE m->>'status' <> 'lost'
$$;

-- Those that take part in ownership: of the given ones, or of all.
CREATE FUNCTION homing._active(map jsonb, of int2[] DEFAULT NULL) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg((m->>'id')::int2 ORDER BY (m->>'id')::int2), '{}')
	FROM jsonb_array_elements(map->'members') m
	WHERE m->>'status' = 'active' AND (of IS NULL OR (m->>'id')::int2 = ANY (of))
$$;

-- The witnesses of a map that are not removed, ascending.
CREATE FUNCTION homing._witnesses(map jsonb) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg((w->>'id')::int2 ORDER BY (w->>'id')::int2), '{}')
	FROM jsonb_array_elements(map->'witnesses') w WHERE w->>'status' <> 'removed'
$$;

-- The region's SERVER and the cluster administrator's USER MAPPING as a connection string.
CREATE FUNCTION homing._region_conninfo(region text) RETURNS text
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	administrator CONSTANT name := (SELECT admin FROM homing.local_region);
	server oid;
	options text[];
	found_user text[];
BEGIN
	SELECT s.oid, s.srvoptions INTO server, options FROM pg_foreign_server s WHERE s.srvname = region;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'server "%" does not exist', region
			USING ERRCODE = 'undefined_object', DETAIL = 'Every region of the cluster is reached through a server of its name.';
	END IF;
	SELECT u.umoptions INTO found_user FROM pg_user_mapping u LEFT JOIN pg_roles r ON r.oid = u.umuser
	WHERE u.umserver = server AND (u.umuser = 0 OR r.rolname = administrator)
	ORDER BY u.umuser = 0 LIMIT 1;
	options := coalesce(options, '{}') || coalesce(found_user, '{}');
	RETURN (SELECT string_agg(format('%s=''%s''', o.option_name,
				replace(replace(o.option_value, E'\\', E'\\\\'), '''', E'\\''')), ' ')
			FROM (SELECT * FROM pg_options_to_table(options)
				  UNION ALL
				  SELECT 'user', administrator
				  WHERE NOT EXISTS (SELECT FROM pg_options_to_table(options) WHERE option_name = 'user')) o
			WHERE o.option_name <> 'password_required');
END
$$;

-- Sets who takes over a region's homes, at all regions in one two-step commit.
CREATE FUNCTION homing.set_heirs(region text, heirs text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	map jsonb := homing._map();
	of_region int2;
	ids int2[] := '{}';
	heir text;
	id int2;
	name text;
	session text;
	heard record;
BEGIN
	of_region := homing._member_id(map, region);
	IF of_region IS NULL THEN
		RAISE EXCEPTION 'region "%" does not exist', region USING ERRCODE = 'invalid_parameter_value',
			HINT = 'homing.regions lists the regions.';
	END IF;
	IF of_region <> ALL (homing._living(map)) THEN
		RAISE EXCEPTION 'region "%" is lost: its heirs have taken over', region
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	FOREACH heir IN ARRAY coalesce(heirs, '{}') LOOP
		id := homing._member_id(map, heir);
		IF id IS NULL THEN
			RAISE EXCEPTION 'region "%" does not exist', heir USING ERRCODE = 'invalid_parameter_value',
				HINT = 'homing.regions lists the regions.';
		END IF;
		IF id = of_region THEN
			RAISE EXCEPTION 'region "%" cannot be its own heir', heir USING ERRCODE = 'invalid_parameter_value';
		END IF;
		IF id <> ALL (homing._living(map)) THEN
			RAISE EXCEPTION 'region "%" is lost and cannot be an heir', heir USING ERRCODE = 'invalid_parameter_value';
		END IF;
		-- It would take the homes from who has taken over meanwhile, at the moment it becomes active.
		IF id <> ALL (homing._active(map)) THEN
			RAISE EXCEPTION 'region "%" is still joining and cannot be an heir yet', heir
				USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		IF id = ANY (ids) THEN
			RAISE EXCEPTION 'region "%" is named twice', heir USING ERRCODE = 'invalid_parameter_value';
		END IF;
		ids := ids || id;
	END LOOP;

	-- Locks in the order of region ids, ours in its place.
	FOREACH id IN ARRAY homing._living(map) LOOP
		session := 'region ' || lpad(id::text, 5, '0');
		IF id = here.region_id THEN
			PERFORM homing._lock_change();
			CONTINUE;
		END IF;
		name := homing._member_name(map, id);
		PERFORM homing._peer_open(session, homing._region_conninfo(name));
		PERFORM homing._peer_query(session, 'SET lock_timeout = ''10s''');
		PERFORM homing._peer_follow(session);
		PERFORM homing._peer_query(session, 'SELECT homing._lock_change()');
	END LOOP;

	PERFORM homing._check_no_loss();
	map := homing._map();
	FOREACH id IN ARRAY homing._living(map) LOOP
		CONTINUE WHEN id = here.region_id;
		session := 'region ' || lpad(id::text, 5, '0');
		SELECT q[1]::bigint AS digest INTO heard
		FROM homing._peer_query(session, 'SELECT homing._map_digest()') q;
		IF heard.digest IS DISTINCT FROM homing._map_digest(map) THEN
			RAISE EXCEPTION 'the cluster map at region "%" is not the one here', homing._member_name(map, id)
				USING ERRCODE = 'serialization_failure', HINT = 'Regions tell each other within a moment: try again.';
		END IF;
	END LOOP;

	map := jsonb_set(map, '{epoch}', to_jsonb((map->>'epoch')::bigint + 1));
	map := jsonb_set(map, '{members}', (
		SELECT jsonb_agg(CASE WHEN (m->>'id')::int2 = of_region THEN m || jsonb_build_object('heirs', to_jsonb(ids)) ELSE m END
			ORDER BY (m->>'id')::int2)
		FROM jsonb_array_elements(map->'members') m));
	map := map || jsonb_build_object('events', jsonb_build_array(jsonb_build_object(
		'at', clock_timestamp(), 'epoch', map->'epoch', 'kind', 'set_heirs', 'region', region, 'actor', session_user,
		'reason', 'heirs: ' || coalesce(nullif(array_to_string(heirs, ', '), ''), 'all survivors, evenly'))));
	FOREACH id IN ARRAY homing._living(map) LOOP
		CONTINUE WHEN id = here.region_id;
		PERFORM homing._peer_query('region ' || lpad(id::text, 5, '0'), 'SELECT homing._adopt_map($1::jsonb)', map::text);
	END LOOP;
	PERFORM homing._adopt_map(map);
END
$$;
COMMENT ON FUNCTION homing.set_heirs(text, text[]) IS
	'sets who takes over the homes of a region, in order of preference; an empty array spreads them evenly over the survivors';

-- --- the worker --------------------------------------------------------------------------------------

CREATE FUNCTION homing._start_worker() RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_start_worker';
COMMENT ON FUNCTION homing._start_worker() IS
	'starts the worker of this database when the transaction commits';

CREATE FUNCTION homing._peer_seen(OUT region_id int2, OUT last_seen timestamptz, OUT epoch bigint, OUT fenced boolean)
RETURNS SETOF record
STRICT VOLATILE ROWS 10 LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_seen';
COMMENT ON FUNCTION homing._peer_seen() IS
	'what the worker last heard from each peer; kept in shared memory, so empty after a restart';
