-- repair: makes the rows of a key in every region those of its home.
--
--  1. At the home: its lock keeps writers out, and every other region receives what it has written.
--  2. Each region whose rows of the key are others exchanges them, unsent: from now on it is as if it had
--     received all.
--  3. The home goes on.

CREATE FUNCTION homing._write_copy(relation regclass, statement text, rows jsonb) RETURNS bigint
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_write_copy';
COMMENT ON FUNCTION homing._write_copy(regclass, text, jsonb) IS
	'runs a statement, with $1 the rows, on a homed table in this region only; returns how many rows it wrote, or the number that it selects';

-- All rows of a key here, in one order, as texts by column.
CREATE FUNCTION homing._key_rows(relation regclass, key jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET homing.read_consistency = eventual
AS $$
DECLARE
	columns CONSTANT name[] := ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
									 AND a.attgenerated = '' ORDER BY a.attnum);
	images jsonb;
BEGIN
	EXECUTE format('SELECT coalesce(jsonb_agg(r ORDER BY r), ''[]'') FROM (SELECT jsonb_object(%L::text[], ARRAY[%s]) AS r FROM %s WHERE %s) x',
		columns::text[], (SELECT string_agg(format('%I::text', c), ', ' ORDER BY o) FROM unnest(columns) WITH ORDINALITY AS u(c, o)),
		relation, homing._row_condition(relation, key, false)) INTO images;
	RETURN images;
END
$$;

-- At the home: keeps writers of the key out until the end of the transaction. False: it is not homed here.
CREATE FUNCTION homing._hold_key(relation regclass, key text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	space CONSTANT int4 := (SELECT t.keyspace_id FROM homing.homed_table t WHERE t.relid = relation);
	bytes bytea;
	home int4;
BEGIN
	EXECUTE format('SELECT homing._key_bytes($1, %L::%s)', key, (SELECT t.key_type FROM homing._homed_name(relation) t)) INTO bytes USING relation;
	LOOP
		home := homing._key_home(space, bytes);
		PERFORM homing._lock_home(space, home, true);
		EXIT WHEN homing._key_home(space, bytes) = home;
	END LOOP;
	RETURN homing._key_owner(space, bytes) = here.region_id;
END
$$;

-- Exchanges the rows of a key. NULL: they are the same; else how many there are now.
CREATE FUNCTION homing._take_key(relation regclass, key jsonb, images jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET session_replication_role = replica
AS $$
DECLARE
	names text;
	texts text;
BEGIN
	IF homing._key_rows(relation, key) = images THEN
		RETURN NULL;
	END IF;
	SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
		string_agg(format('(r->>%L)::%s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
	INTO names, texts
	FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
	PERFORM homing._write_copy(relation, format('DELETE FROM %s WHERE %s AND $1 IS NOT NULL', relation, homing._row_condition(relation, key, false)), images);
	RETURN homing._write_copy(relation, format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM jsonb_array_elements($1) r',
		relation, names, texts), images);
END
$$;

CREATE FUNCTION homing.repair("table" regclass, VARIADIC key anycompatiblearray)
RETURNS TABLE (at_region text, key_repaired text, rows bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	relation ALIAS FOR $1;
	keys ALIAS FOR $2;
	qualified text;
	column_name name;
	one text;
	home text;
	image jsonb;
	images jsonb;
	held boolean;
	tries int;
	peer record;
BEGIN
	PERFORM homing._require_serving();
	PERFORM homing._movable(relation);
	PERFORM homing._require_clean_transaction('repair a table');
	SELECT t.qualified, t.key INTO qualified, column_name FROM homing._homed_name(relation) t;
	FOREACH one IN ARRAY keys::text[] LOOP
		IF one IS NULL THEN
			RAISE EXCEPTION 'a key must not be null' USING ERRCODE = 'null_value_not_allowed';
		END IF;
		tries := 0;
		LOOP
			home := homing._home_of_text(relation, one);
			PERFORM homing._open_step('home ' || home, homing._region_conninfo(home));
			PERFORM homing._peer_query('home ' || home, 'BEGIN');
			SELECT q[1]::boolean INTO held FROM homing._peer_query('home ' || home, 'SELECT homing._hold_key($1::regclass, $2)', qualified, one) q;
			EXIT WHEN held;
			PERFORM homing._peer_query('home ' || home, 'ROLLBACK');
			tries := tries + 1;
			IF tries = 5 THEN
				RAISE EXCEPTION 'key % moves between regions', one USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
			END IF;
			PERFORM pg_sleep(0.2);
		END LOOP;
		PERFORM homing._peer_query('home ' || home, 'SELECT homing._await_replication()');
		image := jsonb_build_object(column_name, one);
		SELECT q[1]::jsonb INTO images FROM homing._peer_query('home ' || home, 'SELECT homing._key_rows($1::regclass, $2::jsonb)', qualified, image::text) q;
		FOR peer IN SELECT m.name FROM homing.member m WHERE m.status = 'active' AND m.name <> home ORDER BY m.region_id LOOP
			PERFORM homing._open_step('copy ' || peer.name, homing._region_conninfo(peer.name));
			SELECT peer.name, one, q[1]::bigint INTO at_region, key_repaired, rows
			FROM homing._peer_query('copy ' || peer.name, 'SELECT homing._take_key($1::regclass, $2::jsonb, $3::jsonb)', qualified, image::text, images::text) q;
			IF rows IS NOT NULL THEN
				RETURN NEXT;
			END IF;
		END LOOP;
		PERFORM homing._peer_query('home ' || home, 'ROLLBACK');
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing.repair(regclass, anycompatiblearray) IS
	'makes the rows of these keys in every region those of their home, which nobody writes meanwhile; returns the regions where they were others and how many rows of the key there are. Takes effect at once, key by key. 08001 when a region cannot be reached, 57014 when it does not receive what others write';

-- --- what is kept for a region that is away ------------------------------------------------------------

-- One round of the worker: gives up regions that are away for more WAL than homing.max_retained_wal.
CREATE FUNCTION homing._bound_slots() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	most CONSTANT bigint := pg_size_bytes(current_setting('homing.max_retained_wal'));
	-- The server's own limit; past it, it gives a slot up without a word.
	hard CONSTANT bigint := pg_size_bytes(current_setting('max_slot_wal_keep_size'));
	absent record;
BEGIN
	FOR absent IN
		SELECT m.name, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) AS kept
		FROM homing.local_region l JOIN homing.member m ON m.status = 'active' AND m.region_id <> l.region_id
		JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
		WHERE hard >= 0 AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) > hard / 2
			AND NOT EXISTS (SELECT FROM homing.event e WHERE e.kind = 'retained_wal' AND e.region = m.name
							AND e.at > clock_timestamp() - interval '1 hour')
	LOOP
		PERFORM homing._record_event('retained_wal', absent.name, session_user,
			format('%s of WAL kept for it, more than half of max_slot_wal_keep_size', pg_size_pretty(absent.kept)));
		RAISE WARNING 'region "%" does not receive the changes of this region: % of WAL is kept for it', absent.name, pg_size_pretty(absent.kept)
			USING HINT = format('Its server log says why. Beyond %s (max_slot_wal_keep_size) it needs a new copy.', pg_size_pretty(hard));
	END LOOP;
	IF most = 0 THEN
		RETURN;
	END IF;
	FOR absent IN
		SELECT m.name, s.slot_name, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) AS kept
		FROM homing.local_region l JOIN homing.member m ON m.status = 'active' AND m.region_id <> l.region_id
		JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
		WHERE NOT s.active AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) > most
	LOOP
		BEGIN
			PERFORM pg_drop_replication_slot(absent.slot_name);
		EXCEPTION WHEN object_in_use THEN
			CONTINUE;  -- it is back
		END;
		PERFORM homing._record_event('needs_copy', absent.name, session_user,
			format('%s of WAL kept while it was away: it cannot catch up any more', pg_size_pretty(absent.kept)));
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing._bound_slots() IS
	'drops the streams to regions that are away for too long, and tells of those that lag far';
