-- Changes of homed tables at all regions. The protocol is told in src/write/everywhere.hpp.

CREATE FUNCTION homing._check_may_change(tables text[], truncating boolean) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_check_may_change';
COMMENT ON FUNCTION homing._check_may_change(text[], boolean) IS
	'raises unless the caller of the security definer function that calls this may change, or truncate, these homed tables';

CREATE FUNCTION homing._flush() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_flush';
COMMENT ON FUNCTION homing._flush() IS 'returns when all that was committed here is sent to the other regions, or can be';

-- Keeps writers out of all homes until the end of the transaction, and members and homed tables what they are.
CREATE FUNCTION homing._stop_writes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	timeout CONSTANT text := current_setting('lock_timeout');
BEGIN
	PERFORM homing._require_serving();
	-- Somebody who writes here and waits for a home elsewhere may wait for us there.
	IF timeout = '0' THEN
		PERFORM set_config('lock_timeout', '10s', true);
	END IF;
	PERFORM homing._lock_change();
	PERFORM homing._lock_home(k.keyspace_id, h, true)
	FROM (SELECT * FROM homing.keyspace ORDER BY keyspace_id) k, generate_series(0, k.homes - 1) h;
	PERFORM set_config('lock_timeout', timeout, true);
EXCEPTION WHEN lock_not_available THEN
	RAISE EXCEPTION 'could not stop writes of homed tables in region "%"',
		(SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id))
		USING ERRCODE = 'lock_not_available', DETAIL = 'Transactions that write homed tables, or a change of the cluster, go on for longer than lock_timeout.',
			HINT = 'Try again.';
END
$$;

-- Returns when every living region has applied what was written here.
CREATE FUNCTION homing._await_followers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._flush();
	PERFORM homing._await_follower(m.region_id, '30s')
	FROM homing.member m CROSS JOIN homing.local_region l
	WHERE m.status <> 'lost' AND m.region_id <> l.region_id ORDER BY m.region_id;
END
$$;

-- The steps of a change, at each region but the one where it was issued.
CREATE FUNCTION homing._begin_change_everywhere(tables text[], truncating boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._check_may_change(tables, truncating);
	PERFORM homing._stop_writes();
END
$$;

CREATE FUNCTION homing._await_change_everywhere(tables text[], truncating boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._check_may_change(tables, truncating);
	PERFORM homing._await_followers();
END
$$;

CREATE FUNCTION homing._prepare_change_everywhere(tables text[], truncating boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	relation regclass;
	timeout CONSTANT text := current_setting('lock_timeout');
BEGIN
	PERFORM homing._check_may_change(tables, truncating);
	IF timeout = '0' THEN
		PERFORM set_config('lock_timeout', '10s', true);
	END IF;
	FOR relation IN SELECT t::regclass FROM unnest(tables) t ORDER BY t LOOP
		EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation);
	END LOOP;
	PERFORM set_config('lock_timeout', timeout, true);
	-- For the statement that follows; the user hears its notices once.
	PERFORM set_config('homing.local_ddl', 'on', true), set_config('client_min_messages', 'error', true);
END
$$;

CREATE FUNCTION homing.run_everywhere(sql text) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_run_everywhere';
COMMENT ON FUNCTION homing.run_everywhere(text) IS
	'runs utility statements such as GRANT or CREATE FUNCTION in every region, or in none. Raises 08001 when a region cannot be reached';
