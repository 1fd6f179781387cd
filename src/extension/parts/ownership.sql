-- Homes that change hands on purpose. The protocol is told in src/rehome/handover.cpp.

CREATE FUNCTION homing._barrier() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_barrier';
COMMENT ON FUNCTION homing._barrier() IS
	'trigger: makes an apply worker wait until another region''s stream is applied up to the position of the row';
CREATE TRIGGER barrier BEFORE INSERT ON homing.dependency FOR EACH ROW EXECUTE FUNCTION homing._barrier();
ALTER TABLE homing.dependency ENABLE ALWAYS TRIGGER barrier;

CREATE FUNCTION homing._handed_over() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_handed_over';
COMMENT ON FUNCTION homing._handed_over() IS 'trigger: wakes the worker when the transaction has committed';
CREATE TRIGGER handed_over AFTER INSERT ON homing.ownership FOR EACH ROW
WHEN (NEW.kind = 'release') EXECUTE FUNCTION homing._handed_over();
ALTER TABLE homing.ownership ENABLE ALWAYS TRIGGER handed_over;

-- Keys that were assigned from one region to another, until they are accepted. Older versions of a key are
-- of no use any more; that of a home are removed by the worker.
CREATE FUNCTION homing._key_assigned() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NEW.version > 1 THEN
		DELETE FROM homing.assignment a
		WHERE a.keyspace_id = NEW.keyspace_id AND a.key = NEW.key AND a.version < NEW.version;
		DELETE FROM homing.key_acceptance a
		WHERE a.keyspace_id = NEW.keyspace_id AND a.key = NEW.key AND a.version < NEW.version;
	END IF;
	IF NEW.from_region IS NOT NULL THEN
		INSERT INTO homing.pending_key (keyspace_id, key, version, home, from_region)
		VALUES (NEW.keyspace_id, NEW.key, NEW.version, NEW.home, NEW.from_region);
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER assigned AFTER INSERT ON homing.assignment FOR EACH ROW EXECUTE FUNCTION homing._key_assigned();
ALTER TABLE homing.assignment ENABLE ALWAYS TRIGGER assigned;
CREATE TRIGGER handed_over AFTER INSERT ON homing.assignment FOR EACH ROW
WHEN (NEW.from_region IS NOT NULL) EXECUTE FUNCTION homing._handed_over();
ALTER TABLE homing.assignment ENABLE ALWAYS TRIGGER handed_over;

CREATE FUNCTION homing._key_accepted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM homing.pending_key p
	WHERE p.keyspace_id = NEW.keyspace_id AND p.key = NEW.key AND p.version <= NEW.version;
	RETURN NULL;
END
$$;
CREATE TRIGGER accepted AFTER INSERT ON homing.key_acceptance FOR EACH ROW EXECUTE FUNCTION homing._key_accepted();
ALTER TABLE homing.key_acceptance ENABLE ALWAYS TRIGGER accepted;

-- At a region that joins: what the triggers would have written.
CREATE FUNCTION homing._fill_pending_keys() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO homing.pending_key (keyspace_id, key, version, home, from_region)
	SELECT a.keyspace_id, a.key, a.version, a.home, a.from_region FROM homing.assignment a
	WHERE a.from_region IS NOT NULL
		AND NOT EXISTS (SELECT FROM homing.key_acceptance k
						WHERE k.keyspace_id = a.keyspace_id AND k.key = a.key AND k.version = a.version)
$$;

CREATE FUNCTION homing._hold_home(keyspace_id int4, home int4) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_hold_home';
COMMENT ON FUNCTION homing._hold_home(int4, int4) IS 'keeps a home from being given away until the end of the transaction';

CREATE FUNCTION homing._lock_home(keyspace_id int4, home int4, wait boolean) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_lock_home';
COMMENT ON FUNCTION homing._lock_home(int4, int4, boolean) IS
	'keeps writers out of a home until the end of the transaction. Without wait, false when somebody writes it';

CREATE FUNCTION homing._home_states(keyspace int4 DEFAULT NULL, OUT keyspace_id int4, OUT home int4, OUT owner int2,
	OUT version int8, OUT from_region int2, OUT to_region int2, OUT accepted boolean)
RETURNS SETOF record
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_home_states';
COMMENT ON FUNCTION homing._home_states(int4) IS
	'homes and their newest hand-over as committed now, whatever the snapshot; version 0: none';

CREATE FUNCTION homing._generation() RETURNS bigint
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_generation';
CREATE FUNCTION homing._await_change(generation bigint, timeout_ms int) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_await_change';
COMMENT ON FUNCTION homing._await_change(bigint, int) IS
	'waits until the tables of homing have changed since _generation() gave that number; false: not in time';

CREATE FUNCTION homing._repartition(owners int2[], regions int2[], weights float8[]) RETURNS int2[]
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_repartition';

-- --- at the old owner --------------------------------------------------------------------------------

-- Raises when the writes of a key would wait for that region for long.
CREATE FUNCTION homing._check_follower(follower int2) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	much CONSTANT bigint := 16 * 1024 * 1024;
BEGIN
	IF NOT EXISTS (SELECT FROM homing.local_region l JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, follower)
				   WHERE s.active AND pg_current_wal_flush_lsn() - s.confirmed_flush_lsn < much) THEN
		PERFORM homing._await_follower(follower, current_setting('homing.handover_timeout')::interval);
	END IF;
END
$$;

-- Waits until a region has nearly everything that we wrote, so that writers of the homes wait shortly.
CREATE FUNCTION homing._await_follower(follower int2, timeout interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target CONSTANT pg_lsn := pg_current_wal_flush_lsn();
	give_up CONSTANT timestamptz := clock_timestamp() + timeout;
	slot record;
BEGIN
	LOOP
		SELECT s.active, s.confirmed_flush_lsn INTO slot FROM homing.local_region l
		JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, follower);
		EXIT WHEN slot.active AND slot.confirmed_flush_lsn >= target;
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'region "%" has not received the writes of region "%"',
				(SELECT m.name FROM homing.member m WHERE m.region_id = follower),
				(SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id))
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = CASE WHEN slot.active THEN format('It is %s behind.', pg_size_pretty(target - slot.confirmed_flush_lsn))
						ELSE 'It is not connected.' END,
					HINT = 'Writes of the homes would wait until it has. homing.regions shows the lag: try again when it is small.';
		END IF;
		PERFORM pg_sleep(0.005);
	END LOOP;
END
$$;

CREATE FUNCTION homing._announce_move(keyspace_id int4, target int2, homes int4[]) RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_announce_move';
COMMENT ON FUNCTION homing._announce_move(int4, int2, int4[]) IS
	'lets sessions that write these homes here connect to the region that is about to get them; NULL: it has them';

-- Waits until no session here is connecting to the region any more.
CREATE FUNCTION homing._await_connecting(region int2, timeout interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + timeout;
BEGIN
	WHILE clock_timestamp() < give_up
		AND EXISTS (SELECT FROM homing._sessions() s WHERE s.region_id = _await_connecting.region AND s.state = 'connecting') LOOP
		PERFORM pg_sleep(0.005);
	END LOOP;
END
$$;

-- Releases homes to another region; all in one transaction, which is this statement. Returns what is done:
-- version NULL, the home was not ours to give. A home that is being written is left out, or waited for.
CREATE FUNCTION homing._release_homes(space int4, homes int4[], target int2, wait boolean, actor text)
RETURNS TABLE (released int4, at_version int8)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	locked int4[] := '{}';
	one int4;
	given int;
BEGIN
	IF NOT EXISTS (SELECT FROM homing.member m WHERE m.region_id = target AND m.status = 'active') THEN
		RAISE EXCEPTION 'region % cannot take homes', coalesce(
			(SELECT format('"%s"', m.name) FROM homing.member m WHERE m.region_id = target), target::text)
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'It is not active.';
	END IF;
	-- The release must be in WAL that is sent, and sent at once.
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'local', true);
	END IF;
	FOREACH one IN ARRAY homes LOOP
		IF homing._lock_home(space, one, wait) THEN
			locked := locked || one;
		END IF;
	END LOOP;

	-- The locks are held: what _home_states sees now stays true.
	FOR released, at_version IN
		WITH release AS (
			INSERT INTO homing.ownership (keyspace_id, home, version, kind, from_region, to_region, at)
			SELECT space, s.home, s.version + 1, 'release', here.region_id, target, clock_timestamp()
			FROM homing._home_states(space) s
			WHERE s.home = ANY (locked) AND s.owner = here.region_id AND s.accepted AND target <> here.region_id
			RETURNING home, version)
		SELECT l, r.version FROM unnest(locked) l LEFT JOIN release r ON r.home = l
	LOOP
		given := coalesce(given, 0) + (at_version IS NOT NULL)::int;
		RETURN NEXT;
	END LOOP;
	IF given > 0 THEN
		PERFORM homing._record_event('hand_over', m.name, actor, format('%s of keyspace %s, from this region',
			CASE given WHEN 1 THEN format('home %s', locked[1]) ELSE format('%s homes', given) END, k.name))
		FROM homing.member m CROSS JOIN homing.keyspace k WHERE m.region_id = target AND k.keyspace_id = space;
	END IF;
END
$$;
COMMENT ON FUNCTION homing._release_homes(int4, int4[], int2, boolean, text) IS
	'gives homes of this region to another one; from its commit on they are not served here';

-- --- at the new owner --------------------------------------------------------------------------------

-- How far a region's stream is in what a statement from now on sees.
CREATE FUNCTION homing._applied_position(origin int2) RETURNS pg_lsn
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stream CONSTANT text := homing._stream_name(origin, (SELECT region_id FROM homing.local_region));
	applied pg_lsn;
BEGIN
	SELECT pg_replication_origin_progress('pg_' || s.oid, false) INTO applied
	FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
	WHERE s.subname = stream AND d.datname = current_database();
	IF applied IS NULL THEN
		-- All survivors of a lost region stopped at one position.
		SELECT m.final_lsn INTO applied FROM homing.member m WHERE m.region_id = origin AND m.status = 'lost';
	END IF;
	IF applied IS NULL THEN
		RAISE EXCEPTION 'the position of subscription "%" is not known', stream USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	RETURN applied;
END
$$;

-- What follows in our stream comes after what these regions wrote and we have applied.
CREATE FUNCTION homing._depend_on(origins int2[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT int2 := (SELECT region_id FROM homing.local_region);
	number CONSTANT bigint := nextval('homing.dependency_seq');
BEGIN
	INSERT INTO homing.dependency (region_id, seq, origin, position)
	SELECT here, number, o, homing._applied_position(o) FROM (SELECT DISTINCT unnest(origins)) AS x(o) WHERE o <> here;
END
$$;

-- Accepts the homes that were released to this region. Runs in the worker: what an apply worker writes is
-- not sent on. From its commit on the homes are served here.
CREATE FUNCTION homing._accept_homes() RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	pending jsonb;
	batch CONSTANT int := 1000;
BEGIN
	-- One look: what the rows below say must be about the same homes.
	SELECT jsonb_agg(to_jsonb(p)) INTO pending
	FROM (SELECT s.* FROM homing._home_states() s WHERE s.owner = here.region_id AND NOT s.accepted LIMIT batch) p;
	IF pending IS NULL THEN
		RETURN 0;
	END IF;
	-- Before the acceptance and all that follows it.
	PERFORM homing._depend_on(ARRAY(SELECT from_region FROM jsonb_to_recordset(pending) AS x(from_region int2)));
	INSERT INTO homing.ownership (keyspace_id, home, version, kind, from_region, to_region, at)
	SELECT p.keyspace_id, p.home, p.version, 'accept', here.region_id, here.region_id, clock_timestamp()
	FROM jsonb_to_recordset(pending) AS p(keyspace_id int4, home int4, version int8);
	PERFORM homing._record_event('accept', f.name, session_user, format('%s of keyspace %s',
		CASE count(*) WHEN 1 THEN format('home %s', min(p.home)) ELSE format('%s homes', count(*)) END, k.name))
	FROM jsonb_to_recordset(pending) AS p(keyspace_id int4, home int4, from_region int2)
	JOIN homing.keyspace k USING (keyspace_id) JOIN homing.member f ON f.region_id = p.from_region
	GROUP BY f.name, k.name;
	RETURN jsonb_array_length(pending);
END
$$;
COMMENT ON FUNCTION homing._accept_homes() IS
	'accepts the homes that were handed over to this region; returns how many';

-- The same of keys that were assigned to homes of this region.
CREATE FUNCTION homing._accept_keys() RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	batch CONSTANT int := 10000;
	space int4;
	one int4;
	taken homing.pending_key[];
	accepted int := 0;
BEGIN
	FOR space, one IN
		SELECT DISTINCT p.keyspace_id, p.home FROM homing.pending_key p
		WHERE homing._owner(p.keyspace_id, p.home) = here.region_id ORDER BY 1, 2
	LOOP
		-- A home must not leave with keys that it accepts afterwards.
		PERFORM homing._hold_home(space, one);
		CONTINUE WHEN homing._owner(space, one) IS DISTINCT FROM here.region_id;
		SELECT array_agg(p) INTO taken
		FROM (SELECT * FROM homing.pending_key k WHERE k.keyspace_id = space AND k.home = one ORDER BY k.version LIMIT batch) p;
		CONTINUE WHEN taken IS NULL;
		PERFORM homing._depend_on(ARRAY(SELECT t.from_region FROM unnest(taken) t));
		INSERT INTO homing.key_acceptance (keyspace_id, key, version, region_id)
		SELECT t.keyspace_id, t.key, t.version, here.region_id FROM unnest(taken) t;
		accepted := accepted + cardinality(taken);
	END LOOP;
	RETURN accepted;
END
$$;
COMMENT ON FUNCTION homing._accept_keys() IS
	'accepts keys that were assigned to this region; returns how many';

-- Forgets what no reader of the log needs any more. Local: the worker marks the transaction so that it is not
-- sent to other regions, which may not know yet what replaced it.
CREATE FUNCTION homing._prune_log() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT int := 10;  -- hand-overs of a home that homing.moves shows
	removed bigint;
	more bigint;
BEGIN
	DELETE FROM homing.ownership o USING (
		SELECT r.keyspace_id, r.home, max(r.version) AS newest FROM homing.ownership r WHERE r.kind = 'release'
		GROUP BY 1, 2 HAVING count(*) > kept) n
	WHERE o.keyspace_id = n.keyspace_id AND o.home = n.home AND o.version <= n.newest - kept;
	GET DIAGNOSTICS removed = ROW_COUNT;
	DELETE FROM homing.dependency d USING (SELECT e.region_id, max(e.seq) AS newest FROM homing.dependency e GROUP BY 1) n
	WHERE d.region_id = n.region_id AND d.seq <= n.newest - 100;
	GET DIAGNOSTICS more = ROW_COUNT;
	-- An acceptance can be back before the transaction that it answers is visible to others here.
	DELETE FROM homing.pending_key p USING homing.key_acceptance k
	WHERE k.keyspace_id = p.keyspace_id AND k.key = p.key AND k.version = p.version;
	RETURN removed + more;
END
$$;
COMMENT ON FUNCTION homing._prune_log() IS 'forgets old hand-overs and dependencies; returns the number of rows';

-- Waits for the acceptance of those versions of homes. Returns how many are missing when the time is over.
CREATE FUNCTION homing._await_acceptance(space int4, homes int4[], versions int8[], timeout_ms int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + timeout_ms * interval '1 millisecond';
	generation bigint;
	missing int;
	left_ms int;
BEGIN
	LOOP
		generation := homing._generation();
		SELECT count(*) INTO missing FROM unnest(homes, versions) AS w(home, version)
		WHERE NOT EXISTS (SELECT FROM homing.ownership o WHERE o.keyspace_id = space AND o.home = w.home
						  AND o.version = w.version AND o.kind = 'accept');
		left_ms := extract(epoch FROM give_up - clock_timestamp()) * 1000;
		IF missing = 0 OR left_ms <= 0 THEN
			RETURN missing;
		END IF;
		PERFORM homing._await_change(generation, left_ms);
	END LOOP;
END
$$;

-- --- the functions -----------------------------------------------------------------------------------

-- A session with a region for the steps of a hand-over, each committed.
CREATE FUNCTION homing._open_mover(session text, region text, purpose text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	failure text;
BEGIN
	PERFORM homing._peer_open(session, homing._region_conninfo(region));
	-- Writers queue behind a mover that waits: not for long.
	PERFORM homing._peer_query(session, 'SELECT set_config(s, v, false) FROM (VALUES (''lock_timeout'', ''1s''), (''statement_timeout'', ''0''), (''jit'', ''off''),
		(''default_transaction_read_only'', ''off''), (''default_transaction_isolation'', ''read committed'')) AS x(s, v)');
EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
	GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT;
	RAISE EXCEPTION 'cannot %: region "%" cannot be reached', purpose, region
		USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection', DETAIL = failure,
			HINT = 'Old and new owner take part. If the owner is gone, declare it lost: its homes pass to its heirs.';
END
$$;

CREATE FUNCTION homing._require_active(region text) RETURNS int2
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
BEGIN
	SELECT m.region_id INTO id FROM homing.member m WHERE m.name = region AND m.status = 'active';
	IF NOT FOUND THEN
		RAISE EXCEPTION 'region "%" %', region,
			CASE WHEN EXISTS (SELECT FROM homing.member m WHERE m.name = region) THEN 'is not active' ELSE 'does not exist' END
			USING ERRCODE = 'invalid_parameter_value', HINT = 'homing.regions lists the regions.';
	END IF;
	RETURN id;
END
$$;

-- Moves homes from one region to another; each by itself. Requires: both are active, and different.
CREATE FUNCTION homing._move_homes(space int4, source text, target text, homes int4[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	purpose CONSTANT text := format('hand over homes from region "%s" to region "%s"', source, target);
	target_id CONSTANT int2 := homing._require_active(target);
	patience CONSTANT interval := current_setting('homing.handover_timeout')::interval;
	patience_ms CONSTANT int := extract(epoch FROM patience) * 1000;
	give_up timestamptz;
	told timestamptz := clock_timestamp();
	todo int4[] := homes;
	waited_for int4;
	moved int4[] := '{}';
	versions int8[] := '{}';
	home int4;
	version int8;
	missing int;
BEGIN
	-- Who is about to be lost gives nothing away, and what it were given would pass to its heirs.
	IF ARRAY[source, target] && homing._unfinished_losses() THEN
		PERFORM homing._check_no_loss();
	END IF;
	PERFORM homing._open_mover('source', source, purpose);
	PERFORM homing._open_mover('target', target, purpose);
	-- Sessions that write the homes connect to the new owner meanwhile, and what releases homes is planned.
	PERFORM homing._peer_query('source', 'SELECT homing._announce_move($1::int4, $2::int2, $3::int4[])', space::text, target_id::text, homes::text);
	PERFORM homing._peer_query('source', 'SELECT homing._await_follower($1, $2), homing._await_connecting($1::int2, $2::interval), '
		'(SELECT count(*) FROM homing._release_homes($3::int4, ''{}'', $1::int2, false, NULL))', target_id::text, patience::text, space::text);

	give_up := clock_timestamp() + patience;
	WHILE cardinality(todo) > 0 LOOP
		-- First all that nobody writes at this moment, then one that is written: the others wait for nothing.
		waited_for := NULL;
		LOOP
			BEGIN
				FOR home, version IN SELECT q[1]::int4, q[2]::int8 FROM homing._peer_query('source',
					'SELECT * FROM homing._release_homes($1::int4, $2::int4[], $3::int2, $4::boolean, $5)', space::text,
					CASE WHEN waited_for IS NULL THEN todo ELSE ARRAY[waited_for] END::text, target_id::text,
					(waited_for IS NOT NULL)::text, session_user::text) q
				LOOP
					todo := array_remove(todo, home);
					IF version IS NOT NULL THEN
						moved := moved || home;
						versions := versions || version;
					END IF;
				END LOOP;
			EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
				-- To the end of the line.
				todo := array_remove(todo, waited_for) || waited_for;
			END;
			EXIT WHEN waited_for IS NOT NULL OR cardinality(todo) = 0;
			waited_for := todo[1];
		END LOOP;
		EXIT WHEN clock_timestamp() > give_up;
		IF clock_timestamp() > told + interval '2 seconds' THEN
			told := clock_timestamp();
			RAISE NOTICE '% of % homes released to region "%"', cardinality(moved), cardinality(homes), target;
		END IF;
	END LOOP;

	PERFORM homing._peer_post('source', 'SELECT homing._announce_move($1::int4, $2::int2, NULL)', space::text, target_id::text);
	SELECT q[1]::int INTO missing FROM homing._peer_query('target', 'SELECT homing._await_acceptance($1::int4, $2::int4[], $3::int8[], $4::int)',
		space::text, moved::text, versions::text, patience_ms::text) q;
	IF missing > 0 THEN
		RAISE WARNING '% homes are still on their way to region "%"', missing, target
			USING HINT = 'They arrive when it has received what region "' || source || '" wrote before. homing.moves shows them.';
	END IF;
	PERFORM homing._peer_take('source');
	PERFORM homing._peer_close('source');
	PERFORM homing._peer_close('target');
	IF cardinality(todo) > 0 THEN
		RAISE EXCEPTION 'could not hand over % of % homes to region "%": they are being written', cardinality(todo),
			cardinality(homes), target USING ERRCODE = 'lock_not_available',
				DETAIL = format('Transactions that write these homes did not end in time: %s.', array_to_string(todo, ', ')),
				HINT = format('End long transactions at region "%s", or raise homing.handover_timeout, and call the function again.', source);
	END IF;
	RETURN cardinality(moved);
END
$$;

-- The keyspace of a table whose homes somebody wants to move.
CREATE FUNCTION homing._movable(relation regclass) RETURNS int4
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	space int4;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION 'the table must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM homing._check_owner(relation);
	PERFORM homing._require_homed(relation);
	SELECT t.keyspace_id INTO space FROM homing.homed_table t
	WHERE t.relid = relation AND NOT t.closing AND EXISTS (SELECT FROM homing.activation x WHERE x.table_id = t.table_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'table "%" is not active', relation USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'homing.tables shows its state. Try again when every region has the table.';
	END IF;
	RETURN space;
END
$$;

CREATE FUNCTION homing.hand_over("table" regclass, from_region text, to_region text, homes int[] DEFAULT NULL) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	space CONSTANT int4 := homing._movable($1);
	source int2;
	target int2;
	todo int4[];
	astray int4[];
BEGIN
	IF from_region IS NULL OR to_region IS NULL THEN
		RAISE EXCEPTION 'both regions must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM homing._require_clean_transaction('hand over homes');
	source := homing._require_active(from_region);
	target := homing._require_active(to_region);
	IF source = target THEN
		RAISE EXCEPTION 'old and new owner are the same region "%"', to_region USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF homes IS NOT NULL THEN
		SELECT array_agg(h) INTO astray FROM unnest(homes) h
		WHERE NOT EXISTS (SELECT FROM homing._home_states(space) s WHERE s.home = h AND s.owner IN (source, target));
		IF astray IS NOT NULL THEN
			RAISE EXCEPTION 'region "%" does not own home %', from_region, array_to_string(astray, ', ')
				USING ERRCODE = 'invalid_parameter_value', HINT = 'homing.homes shows who owns the homes.';
		END IF;
	END IF;
	SELECT array_agg(s.home ORDER BY s.home) INTO todo FROM homing._home_states(space) s
	WHERE s.owner = source AND (homes IS NULL OR s.home = ANY (homes));
	IF todo IS NULL THEN
		RETURN 0;
	END IF;
	RETURN homing._move_homes(space, from_region, to_region, todo);
END
$$;
COMMENT ON FUNCTION homing.hand_over(regclass, text, text, int[]) IS
	'moves homes of the table''s keyspace, all or those listed, from one region to another while they are written; returns how many. Each moves by itself: a call that fails or is interrupted leaves every home with one owner, and can be repeated. 08001 when a region cannot be reached, 55000 when the new owner lags behind, 55P03 when long transactions hold homes longer than homing.handover_timeout';

CREATE FUNCTION homing._check_weights(weights jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrong record;
BEGIN
	IF weights IS NULL OR jsonb_typeof(weights) <> 'object' THEN
		RAISE EXCEPTION 'weights must be a JSON object of regions' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'As in: {"us": 2, "eu": 1}.';
	END IF;
	PERFORM homing._require_active(w.key) FROM jsonb_each(weights) w;
	SELECT w.key, w.value INTO wrong FROM jsonb_each(weights) w
	WHERE jsonb_typeof(w.value) <> 'number' OR (w.value)::numeric < 0 OR (w.value)::numeric > 1000000000;
	IF FOUND THEN
		RAISE EXCEPTION 'invalid weight % of region "%"', wrong.value, wrong.key USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A weight is a number that is not negative.';
	END IF;
	IF NOT EXISTS (SELECT FROM jsonb_each(weights) w WHERE (w.value)::numeric > 0) THEN
		RAISE EXCEPTION 'at least one region must have a weight above 0' USING ERRCODE = 'invalid_parameter_value';
	END IF;
END
$$;

CREATE FUNCTION homing.plan_repartition("table" regclass, weights jsonb)
RETURNS TABLE (home int, from_region text, to_region text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	space CONSTANT int4 := homing._movable($1);
	owners int2[];
	planned int2[];
BEGIN
	PERFORM homing._require_serving();
	PERFORM homing._check_weights(weights);
	SELECT array_agg(s.owner ORDER BY s.home) INTO owners FROM homing._home_states(space) s;
	IF array_position(owners, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'homes of lost regions without heirs cannot be moved' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	SELECT homing._repartition(owners, array_agg(homing._require_active(w.key) ORDER BY w.key),
		array_agg((w.value)::float8 ORDER BY w.key)) INTO planned FROM jsonb_each(weights) w;
	RETURN QUERY
		SELECT o.place::int - 1, f.name, t.name
		FROM unnest(owners, planned) WITH ORDINALITY AS o(owner, new_owner, place)
		JOIN homing.member f ON f.region_id = o.owner JOIN homing.member t ON t.region_id = o.new_owner
		WHERE o.owner <> o.new_owner ORDER BY o.place;
END
$$;
COMMENT ON FUNCTION homing.plan_repartition(regclass, jsonb) IS
	'the moves that repartition would make: as few as reach the weights. A region that is not named gives its homes away';

CREATE FUNCTION homing.repartition("table" regclass, weights jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	space CONSTANT int4 := homing._movable($1);
	move record;
	moved int := 0;
BEGIN
	PERFORM homing._require_clean_transaction('hand over homes');
	FOR move IN
		SELECT p.from_region, p.to_region, array_agg(p.home ORDER BY p.home) AS homes
		FROM homing.plan_repartition($1, weights) p GROUP BY 1, 2 ORDER BY 1, 2
	LOOP
		moved := moved + homing._move_homes(space, move.from_region, move.to_region, move.homes);
	END LOOP;
	RETURN moved;
END
$$;
COMMENT ON FUNCTION homing.repartition(regclass, jsonb) IS
	'moves homes of the table''s keyspace until each region''s share is as its weight; returns how many were moved. plan_repartition shows the moves beforehand';

CREATE VIEW homing.moves AS
SELECT k.name AS keyspace, r.home, f.name AS from_region, t.name AS to_region,
	CASE WHEN a.at IS NULL THEN 'in transit' ELSE 'done' END AS state, r.at AS released_at, a.at AS accepted_at
FROM homing.ownership r
JOIN homing.keyspace k USING (keyspace_id)
JOIN homing.member f ON f.region_id = r.from_region
JOIN homing.member t ON t.region_id = r.to_region
LEFT JOIN LATERAL (SELECT min(o.at) AS at FROM homing.ownership o WHERE o.keyspace_id = r.keyspace_id AND o.home = r.home
	AND o.version = r.version AND o.kind = 'accept') a ON true
WHERE r.kind = 'release'
ORDER BY r.at, k.name, r.home;
COMMENT ON VIEW homing.moves IS 'hand-overs of homes, as far as this region has heard of them; older ones of a home are forgotten';
COMMENT ON COLUMN homing.moves.keyspace IS 'name of the keyspace that co-located tables share';
COMMENT ON COLUMN homing.moves.home IS 'number of the home, from 0';
COMMENT ON COLUMN homing.moves.from_region IS 'region that gave the home away';
COMMENT ON COLUMN homing.moves.to_region IS 'region that it was given to; if that was lost meanwhile, its heir took it';
COMMENT ON COLUMN homing.moves.state IS 'in transit: writes of the home wait until the new owner has received all of the old one''s; done';
COMMENT ON COLUMN homing.moves.released_at IS 'when the old owner stopped serving it, by its clock';
COMMENT ON COLUMN homing.moves.accepted_at IS 'when the new owner began to serve it, by its clock';
