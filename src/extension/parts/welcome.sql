-- What join_cluster (join.sql) does at the regions that are there already, and the maps it makes.

CREATE FUNCTION homing._map_without(map jsonb, id int2) RETURNS jsonb
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT map || jsonb_build_object('epoch', (map->>'epoch')::bigint + 1, 'members',
		(SELECT jsonb_agg(m ORDER BY (m->>'id')::int2) FROM jsonb_array_elements(map->'members') m WHERE (m->>'id')::int2 <> id))
$$;

CREATE FUNCTION homing._map_with(map jsonb, id int2, name text, status text) RETURNS jsonb
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT w || jsonb_build_object('members', w->'members' || jsonb_build_array(
		jsonb_build_object('id', id, 'name', name, 'heirs', '[]'::jsonb, 'spread', '[]'::jsonb, 'final_lsn', NULL,
			'joined_epoch', w->'epoch', 'lost_epoch', NULL)
		|| coalesce((SELECT m FROM jsonb_array_elements(map->'members') m WHERE (m->>'id')::int2 = id), '{}')
		|| jsonb_build_object('status', status)))
	FROM homing._map_without(map, id) AS w
$$;

CREATE FUNCTION homing._cluster_stream(cluster text, publisher int2, subscriber int2) RETURNS text
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('homing_%s_%s_%s', left(cluster, 8), publisher, subscriber)
$$;
COMMENT ON FUNCTION homing._cluster_stream(text, int2, int2) IS
	'_stream_name for a database that is no region yet';

-- --- at another region ------------------------------------------------------------------------------

CREATE FUNCTION homing._check_reaches(region text, conninfo text, nonce text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._peer_open('reach', conninfo);
	IF NOT homing._sees_nonce('reach', nonce) THEN
		RAISE EXCEPTION 'from region "%", the connection string leads to another database than the joining one', region
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('It leads to %s.', homing._place(conninfo)),
				HINT = 'Every region connects with the same connection string: it must not name a host that means another one elsewhere.';
	END IF;
	PERFORM homing._require_superuser('reach', 'the joining database');
	PERFORM homing._peer_close('reach');
END
$$;

-- Raises if a server of that name is no remainder of a lost region.
CREATE FUNCTION homing._check_server_name(region text, server text) RETURNS void
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = server)
		AND NOT EXISTS (SELECT FROM homing.member m WHERE m.name = server AND m.status IN ('lost', 'joining'))
		AND NOT EXISTS (SELECT FROM homing.witness w WHERE w.name = server AND w.status IN ('removed', 'joining')) THEN
		RAISE EXCEPTION 'server "%" already exists at region "%"', server, region USING ERRCODE = 'duplicate_object',
			HINT = 'join_cluster makes the servers of the regions: drop it, or choose another name.';
	END IF;
END
$$;

CREATE FUNCTION homing._make_slot(slot text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._drop_slot(slot);
	PERFORM pg_create_logical_replication_slot(slot, 'pg_homing');
END
$$;

CREATE FUNCTION homing._drop_slot(slot text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	user_pid int;
BEGIN
	-- A subscriber connects again and again; between two tries the slot is free.
	FOR attempt IN 1 .. 250 LOOP
		SELECT s.active_pid INTO user_pid FROM pg_replication_slots s WHERE s.slot_name = slot;
		IF NOT FOUND THEN
			RETURN;
		END IF;
		BEGIN
			IF user_pid IS NOT NULL THEN
				PERFORM pg_terminate_backend(user_pid, 1000);
			END IF;
			PERFORM pg_drop_replication_slot(slot);
			RETURN;
		EXCEPTION WHEN object_in_use OR undefined_object THEN
			PERFORM pg_sleep(0.02);
		END;
	END LOOP;
	RAISE EXCEPTION 'replication slot "%" is in use', slot USING ERRCODE = 'object_in_use';
END
$$;

CREATE FUNCTION homing._drop_subscription(stream text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
			   WHERE s.subname = stream AND d.datname = current_database()) THEN
		EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', stream);
		-- The publisher is not asked: its slot is its own.
		EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', stream);
		EXECUTE format('DROP SUBSCRIPTION %I', stream);
	END IF;
END
$$;

-- A subscription that reads the slot of its name from where it stands. Every homed table is in it.
CREATE FUNCTION homing._subscribe(stream text, conninfo text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error
AS $$
DECLARE
	relation regclass;
BEGIN
	-- Not connected: the publisher commits its side together with this. Core then warns that there are no
	-- tables; they follow.
	EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION homing WITH (connect = false, slot_name = %L, '
		'synchronous_commit = local, streaming = off, two_phase = false, disable_on_error = false)', stream, conninfo, stream);
	FOR relation IN
		SELECT r FROM unnest(homing._replicated_tables()) r
		UNION ALL
		SELECT t.relid FROM homing.homed_table t
	LOOP
		PERFORM homing._add_stream_table(stream, relation);
	END LOOP;
	EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', stream);
END
$$;

-- Step 5 at another region.
CREATE FUNCTION homing._welcome(id int2, name text, conninfo text, map jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT homing._adopt_map(map) THEN
		RAISE EXCEPTION 'the cluster map at region "%" changed meanwhile',
			(SELECT m.name FROM homing.local_region JOIN homing.member m USING (region_id))
			USING ERRCODE = 'serialization_failure', HINT = 'Call homing.join_cluster again.';
	END IF;
	PERFORM homing._put_server(name, conninfo, (SELECT admin FROM homing.local_region));
	IF homing._is_witness() THEN
		RETURN;
	END IF;
	PERFORM homing._subscribe(homing._stream_name(id, (SELECT region_id FROM homing.local_region)), conninfo);
	-- Made before its stream (_join_slots), they keep all of it.
	UPDATE homing.tail_slot t SET positions = t.positions || jsonb_build_object(_welcome.id, '0/0');
	INSERT INTO homing.milestone (region_id, epoch)
	SELECT l.region_id, c.epoch FROM homing.local_region l CROSS JOIN homing.cluster_map c;
END
$$;

-- Undoes _welcome; what was not done is not missed.
CREATE FUNCTION homing._dismiss(id int2, name text, map jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._drop_subscription(homing._stream_name(id, (SELECT region_id FROM homing.local_region)));
	IF EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = name)
		AND EXISTS (SELECT FROM homing.member m WHERE m.region_id = id)
		AND NOT EXISTS (SELECT FROM homing.member m WHERE m.name = _dismiss.name AND m.region_id <> id) THEN
		EXECUTE format('DROP SERVER %I CASCADE', name);
	END IF;
	PERFORM homing._adopt_map(map);
END
$$;

-- Slots here whose subscriber is no member: of a join that goes on, or was cut off.
CREATE FUNCTION homing._stray_slots() RETURNS SETOF name
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.slot_name FROM pg_replication_slots s CROSS JOIN homing.local_region l
	WHERE s.slot_name ~ format('^homing_%s_%s_[0-9]+$', left(l.cluster_id::text, 8), l.region_id)
		AND NOT EXISTS (SELECT FROM homing.member m WHERE s.slot_name = homing._stream_name(l.region_id, m.region_id))
$$;

CREATE FUNCTION homing._drop_stray_slots() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._drop_slot(s) FROM homing._stray_slots() s;
END
$$;
