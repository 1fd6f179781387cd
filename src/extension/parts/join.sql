-- join_cluster: how a database becomes a region of a cluster that is at work.
--
-- It runs at the joining database and writes nothing in its own transaction: every step is done in a session
-- with the region that it is about, this one included, and committed there in this order. `plan` is what the
-- steps know, as jsonb.
--
--  1. Sessions with every living region; each holds its change lock, so that nothing else joins, is lost
--     or is homed meanwhile. All that can be checked is checked. Nothing has changed yet.
--  2. What an earlier join of this name left when it was cut off is removed.
--  3. The publication here, then slots: here for every region and at every region for this one, and tail slots
--     (relay.sql). A new slot waits for the transactions that are running, also those of other databases of the
--     server, so none of ours may have written by then.
--  4. The donor (`via`) has applied of every other region what was written before that region's slot.
--     Then, with writes of homed tables at the donor held up for a moment: a snapshot, and how far of each
--     region's stream is in it. That is where the slots for this region are moved to: what the copy has is
--     not sent, what it lacks is sent.
--  5. Here, in one transaction: servers, the tables and their rows as of the snapshot, registration, the
--     subscriptions. At every other region, in one transaction each: our server, the subscription, the map
--     with us as joining, a milestone.
--  6. The other regions commit, then we do: from here on we are a region.
--  7. The map with us as active, everywhere.
--
-- A failure before our commit in 6 undoes everything. If this process is killed, what it left is harmless
-- and the next call removes it (2), or, after 6, completes it (7).

-- --- step 1: whom we join, and whether we can ------------------------------------------------------------

CREATE FUNCTION homing._join_via(name text, via text, nonce text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	there record;
	map jsonb;
BEGIN
	PERFORM homing._open_step('via', via);
	IF homing._sees_nonce('via', nonce) THEN
		RAISE EXCEPTION 'via leads to this very database' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It says how to reach a region that is in the cluster already.';
	END IF;
	PERFORM homing._require_superuser('via', 'the region that via leads to');
	SELECT q[1] INTO there FROM homing._peer_query('via', 'SELECT FROM pg_extension WHERE extname = ''pg_homing''') q;
	IF FOUND THEN
		SELECT q[1] AS region_id, q[2] AS fenced, q[3] AS map INTO there
		FROM homing._peer_query('via', 'SELECT region_id, coalesce(fenced, CASE WHEN missing <> ''{}'' THEN ''it lacks the last changes of a lost region'' END), homing._map()
			FROM homing.local_region WHERE NOT homing._is_witness()') q;
	END IF;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the database that via leads to is not a region of a cluster'
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('It leads to %s.', homing._place(via)),
				HINT = 'Make the first region with homing.create_cluster there.';
	END IF;
	IF there.fenced IS NOT NULL THEN
		RAISE EXCEPTION 'the region that via leads to is fenced: %', there.fenced
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Join by another region of the cluster.';
	END IF;
	map := there.map::jsonb;
	RETURN jsonb_build_object('map', map, 'donor', there.region_id::int2, 'cluster', map->>'cluster');
END
$$;

-- Sessions with every living region, and every witness, each holding its change lock; the newest map. Witnesses
-- learn of us; they are not "streaming".
CREATE FUNCTION homing._join_meet(plan jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	map jsonb := plan->'map';
	heard jsonb;
	opened int2[] := '{}';
	living int2[];
	id int2;
	region text;
	conninfos jsonb := '{}';
	address text;
	failure text;
BEGIN
	LOOP
		-- Ourselves, from a call that was cut off, is nobody to talk to.
		SELECT array_agg(l ORDER BY l) INTO living FROM unnest(homing._living(map) || homing._witnesses(map)) l
		WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(map->'members' || coalesce(map->'witnesses', '[]')) m
						  WHERE (m->>'id')::int2 = l AND m->>'name' = plan->>'name' AND m->>'status' = 'joining');
		EXIT WHEN opened @> living;
		FOREACH id IN ARRAY living LOOP
			CONTINUE WHEN id = ANY (opened);
			region := homing._member_name(map, id);
			SELECT q[1] INTO address FROM homing._peer_query('via', 'SELECT homing._region_conninfo($1)', region) q;
			BEGIN
				PERFORM homing._open_step('lock ' || id, address);
				PERFORM homing._open_step('step ' || id, address);
			EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection OR connection_failure THEN
				GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT;
				RAISE EXCEPTION 'cannot join the cluster: region "%" cannot be reached', region
					USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection', DETAIL = failure,
						HINT = 'A new region connects to every region that is not lost, and every witness, with the connection string that the cluster has for it.';
			END;
			PERFORM homing._peer_query('lock ' || id, 'BEGIN');
			BEGIN
				PERFORM homing._peer_query('lock ' || id, 'SELECT homing._lock_change()');
			EXCEPTION WHEN lock_not_available THEN
				RAISE EXCEPTION 'cannot join the cluster: another change is going on at region "%"', region
					USING ERRCODE = 'lock_not_available', HINT = 'Regions join, are lost, and tables are homed one after the other: try again later.';
			END;
			SELECT q[1]::jsonb INTO heard FROM homing._peer_query('step ' || id,
				'SELECT homing._map() FROM homing.local_region WHERE region_id = $1 AND cluster_id = $2 AND fenced IS NULL AND missing = ''{}''',
				id::text, plan->>'cluster') q;
			IF heard IS NULL THEN
				RAISE EXCEPTION 'cannot join the cluster: the connection string of region "%" leads to another database, or the region is fenced', region
					USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('It leads to %s.', homing._place(address));
			END IF;
			PERFORM homing._require_superuser('step ' || id, format('region "%s"', region));
			IF (heard->>'epoch')::bigint > (map->>'epoch')::bigint THEN
				map := heard;
			END IF;
			opened := opened || id;
			conninfos := conninfos || jsonb_build_object(id::text, address);
		END LOOP;
	END LOOP;
	RETURN plan || jsonb_build_object('map', map, 'living', to_jsonb(living), 'conninfos', conninfos,
		'streaming', to_jsonb(ARRAY(SELECT unnest(living) EXCEPT SELECT unnest(homing._witnesses(map)) ORDER BY 1)),
		'id', homing._next_region_id(map));
END
$$;

-- Tables that the cluster has: those we have too must be the same, and empty or the copy of a region that returns.
CREATE FUNCTION homing._join_check_tables(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	donor CONSTANT text := homing._member_name(plan->'map', (plan->>'donor')::int2);
	kept CONSTANT regclass[] := homing._kept_copies(plan->>'cluster');
	homed record;
	part record;
	filled regclass;
BEGIN
	FOR homed IN
		SELECT q[1] AS name, to_regclass(q[1]) AS here, q[2]::jsonb AS description
		FROM homing._peer_query('step ' || (plan->>'donor'),
			'SELECT relid::regclass, homing._describe_table(relid) FROM homing.homed_table ORDER BY table_id') q
	LOOP
		CONTINUE WHEN homed.here IS NULL;
		SELECT t.key AS what, t.value AS there, h.value AS here INTO part
		FROM jsonb_each_text(homed.description) t
		LEFT JOIN jsonb_each_text(homing._describe_table(homed.here)) h USING (key)
		WHERE h.value IS DISTINCT FROM t.value ORDER BY t.key COLLATE "C" LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'table "%" is not the same here as at region "%"', homed.name, donor
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = format('%s there: %s; here: %s.', initcap(part.what), part.there, part.here),
					HINT = 'Make it equal, or drop it here: join_cluster then brings it over.';
		END IF;
		-- A partition that was made since is no copy.
		SELECT t.relid INTO filled FROM (SELECT homed.here UNION SELECT p.relid FROM pg_partition_tree(homed.here) p) AS t (relid)
		WHERE t.relid <> ALL (kept) AND homing._has_rows(t.relid) LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'table "%" is not empty', filled
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = format('It is homed in the cluster, whose rows come from region "%s".', donor),
					HINT = 'Empty it: a joining database has no rows of its own in homed tables.';
		END IF;
	END LOOP;
END
$$;

CREATE FUNCTION homing._join_check(plan jsonb, nonce text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	name CONSTANT text := plan->>'name';
	region text;
	id int2;
	properties jsonb;
BEGIN
	SELECT m->>'status' INTO region FROM jsonb_array_elements(plan->'map'->'members') m
	WHERE m->>'name' = plan->>'name' AND m->>'status' = 'active';
	IF FOUND OR EXISTS (SELECT FROM jsonb_array_elements(plan->'map'->'witnesses') w
						WHERE w->>'name' = plan->>'name' AND w->>'status' <> 'removed') THEN
		RAISE EXCEPTION 'region "%" already exists', name USING ERRCODE = 'duplicate_object',
			HINT = 'Choose a name that no region of the cluster has.';
	END IF;
	PERFORM homing._check_settings(name, jsonb_array_length(plan->'streaming'));
	PERFORM homing._check_server_name(name, s)
	FROM (SELECT homing._member_name(plan->'map', l) FROM unnest(homing._jsonb_regions(plan->'living')) l
		  UNION ALL SELECT name) AS x(s);
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		region := homing._member_name(plan->'map', id);
		IF plan->'streaming' @> to_jsonb(id) THEN
			SELECT q[1]::jsonb INTO properties FROM homing._peer_query('step ' || id, 'SELECT homing._properties()') q;
			PERFORM homing._compare_properties(region, properties);
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_settings($1, 1)', region);
		END IF;
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_no_loss()');
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_server_name($1, $2)', region, name);
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._check_reaches($1, $2, $3)', region, plan->>'conninfo', nonce);
	END LOOP;
	PERFORM homing._join_check_tables(plan);
END
$$;

-- --- steps 2 to 4 --------------------------------------------------------------------------------------

-- Step 2. Returns the plan with the map that follows.
CREATE FUNCTION homing._join_clear(plan jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	left_over CONSTANT int2 := (SELECT (m->>'id')::int2 FROM jsonb_array_elements(plan->'map'->'members') m
		WHERE m->>'name' = plan->>'name' AND m->>'status' = 'joining');
	map jsonb := plan->'map';
	id int2;
BEGIN
	IF left_over IS NOT NULL THEN
		map := homing._map_without(map, left_over);
	END IF;
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		IF left_over IS NOT NULL THEN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._dismiss($1, $2, $3)',
				left_over::text, plan->>'name', map::text);
		ELSE
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1)', map::text);
		END IF;
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._drop_stray_slots()');
	END LOOP;
	-- This database is no region: slots of ours in it are of no use.
	PERFORM homing._drop_slot(s.slot_name) FROM pg_replication_slots s
	WHERE s.database = current_database() AND s.plugin = 'pg_homing';
	PERFORM homing._peer_query('self', 'SELECT homing._check_vacant()');
	RETURN plan || jsonb_build_object('map', map);
END
$$;

-- Step 3.
CREATE FUNCTION homing._join_slots(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me CONSTANT int2 := plan->>'id';
	id int2;
BEGIN
	PERFORM homing._peer_query('self', homing._publication());
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'streaming')) LOOP
		PERFORM homing._peer_query('self', 'SELECT homing._make_slot($1)', homing._cluster_stream(plan->>'cluster', me, id));
		PERFORM homing._peer_query('step ' || id, 'SELECT homing._make_slot($1)', homing._cluster_stream(plan->>'cluster', id, me));
		IF jsonb_array_length(plan->'streaming') > 1 THEN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._begin_tail()');
		END IF;
	END LOOP;
	IF jsonb_array_length(plan->'streaming') > 1 THEN
		PERFORM homing._peer_query('self', 'SELECT pg_copy_logical_replication_slot($1, $2, false)',
			homing._cluster_stream(plan->>'cluster', me, id), homing._tail_slot_name(plan->>'cluster', me, 0));
	END IF;
END
$$;

-- Step 4, first half.
CREATE FUNCTION homing._join_catch_up(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	donor CONSTANT int2 := plan->>'donor';
	id int2;
	slots record;
	unused_since timestamptz;
BEGIN
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'streaming')) LOOP
		CONTINUE WHEN id = donor;
		-- Something for the subscriber to confirm, should the region be idle.
		PERFORM homing._peer_query('step ' || id, 'SELECT pg_logical_emit_message(true, ''pg_homing'', ''join'')');
		unused_since := NULL;
		LOOP
			SELECT q[1]::boolean AS reached, q[2]::boolean AS used INTO slots
			FROM homing._peer_query('step ' || id,
				'SELECT d.confirmed_flush_lsn >= n.confirmed_flush_lsn, d.active
				 FROM pg_replication_slots d CROSS JOIN pg_replication_slots n WHERE d.slot_name = $1 AND n.slot_name = $2',
				homing._cluster_stream(plan->>'cluster', id, donor),
				homing._cluster_stream(plan->>'cluster', id, (plan->>'id')::int2)) q;
			EXIT WHEN slots.reached;
			unused_since := CASE WHEN slots.used THEN NULL ELSE coalesce(unused_since, clock_timestamp()) END;
			IF clock_timestamp() > unused_since + interval '15 seconds' THEN
				RAISE EXCEPTION 'cannot join the cluster: region "%" does not receive the changes of region "%"',
					homing._member_name(plan->'map', donor), homing._member_name(plan->'map', id)
					USING ERRCODE = 'object_not_in_prerequisite_state',
						HINT = 'Its server log says why its subscription does not work. Another region may serve as via.';
			END IF;
			PERFORM pg_sleep(0.02);
		END LOOP;
	END LOOP;
END
$$;

-- Step 4, second half. Returns the plan with the snapshot; the slots are where it ends.
CREATE FUNCTION homing._join_snapshot(plan jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	donor CONSTANT text := plan->>'donor';
	taken record;
	id int2;
	reached pg_lsn;
BEGIN
	SELECT * INTO taken FROM homing._take_snapshot('step ' || donor, plan->'conninfos'->>donor,
		homing._member_name(plan->'map', donor::int2), 'join the cluster');
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'streaming')) LOOP
		-- NULL: nothing of that region was ever applied; its slot stands before the first.
		reached := taken.positions->>(id::text);
		IF reached IS NOT NULL THEN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._advance_slot($1, $2)',
				homing._cluster_stream(plan->>'cluster', id, (plan->>'id')::int2), reached::text);
		END IF;
	END LOOP;
	RETURN plan || jsonb_build_object('snapshot', taken.snapshot, 'positions', taken.positions);
END
$$;

-- --- step 5, here ----------------------------------------------------------------------------------------

-- Tables of the cluster and their rows. Requires: session "donor" sees the snapshot. Returns how many rows came over.
CREATE FUNCTION homing._join_tables(plan jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT regclass[] := homing._kept_copies(plan->>'cluster');
	homed record;
	missing text[];
	rows bigint := 0;
BEGIN
	SELECT array_agg(q[1]) INTO missing
	FROM homing._peer_query('donor',
		'SELECT relid::regclass FROM homing.homed_table JOIN homing.activation USING (table_id) ORDER BY table_id') q
	WHERE to_regclass(q[1]) IS NULL;
	IF missing IS NOT NULL THEN
		PERFORM homing._bring_schema(plan->'conninfos'->>(plan->>'donor'), missing);
	END IF;
	-- What is checked stays so. Readers are not in the way.
	FOR homed IN
		SELECT q[1] AS relation FROM homing._peer_query('donor', 'SELECT relid::regclass FROM homing.homed_table ORDER BY table_id') q
		WHERE to_regclass(q[1]) IS NOT NULL
	LOOP
		EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', homed.relation);
	END LOOP;
	PERFORM homing._join_check_tables(plan);
	FOR homed IN
		SELECT q[1]::regclass AS relation, q[2] AS key
		FROM homing._peer_query('donor',
			'SELECT t.relid::regclass, a.attname FROM homing.homed_table t JOIN homing.activation USING (table_id)
			 JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum ORDER BY table_id') q
	LOOP
		rows := rows + CASE WHEN homed.relation = ANY (kept) THEN homing._renew_rows('donor', homed.relation, homed.key)
			ELSE homing._bring_rows('donor', homed.relation) END;
	END LOOP;
	RETURN rows;
END
$$;

-- Registers them as they are in the cluster.
CREATE FUNCTION homing._join_register() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	homed record;
BEGIN
	FOR homed IN
		SELECT q[1]::regclass AS relation, q[2] AS key, q[3]::bigint AS table_id, q[4]::int4 AS keyspace_id, q[5] AS name,
			q[6] AS placement, q[7]::int2[] AS owners
		FROM homing._peer_query('donor',
			'SELECT t.relid::regclass, a.attname, t.table_id, k.keyspace_id, k.name, k.placement, k.recorded_owners
			 FROM homing.homed_table t JOIN homing.keyspace k USING (keyspace_id) JOIN homing.activation USING (table_id)
			 JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum
			 ORDER BY t.table_id') q
	LOOP
		-- What home_table has allowed there is allowed here.
		PERFORM homing._register_table(homed.relation, homed.key, homed.table_id, homed.keyspace_id, homed.name,
			homed.placement, homed.owners, true);
	END LOOP;
END
$$;

-- Runs in a session of its own at the joining database. Returns how many rows of homed tables came over.
CREATE FUNCTION homing._join_here(plan jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	donor CONSTANT text := plan->>'donor';
	id int2;
	relation regclass;
	rows bigint;
BEGIN
	PERFORM homing._open_step('step ' || donor, plan->'conninfos'->>donor);
	PERFORM homing._open_donor(plan->'conninfos'->>donor, plan->>'snapshot');

	INSERT INTO homing.local_region (region_id, cluster_id, admin)
	VALUES ((plan->>'id')::int2, (plan->>'cluster')::uuid, plan->>'admin');
	INSERT INTO homing.cluster_map (epoch) VALUES ((plan->'map'->>'epoch')::bigint);
	PERFORM homing._forget_other_votes();
	PERFORM homing._adopt_map(plan->'joining');
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._put_server(homing._member_name(plan->'map', id), plan->'conninfos'->>(id::text), plan->>'admin');
	END LOOP;
	PERFORM homing._put_server(plan->>'name', plan->>'conninfo', plan->>'admin');

	rows := homing._join_tables(plan);
	PERFORM homing._join_register();
	FOREACH relation IN ARRAY homing._replicated_tables() LOOP
		PERFORM homing._bring_rows('donor', relation);
	END LOOP;
	PERFORM homing._fill_pending_keys();
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'streaming')) LOOP
		PERFORM homing._subscribe(homing._stream_name(id, (SELECT region_id FROM homing.local_region)), plan->'conninfos'->>(id::text));
	END LOOP;
	-- What we do not apply ourselves, nobody can have from us.
	INSERT INTO homing.tail_slot (slot, positions, current)
	SELECT homing._tail_slot_name(plan->>'cluster', (plan->>'id')::int2, 0),
		jsonb_object_agg(s, coalesce(plan->'positions'->>s, '0/0')), true
	FROM jsonb_array_elements_text(plan->'streaming') s HAVING count(*) > 1;
	INSERT INTO homing.milestone (region_id, epoch)
	SELECT l.region_id, c.epoch FROM homing.local_region l CROSS JOIN homing.cluster_map c;
	PERFORM homing._start_worker();
	PERFORM homing._peer_close('donor');
	RETURN rows;
END
$$;

-- --- steps 6 and 7, and the way back ---------------------------------------------------------------------

-- Before a voter is added: no region serves by a lease of the map before this one.
CREATE FUNCTION homing._await_recounts(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
BEGIN
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		BEGIN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._await_recount($1::bigint)', plan->'joining'->>'epoch');
		EXCEPTION WHEN connection_failure OR admin_shutdown THEN
			RAISE EXCEPTION '"%" has joined but does not take part yet: region "%" was not reached any more', plan->>'name',
				homing._member_name(plan->'map', id)
				USING ERRCODE = 'connection_failure', DETAIL = SQLERRM, HINT = 'Make the same call again.';
		END;
	END LOOP;
END
$$;

-- The map with us as active, at all regions. One that misses it hears of it from the others.
CREATE FUNCTION homing._join_activate(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	active jsonb := homing._map_with(plan->'joining', (plan->>'id')::int2, plan->>'name', 'active');
	told int := 0;
	id int2;
BEGIN
	PERFORM homing._await_recounts(plan);
	active := active || jsonb_build_object('events', jsonb_build_array(jsonb_build_object(
		'at', clock_timestamp(), 'epoch', active->'epoch', 'kind', 'join_cluster', 'region', plan->'name',
		'actor', session_user, 'reason', plan->>'rows' || ' rows came over')));
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		BEGIN
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._adopt_map($1)', active::text);
			told := told + 1;
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be told that region "%" is active: %',
				homing._member_name(plan->'map', id), plan->>'name', SQLERRM
				USING HINT = 'Its worker learns of it as soon as it reaches another region.';
		END;
	END LOOP;
	IF told = 0 THEN
		RAISE EXCEPTION 'region "%" has joined but no other region could be told so', plan->>'name'
			USING ERRCODE = 'connection_failure', HINT = 'Call homing.join_cluster again, with the same arguments.';
	END IF;
	PERFORM homing._peer_query('self', 'SELECT homing._adopt_map($1)', active::text);
END
$$;

-- A transaction that was told to commit and did not answer may yet do so: it has ended when its session has.
CREATE FUNCTION homing._join_committed(pid int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF pid IS NOT NULL THEN
		LOOP
			-- Statistics are read once per transaction unless told otherwise.
			PERFORM pg_stat_clear_snapshot();
			EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_get_activity(pid));
			PERFORM pg_terminate_backend(pid, 5000);
		END LOOP;
	END IF;
	RETURN EXISTS (SELECT FROM homing.local_region);
END
$$;

-- In new sessions: the old ones may be gone with the failure that brought us here.
CREATE FUNCTION homing._join_undo(plan jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me CONSTANT int2 := plan->>'id';
	without jsonb := plan->'map';
	id int2;
	session text;
BEGIN
	IF plan ? 'joining' THEN
		without := homing._map_without(plan->'joining', me);
	END IF;
	FOREACH session IN ARRAY ARRAY['join', 'freeze', 'snapshot'] LOOP
		PERFORM homing._peer_close(session);
	END LOOP;
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._peer_close('step ' || id);
		session := 'undo ' || id;
		BEGIN
			PERFORM homing._open_step(session, plan->'conninfos'->>(id::text));
			PERFORM homing._peer_query(session, 'SELECT homing._dismiss($1, $2, $3)', me::text, plan->>'name', without::text);
			PERFORM homing._peer_query(session, 'SELECT homing._drop_slot($1)', homing._cluster_stream(plan->>'cluster', id, me));
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be cleaned up after the failed join: %', homing._member_name(plan->'map', id), SQLERRM
				USING HINT = 'The next homing.join_cluster does it.';
		END;
	END LOOP;
	BEGIN
		PERFORM homing._open_step('undo', plan->>'conninfo');
		PERFORM homing._peer_query('undo', 'SELECT homing._drop_slot($1)', s)
		FROM (SELECT homing._cluster_stream(plan->>'cluster', me, l) FROM unnest(homing._jsonb_regions(plan->'living')) l
			  UNION ALL SELECT homing._tail_slot_name(plan->>'cluster', me, 0)) AS x(s);
		PERFORM homing._peer_query('undo', 'SELECT homing._check_vacant()');
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'this database could not be cleaned up after the failed join: %', SQLERRM
			USING HINT = 'The next homing.join_cluster does it.';
	END;
END
$$;

CREATE FUNCTION homing._join_start(name text, conninfo text, via text, nonce text, as_witness boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._require_administrator('join a cluster');
	PERFORM homing._check_name(name);
	IF conninfo IS NULL OR via IS NULL THEN
		RAISE EXCEPTION 'both connection strings must be given' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'conninfo says how other regions reach this database, via how to reach a region of the cluster.';
	END IF;
	-- The steps run in sessions of their own: they would wait for this transaction's locks for ever, and it
	-- must see what they committed.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'cannot join a cluster in a transaction of isolation level %', upper(current_setting('transaction_isolation'))
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
		RAISE EXCEPTION 'cannot join a cluster in a transaction that has written' USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF EXISTS (SELECT FROM homing.local_region l LEFT JOIN homing.member m USING (region_id)
			   LEFT JOIN homing.witness w USING (region_id)
			   WHERE coalesce(m.status, w.status) <> 'joining' OR coalesce(m.name, w.name) <> _join_start.name
				OR (w.region_id IS NOT NULL) <> as_witness) THEN
		RAISE EXCEPTION 'this database is region "%" of a cluster already', homing._here_name()
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	IF NOT as_witness THEN
		PERFORM homing._check_settings(name, 1);
	END IF;
	PERFORM homing._lock_change();
	PERFORM homing._open_self(homing._conninfo(conninfo), nonce);
	RETURN jsonb_build_object('name', name, 'admin', current_user, 'conninfo', homing._conninfo(conninfo))
		|| homing._join_via(name, homing._conninfo(via), nonce);
END
$$;

CREATE FUNCTION homing.join_cluster(name text, conninfo text, via text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	nonce CONSTANT text := homing._nonce();
	plan jsonb;
	deciding int;
	id int2;
BEGIN
	plan := homing._join_meet(homing._join_start(name, conninfo, via, nonce));
	IF EXISTS (SELECT FROM homing.local_region) THEN
		-- Only 7 was missing.
		plan := plan || jsonb_build_object('joining', plan->'map', 'id', (SELECT region_id FROM homing.local_region));
		PERFORM homing._join_activate(plan);
		PERFORM homing._tell_kept_copies(plan->>'cluster');
		RETURN;
	END IF;
	PERFORM homing._join_check(plan, nonce);

	BEGIN
		plan := homing._join_clear(plan);
		PERFORM homing._join_slots(plan);
		PERFORM homing._debug_point('join-slots-made');
		PERFORM homing._join_catch_up(plan);
		plan := homing._join_snapshot(plan);

		plan := plan || jsonb_build_object('joining',
			homing._map_with(plan->'map', (plan->>'id')::int2, name, 'joining'));
		PERFORM homing._open_step('join', plan->>'conninfo');
		PERFORM homing._peer_query('join', 'BEGIN');
		SELECT plan || jsonb_build_object('rows', q[1]) INTO plan
		FROM homing._peer_query('join', 'SELECT homing._join_here($1)', plan::text) q;
		FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
			PERFORM homing._peer_query('step ' || id, 'BEGIN');
			PERFORM homing._peer_query('step ' || id, 'SELECT homing._welcome($1, $2, $3, $4)',
				plan->>'id', name, plan->>'conninfo', plan->>'joining');
		END LOOP;
		FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
			PERFORM homing._peer_query('step ' || id, 'COMMIT');
			PERFORM homing._debug_point('join-welcomed');
		END LOOP;
		PERFORM homing._debug_point('join-welcomed-by-all');
		SELECT q[1]::int INTO deciding FROM homing._peer_query('join', 'SELECT pg_backend_pid()') q;
		PERFORM homing._peer_query('join', 'COMMIT');
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		IF NOT homing._join_committed(deciding) THEN
			PERFORM homing._join_undo(plan);
			RAISE;
		END IF;
	END;
	PERFORM homing._debug_point('join-committed');
	PERFORM homing._join_activate(plan);
	FOR id IN SELECT unnest(homing._jsonb_regions(plan->'living')) LOOP
		PERFORM homing._peer_close('step ' || id);
		PERFORM homing._peer_close('lock ' || id);
	END LOOP;
	PERFORM homing._tell_kept_copies(plan->>'cluster');
END
$$;
COMMENT ON FUNCTION homing.join_cluster(text, text, text) IS
	'makes this database a region of the cluster that via leads to. conninfo says how the other regions reach this database, as superuser. Brings over homed tables that are missing here, and the rows of all. Takes effect at once, whatever becomes of the calling transaction. Fails with F0000 when a setting does not fit, 08001 when a region cannot be reached, 55000 or 42710 when something here or there is in the way; then nothing is left behind';
