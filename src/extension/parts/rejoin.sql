-- rejoin, at the region that was lost: told in orphans.sql.

-- A session "via" with a region that goes on and calls us lost. Returns its map.
CREATE FUNCTION homing._find_survivor() RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	region record;
	map jsonb;
	failures text;
BEGIN
	FOR region IN
		SELECT m.name FROM homing.member m WHERE m.region_id <> here.region_id
		GROUP BY m.name ORDER BY bool_or(m.status = 'active') DESC, m.name
	LOOP
		BEGIN
			PERFORM homing._open_step('via', homing._region_conninfo(region.name));
			SELECT q[1]::jsonb INTO map FROM homing._peer_query('via',
				'SELECT homing._map() FROM homing.local_region WHERE cluster_id = $1 AND fenced IS NULL AND missing = ''{}''', here.cluster_id::text) q;
			IF map IS NOT NULL AND here.region_id <> ALL (homing._living(map)) THEN
				RETURN map;
			END IF;
			failures := concat_ws('; ', failures, format('"%s" is fenced itself or does not call this region lost', region.name));
		EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection OR connection_failure OR undefined_object THEN
			failures := concat_ws('; ', failures, format('"%s": %s', region.name, SQLERRM));
		END;
		PERFORM homing._peer_close('via');
	END LOOP;
	RAISE EXCEPTION 'cannot rejoin: no region was found that goes on without this one'
		USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Asked: %s.', failures),
			HINT = 'Only a region that was declared lost rejoins.';
END
$$;

-- A slot of ours that has kept all beyond the position. A survivor's may be further than that: it confirms also what
-- concerns nobody, and whatever else it has confirmed is not beyond the position.
CREATE FUNCTION homing._slot_from(beyond pg_lsn) RETURNS name
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.slot_name FROM homing.local_region l JOIN homing.member m ON m.region_id <> l.region_id
	JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
	WHERE (s.confirmed_flush_lsn <= beyond OR m.status <> 'lost')
		AND s.wal_status IN ('reserved', 'extended', 'unreserved') AND NOT s.active
	ORDER BY s.confirmed_flush_lsn <= beyond DESC, s.confirmed_flush_lsn DESC LIMIT 1
$$;

-- The changes in order. `position` as text: it becomes a setting.
CREATE FUNCTION homing._orphans_beyond(beyond pg_lsn, slot name) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET homing.orphans_beyond = ''
AS $$
BEGIN
	PERFORM set_config('homing.orphans_beyond', beyond::text, true);
	RETURN QUERY
		SELECT p.data::jsonb FROM pg_logical_slot_peek_changes(slot, NULL, NULL) WITH ORDINALITY AS p(lsn, xid, data, n)
		WHERE EXISTS (SELECT FROM homing.homed_table t
					  WHERE t.relid = to_regclass(p.data::jsonb->>'table')
						OR t.relid = (SELECT pg_partition_root(c.oid) FROM pg_class c WHERE c.oid = to_regclass(p.data::jsonb->>'table') AND c.relispartition))
		ORDER BY p.n;
END
$$;

-- Makes this database one that is no region. In one transaction, which is this statement. Its tables keep their rows: they
-- are ordinary ones afterwards, or copies for the day it joins again.
CREATE FUNCTION homing._leave_cluster(to_return boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on SET lock_timeout = '30s'
AS $$
DECLARE
	homed CONSTANT regclass[] := ARRAY(SELECT t.relid::regclass FROM homing.homed_table t ORDER BY t.table_id);
	relation regclass;
	stream text;
BEGIN
	-- As who takes a newer map does: the worker may be about to.
	PERFORM FROM homing.cluster_map FOR UPDATE;
	FOR stream IN SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
		CROSS JOIN homing.local_region l WHERE s.subname ^@ format('homing_%s_', left(l.cluster_id::text, 8)) LOOP
		PERFORM homing._drop_subscription(stream);
	END LOOP;
	FOREACH relation IN ARRAY homed LOOP
		PERFORM homing._unregister_table(relation);
		IF to_return THEN
			PERFORM homing._keep_copy(relation, (SELECT cluster_id FROM homing.local_region));
		END IF;
	END LOOP;
	DROP PUBLICATION IF EXISTS homing;
	-- Whoever called us reads some of them: no TRUNCATE.
	FOREACH relation IN ARRAY homing._replicated_tables() || ARRAY['homing.local_region', 'homing.cluster_map', 'homing.keyspace',
		'homing.homed_table', 'homing.pending_key', 'homing.awaited_part', 'homing.loss_mark', 'homing.tail_slot', 'homing.passed_on']::regclass[] LOOP
		EXECUTE format('DELETE FROM %s', relation);
	END LOOP;
	-- Their servers stay, with the user mappings of all roles: join_cluster takes them over.
	UPDATE homing.member SET status = 'lost', spread = '{}';
	UPDATE homing.witness SET status = 'removed';
END
$$;

-- At the region that is back: takes the homes back that its former incarnation was given last.
CREATE FUNCTION homing._fail_back(was int2) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me CONSTANT text := (SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id));
	move record;
	moved int := 0;
BEGIN
	FOR move IN
		SELECT s.keyspace_id, o.name AS owner, array_agg(s.home ORDER BY s.home) AS homes
		FROM homing._home_states() s JOIN homing.keyspace k USING (keyspace_id) JOIN homing.member o ON o.region_id = s.owner
		WHERE o.name <> me AND s.accepted
			AND CASE s.version WHEN 0 THEN k.recorded_owners[s.home + 1] ELSE s.to_region END = was
		GROUP BY 1, 2 ORDER BY 1, 2
	LOOP
		moved := moved + homing._move_homes(move.keyspace_id, move.owner, me, move.homes);
	END LOOP;
	RETURN moved;
END
$$;

CREATE FUNCTION homing.rejoin(failback boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here homing.local_region;
	me record;
	via text;
	survivor text;
	self text;
	map jsonb;
	slot name;
	batch jsonb;
	recorded bigint := 0;
	back int := 0;
BEGIN
	SELECT * INTO here FROM homing.local_region;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of a cluster' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'If an earlier homing.rejoin was cut off, homing.join_cluster completes it.';
	END IF;
	IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
		RAISE EXCEPTION 'must be superuser to rejoin a cluster' USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF here.fenced IS NULL THEN
		RAISE EXCEPTION 'this region serves: it has not heard that it was declared lost' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Only a region that was declared lost rejoins. It hears of that from any other region, within homing.probe_interval.';
	END IF;
	PERFORM homing._require_clean_transaction('rejoin');
	map := homing._find_survivor();
	SELECT m->>'name' AS name, (m->>'final_lsn')::pg_lsn AS final_position INTO STRICT me
	FROM jsonb_array_elements(map->'members') m WHERE (m->>'id')::int2 = here.region_id;
	SELECT homing._member_name(map, q[1]::int2) INTO survivor FROM homing._peer_query('via', 'SELECT region_id FROM homing.local_region') q;
	via := homing._region_conninfo(survivor);
	self := homing._region_conninfo(me.name);
	IF EXISTS (SELECT FROM homing._parts) THEN
		RAISE EXCEPTION 'cannot rejoin: parts of transactions over several regions are prepared here' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'homing.in_doubt lists them. They end when their coordinator answers. homing.resolve(gid, ''commit'') makes such a part an orphaned write, ''abort'' forgets it.';
	END IF;

	-- 1. With a commit of our own, all before it is flushed.
	PERFORM homing._open_step('self', self);
	PERFORM homing._peer_query('self', 'SELECT homing._let_writers_end(relid) FROM homing.homed_table');
	PERFORM homing._peer_query('self', 'SELECT pg_logical_emit_message(true, ''pg_homing'', ''rejoin'')');

	-- 2. and 3. Nobody reads our streams any more; a walsender that has not noticed holds its slot.
	PERFORM pg_terminate_backend(s.active_pid, 10000) FROM homing.member m
	JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(here.region_id, m.region_id) WHERE s.active_pid IS NOT NULL;
	slot := homing._slot_from(me.final_position);
	IF slot IS NULL THEN
		RAISE EXCEPTION 'cannot rejoin: the WAL with the writes that only this region has is gone' USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('It is needed from %s on.', me.final_position),
			HINT = 'Compare the tables with another region and write what is missing there. Then drop this database and join with a new one.';
	END IF;
	FOR batch IN
		SELECT jsonb_agg(n.change ORDER BY n.number)
		FROM (SELECT c AS change, row_number() OVER () AS number FROM homing._orphans_beyond(me.final_position, slot) c) n
		GROUP BY (n.number - 1) / 500 ORDER BY min(n.number)
	LOOP
		PERFORM homing._peer_query('via', 'SELECT homing._record_orphans($1, $2, $3)', here.region_id::text, recorded::text, batch::text);
		recorded := recorded + jsonb_array_length(batch);
		PERFORM homing._debug_point('rejoin-recording');
	END LOOP;
	PERFORM homing._debug_point('rejoin-recorded');
	PERFORM homing._peer_query('via', 'SELECT homing._record_event($1, $2, $3, $4)', 'rejoin', me.name, session_user,
		format('%s orphaned writes', recorded));
	PERFORM homing._peer_close('via');

	-- 4. and 5.
	PERFORM homing._peer_query('self', 'SELECT homing._leave_cluster(true)');
	PERFORM homing._peer_close('self');
	PERFORM homing._debug_point('rejoin-left');
	PERFORM homing.join_cluster(me.name, self, via);
	PERFORM homing._debug_point('rejoin-joined');
	IF failback THEN
		PERFORM homing._open_step('self', self);
		SELECT q[1]::int INTO back FROM homing._peer_query('self', 'SELECT homing._fail_back($1::int2)', here.region_id::text) q;
		PERFORM homing._peer_close('self');
	END IF;
	RETURN jsonb_build_object('region', me.name, 'via', survivor, 'orphaned_writes', recorded, 'homes_back', back);
END
$$;
COMMENT ON FUNCTION homing.rejoin(boolean) IS
	'at a region that was declared lost: records its writes that no other region has in homing.orphaned_writes, takes what differs of the rows of the other regions, and makes it a region of the cluster again, without homes; with failback, it takes back those that it had. Takes effect at once. 55000 when it was not declared lost, or when its WAL is gone; 08001 when a region cannot be reached';

-- --- a region that leaves for good -------------------------------------------------------------------

-- Session "leaving": from its commit on the region serves nothing, and all that it wrote has arrived.
CREATE FUNCTION homing._retire(timeout interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + timeout;
BEGIN
	PERFORM homing._let_writers_end(t.relid) FROM homing.homed_table t;
	WHILE EXISTS (SELECT FROM homing._parts) LOOP
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'cannot remove region "%": parts of transactions over several regions are in doubt there',
				(SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id))
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'homing.in_doubt lists them.';
		END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
	PERFORM homing._await_replication(timeout);
END
$$;

-- Removes a region that is alive.
--
--  1. Its homes go to the other active regions, in turn, while they are written.
--  2. It is fenced; when its writers have ended and every other region has all that it wrote, there is nothing
--     to lose.
--  3. The map without it, as for a region that is lost. Homes that it still had, such as of a table homed
--     meanwhile, pass to its heirs.
--  4. It forgets the cluster.
--
-- A failure before 3 leaves it a region, perhaps with fewer homes. After 3, it is like a region that was lost.
CREATE FUNCTION homing.remove_region(region text, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	leaving int2;
	address text;
	targets text[];
	move record;
	moved int := 0;
	result jsonb;
BEGIN
	IF EXISTS (SELECT FROM homing.witness w WHERE w.name = region AND w.status <> 'removed') THEN
		RETURN homing._remove_witness(region, reason);
	END IF;
	leaving := homing._require_active(region);
	address := homing._region_conninfo(region);
	IF leaving = here.region_id THEN
		RAISE EXCEPTION 'a region cannot remove itself' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Call homing.remove_region at a region that stays.';
	END IF;
	PERFORM homing._require_clean_transaction('remove a region');
	targets := ARRAY(SELECT m.name FROM homing.member m WHERE m.status = 'active' AND m.region_id <> leaving ORDER BY m.region_id);
	FOR move IN
		SELECT s.keyspace_id, targets[1 + s.place % cardinality(targets)] AS target, array_agg(s.home ORDER BY s.home) AS homes
		FROM (SELECT h.keyspace_id, h.home, row_number() OVER (ORDER BY h.keyspace_id, h.home) AS place
			  FROM homing._home_states() h WHERE h.owner = leaving) s
		GROUP BY 1, 2 ORDER BY 1, 2
	LOOP
		moved := moved + homing._move_homes(move.keyspace_id, region, move.target, move.homes);
	END LOOP;

	PERFORM homing._open_step('leaving', address);
	BEGIN
		PERFORM homing._peer_query('leaving', 'SELECT homing._fence($1)', 'it is being removed from the cluster');
		PERFORM homing._peer_query('leaving', 'SELECT homing._retire($1)', current_setting('homing.handover_timeout'));
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		BEGIN
			PERFORM homing._open_step('undo', address);
			PERFORM homing._peer_query('undo', 'UPDATE homing.local_region SET fenced = NULL WHERE fenced = $1 RETURNING 1',
				'it is being removed from the cluster');
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" stays fenced: %', region, SQLERRM USING HINT = 'Call homing.remove_region again.';
		END;
		RAISE;
	END;
	result := homing.declare_lost(ARRAY[region], true, coalesce(reason, 'removed'));
	BEGIN
		PERFORM homing._peer_query('leaving', 'SELECT homing._leave_cluster(false)');
		PERFORM homing._peer_query('leaving', 'SELECT homing._drop_slot(slot_name) FROM pg_replication_slots '
			'WHERE database = current_database() AND plugin = ''pg_homing''');
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'region "%" is removed, but could not be told to forget the cluster: %', region, SQLERRM
			USING HINT = 'It is fenced. Drop its database, or let it come back with homing.rejoin.';
	END;
	RETURN jsonb_build_object('region', region, 'homes_moved', moved, 'epoch', result->'epoch', 'survivors', result->'survivors');
END
$$;
COMMENT ON FUNCTION homing.remove_region(text, text) IS
	'removes a living region, or a witness, from the cluster, called at another region: hands its homes over to the other regions, waits until they have all that it wrote, and makes its database one that is no region, with ordinary tables and the rows they have. 08001 when a region cannot be reached, 55P03 when long transactions hold its homes';
