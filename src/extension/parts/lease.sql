-- Leases: what a voter answers a region that wants to go on serving (core/lease, pg/lease).

CREATE FUNCTION homing._lock_votes(for_vote boolean) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_lock_votes';
COMMENT ON FUNCTION homing._lock_votes(boolean) IS
	'keeps promises and votes of this region apart, to the end of the transaction';

CREATE FUNCTION homing._promise(region int2, lease_ms int4) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_promise';
COMMENT ON FUNCTION homing._promise(int2, int4) IS
	'promises not to vote for the loss of the region for as long as it may hold such a lease; false: promises are withheld from it';

CREATE FUNCTION homing._promised_for(region int2, longest_lease_ms int4) RETURNS bigint
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_promised_for';
COMMENT ON FUNCTION homing._promised_for(int2, int4) IS
	'time until the promise to the region has ended, in ms; after a restart, the longest that could have been promised';

CREATE FUNCTION homing._withhold(region int2, ms int4) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_withhold';
COMMENT ON FUNCTION homing._withhold(int2, int4) IS
	'promises nothing to the region for so long';

CREATE FUNCTION homing._silent_for(region int2) RETURNS bigint
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_silent_for';
COMMENT ON FUNCTION homing._silent_for(int2) IS
	'time since the region has asked this one for a lease, or since this server started, in ms';

CREATE FUNCTION homing._lease_left() RETURNS interval
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_lease_left';
COMMENT ON FUNCTION homing._lease_left() IS
	'for how long this region may serve; NULL: it needs no lease';

CREATE FUNCTION homing._await_recount(epoch bigint) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_await_recount';
COMMENT ON FUNCTION homing._await_recount(bigint) IS
	'waits until this region serves by no lease that was counted by an older map: of two maps in turn any two majorities share a voter, of three they need not. Ends at the latest with the lease that stands';

CREATE FUNCTION homing._check_lease() RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_check_lease';
COMMENT ON FUNCTION homing._check_lease() IS
	'raises 25006 when this region may not serve';

CREATE FUNCTION homing.confirm_serving(reason text DEFAULT NULL) RETURNS void
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM homing.local_region WHERE fenced IS NOT NULL) THEN
		RAISE EXCEPTION 'this region is fenced: %', (SELECT fenced FROM homing.local_region)
			USING ERRCODE = 'read_only_sql_transaction';
	END IF;
	INSERT INTO homing.event (at, epoch, kind, region, actor, reason)
	SELECT clock_timestamp(), c.epoch, 'confirm_serving', m.name, session_user, confirm_serving.reason
	FROM homing.local_region l JOIN homing.member m USING (region_id) CROSS JOIN homing.cluster_map c;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of a cluster' USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	PERFORM homing._confirm_serving();
END
$$;
COMMENT ON FUNCTION homing.confirm_serving(text) IS
	'lets a region serve whose server was restarted while it reaches no other one, without leases: your word that it was not declared lost';

CREATE FUNCTION homing._confirm_serving() RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_confirm_serving';

-- The members and witnesses whose majority counts.
CREATE FUNCTION homing._voters(map jsonb) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg((m->>'id')::int2 ORDER BY (m->>'id')::int2), '{}')
	FROM jsonb_array_elements(map->'members' || coalesce(map->'witnesses', '[]')) m WHERE m->>'status' = 'active'
$$;

-- Whether the region is lost, or about to be, in what this voter has accepted: it then has voted against it,
-- whether or not that has become the map.
CREATE FUNCTION homing._has_voted_against(region int2) RETURNS boolean
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT EXISTS (
			SELECT FROM homing.acceptor a CROSS JOIN jsonb_array_elements(a.value->'members') m
			WHERE (m->>'id')::int2 = region AND (m->>'status' = 'lost' OR (m->>'pending')::boolean)));
END
$$;

-- A lease for the caller, from this voter. Without `refusal` it is given; `applied` is how far the caller's stream is
-- applied here: should the caller not have written so much, it went back in time.
CREATE FUNCTION homing._renew_lease(cluster uuid, caller int2, epoch bigint, lease_ms int4,
	OUT refusal text, OUT applied pg_lsn)
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here homing.local_region;
	known homing.member;
	mine bigint;
BEGIN
	IF lease_ms IS NULL OR lease_ms NOT BETWEEN 1 AND 600000 THEN
		RAISE EXCEPTION 'invalid duration of a lease: % ms', lease_ms USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NOT homing._lock_votes(false) THEN
		refusal := 'the voter is voting';
		RETURN;
	END IF;
	SELECT * INTO here FROM homing.local_region l WHERE l.cluster_id = cluster;
	IF NOT FOUND THEN
		refusal := 'the voter is not a region of this cluster';
		RETURN;
	END IF;
	IF here.fenced IS NOT NULL THEN
		refusal := 'the voter is fenced';
		RETURN;
	END IF;
	SELECT m.epoch INTO mine FROM homing.cluster_map m;
	SELECT * INTO known FROM homing.member m WHERE m.region_id = caller;
	IF NOT FOUND OR known.status <> 'active' OR known.pending OR homing._has_voted_against(caller) THEN
		refusal := 'the voter does not call the region active';
		RETURN;
	END IF;
	-- Who does not know the newest map might serve by an older one.
	IF epoch IS NULL OR epoch < mine THEN
		refusal := 'the voter has a newer cluster map';
		RETURN;
	END IF;
	-- Whether that is on the disk here does not matter, and would have to be waited for.
	applied := coalesce((SELECT pg_replication_origin_progress('pg_' || s.oid, false) FROM pg_subscription s
		JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
		WHERE s.subname = homing._stream_name(caller, here.region_id)), '0/0');
	UPDATE homing.acceptor a SET longest_lease = lease_ms WHERE a.longest_lease < lease_ms;
	IF NOT homing._promise(caller, lease_ms) THEN
		refusal := 'the region is being declared lost';
		RETURN;
	END IF;
END
$$;
COMMENT ON FUNCTION homing._renew_lease(uuid, int2, bigint, int4) IS
	'a lease for the region that asks, from this voter, or why not; and how far the stream of that region is applied here';
