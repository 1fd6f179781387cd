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
				'SELECT homing._map() FROM homing.local_region WHERE cluster_id = $1 AND fenced IS NULL', here.cluster_id::text) q;
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

-- A slot of ours that has kept all beyond the position.
CREATE FUNCTION homing._slot_from(beyond pg_lsn) RETURNS name
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.slot_name FROM homing.local_region l JOIN homing.member m ON m.region_id <> l.region_id
	JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
	WHERE s.confirmed_flush_lsn <= beyond AND s.wal_status IN ('reserved', 'extended', 'unreserved') AND NOT s.active
	ORDER BY s.confirmed_flush_lsn DESC LIMIT 1
$$;

-- The changes in order. `position` as text: it becomes a setting.
CREATE FUNCTION homing._orphans_beyond(beyond pg_lsn, slot name) RETURNS SETOF jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET extra_float_digits = 3 SET bytea_output = 'hex' SET homing.orphans_beyond = ''
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

-- Makes this database one that is no region. In one transaction, which is this statement.
CREATE FUNCTION homing._leave_cluster() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on SET lock_timeout = '30s'
AS $$
DECLARE
	homed CONSTANT regclass[] := ARRAY(SELECT t.relid::regclass FROM homing.homed_table t ORDER BY t.table_id);
	relation regclass;
	stream text;
BEGIN
	FOR stream IN SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
		CROSS JOIN homing.local_region l WHERE s.subname ^@ format('homing_%s_', left(l.cluster_id::text, 8)) LOOP
		PERFORM homing._drop_subscription(stream);
	END LOOP;
	FOREACH relation IN ARRAY homed LOOP
		PERFORM homing._unregister_table(relation);
	END LOOP;
	IF cardinality(homed) > 0 THEN
		PERFORM set_config('session_replication_role', 'replica', true);
		EXECUTE format('TRUNCATE %s', (SELECT string_agg(r::text, ', ') FROM unnest(homed) r));
		PERFORM set_config('session_replication_role', 'origin', true);
	END IF;
	DROP PUBLICATION homing;
	-- Whoever called us reads some of them: no TRUNCATE.
	FOREACH relation IN ARRAY homing._replicated_tables() || ARRAY['homing.local_region', 'homing.cluster_map', 'homing.keyspace',
		'homing.homed_table', 'homing.pending_key', 'homing.loss_mark', 'homing.tail_slot', 'homing.passed_on']::regclass[] LOOP
		EXECUTE format('DELETE FROM %s', relation);
	END LOOP;
	-- Their servers stay, with the user mappings of all roles: join_cluster takes them over.
	UPDATE homing.member SET status = 'lost', spread = '{}';
END
$$;

CREATE FUNCTION homing.rejoin() RETURNS jsonb
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
			HINT = 'homing.in_doubt lists them. COMMIT PREPARED makes such a part an orphaned write, ROLLBACK PREPARED forgets it.';
	END IF;

	-- 1. With a commit of our own, all before it is flushed.
	PERFORM homing._open_step('self', self);
	PERFORM homing._peer_query('self', 'SELECT homing._let_writers_end(relid) FROM homing.homed_table');
	PERFORM homing._peer_query('self', 'SELECT pg_logical_emit_message(true, ''pg_homing'', ''rejoin'')');

	-- 2. and 3.
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
	END LOOP;
	PERFORM homing._peer_query('via', 'SELECT homing._record_event($1, $2, $3, $4)', 'rejoin', me.name, session_user,
		format('%s orphaned writes', recorded));
	PERFORM homing._peer_close('via');

	-- 4. and 5.
	PERFORM homing._peer_query('self', 'SELECT homing._leave_cluster()');
	PERFORM homing._peer_close('self');
	PERFORM homing.join_cluster(me.name, self, via);
	RETURN jsonb_build_object('region', me.name, 'via', survivor, 'orphaned_writes', recorded);
END
$$;
COMMENT ON FUNCTION homing.rejoin() IS
	'at a region that was declared lost: records its writes that no other region has in homing.orphaned_writes, takes the rows of the other regions, and makes it a region of the cluster again, without homes. Takes effect at once. 55000 when it was not declared lost, or when its WAL is gone; 08001 when a region cannot be reached';
