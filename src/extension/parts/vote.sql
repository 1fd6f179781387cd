-- The register that holds the cluster map while a loss is decided (core/register): what a voter does, and how a
-- majority is asked.
--
-- Maps that everybody agrees on, such as those of join_cluster, do not go through it. A voter that has accepted
-- another map of their epoch refuses them, so they and a loss never decide differently.

CREATE FUNCTION homing._on_prepare(round bigint, proposer int2, OUT promised boolean, OUT newest bigint, OUT newest_to int2,
	OUT accepted bigint, OUT accepted_from int2, OUT value text)
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_on_prepare';
COMMENT ON FUNCTION homing._on_prepare(bigint, int2) IS
	'what this voter answers a proposer that prepares; durable when the transaction has committed';

CREATE FUNCTION homing._on_accept(round bigint, proposer int2, value text) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_on_accept';
COMMENT ON FUNCTION homing._on_accept(bigint, int2, text) IS
	'whether this voter accepts the map; durable when the transaction has committed';

-- One attempt after another to make `map` the value of the register. `base` is the epoch it was made from. `value`
-- is what has been decided: the map, or what somebody else had begun to decide. NULL: nothing within `patience` ms,
-- and why. Requires: sessions "step <id>" with all `reached` voters.
CREATE FUNCTION homing._propose(voters int2[], reached int2[], proposer int2, first_round bigint, base bigint, map text,
	patience int4, OUT value text, OUT answered int2[], OUT obstacle text)
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_propose';
COMMENT ON FUNCTION homing._propose(int2[], int2[], int2, bigint, bigint, text, int4) IS
	'lets a majority of the voters decide on a cluster map';

-- Who may ask this voter. A voter that is fenced may not know what it has promised.
CREATE FUNCTION homing._check_proposer(cluster uuid, round bigint, proposer int2) RETURNS void
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here homing.local_region;
BEGIN
	SELECT * INTO here FROM homing.local_region l WHERE l.cluster_id = cluster;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of that cluster' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF here.fenced IS NOT NULL THEN
		RAISE EXCEPTION 'this region is fenced and does not vote: %', here.fenced USING ERRCODE = 'read_only_sql_transaction';
	END IF;
	IF NOT EXISTS (SELECT FROM homing.member m WHERE m.region_id = proposer AND m.status = 'active') THEN
		RAISE EXCEPTION 'region % may not propose a cluster map', proposer USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- The number of a ballot is used up for ever.
	IF round IS NULL OR round < 1 OR round > (SELECT a.promised_round FROM homing.acceptor a) + 1000000 THEN
		RAISE EXCEPTION 'invalid number of a ballot: %', round USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- What is answered must be on disk here, and nowhere else.
	PERFORM set_config('synchronous_commit', 'local', true);
	PERFORM homing._lock_votes(true);
END
$$;

CREATE FUNCTION homing._prepare(cluster uuid, round bigint, proposer int2, OUT promised boolean, OUT newest bigint,
	OUT newest_to int2, OUT accepted bigint, OUT accepted_from int2, OUT value text)
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._check_proposer(cluster, round, proposer);
	SELECT * INTO promised, newest, newest_to, accepted, accepted_from, value FROM homing._on_prepare(round, proposer);
END
$$;
COMMENT ON FUNCTION homing._prepare(uuid, bigint, int2) IS
	'first step of a proposal, at one voter';

CREATE FUNCTION homing._check_map(cluster uuid, map jsonb) RETURNS void
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF map IS NULL OR length(map::text) > 65536 OR jsonb_typeof(map) <> 'object'
		OR map->>'cluster' IS DISTINCT FROM cluster::text
		OR jsonb_typeof(map->'epoch') IS DISTINCT FROM 'number' OR (map->>'epoch')::numeric NOT BETWEEN 1 AND 9000000000000000000
		OR jsonb_typeof(map->'members') IS DISTINCT FROM 'array'
		OR EXISTS (SELECT FROM jsonb_array_elements(map->'members') m
				   WHERE jsonb_typeof(m->'id') IS DISTINCT FROM 'number' OR (m->>'id')::numeric NOT BETWEEN 1 AND 32767
					OR m->>'status' IS NULL OR m->>'status' NOT IN ('joining', 'active', 'lost')
					OR m->>'name' IS NULL OR m->>'name' !~ '^[a-z][a-z0-9_]{0,62}$')
		-- Members are neither made nor forgotten by a vote, and it leaves witnesses alone.
		OR (SELECT array_agg((m->>'id')::int2 ORDER BY (m->>'id')::int2) FROM jsonb_array_elements(map->'members') m)
			IS DISTINCT FROM (SELECT array_agg(k.region_id ORDER BY k.region_id) FROM homing.member k)
		OR map->'witnesses' IS DISTINCT FROM homing._map()->'witnesses' THEN
		RAISE EXCEPTION 'invalid cluster map' USING ERRCODE = 'invalid_parameter_value';
	END IF;
END
$$;

-- Accepts a map in which a region is lost, or about to be, only when nothing that was promised to it stands. Until
-- then nothing more is promised to it: one that goes on renewing its lease could never be lost. `wait_ms`: when to
-- ask again.
CREATE FUNCTION homing._accept(cluster uuid, round bigint, proposer int2, map jsonb, OUT accepted boolean, OUT wait_ms bigint)
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	longest int4;
	mine bigint;
	region record;
	applied pg_lsn;
BEGIN
	PERFORM homing._check_proposer(cluster, round, proposer);
	PERFORM homing._check_map(cluster, map);
	accepted := false;
	wait_ms := 0;
	SELECT c.epoch INTO mine FROM homing.cluster_map c;
	IF (map->>'epoch')::bigint <= mine AND homing._map_digest(map) IS DISTINCT FROM homing._map_digest() THEN
		RETURN;
	END IF;
	SELECT greatest(a.longest_lease, 1) INTO longest FROM homing.acceptor a;
	FOR region IN
		SELECT k.region_id, k.name, m.status, m.final_lsn
		FROM jsonb_to_recordset(map->'members') AS m(id int2, status text, pending boolean, final_lsn pg_lsn)
		JOIN homing.member k ON k.region_id = m.id
		WHERE k.status = 'active' AND (m.status = 'lost' OR m.pending)
	LOOP
		IF NOT homing._has_voted_against(region.region_id) THEN
			wait_ms := greatest(wait_ms, homing._promised_for(region.region_id, longest));
			PERFORM homing._withhold(region.region_id, (homing._promised_for(region.region_id, longest) + 5000)::int4);
		END IF;
		applied := (homing._applied_positions()->>region.region_id::text)::pg_lsn;
		IF region.status = 'lost' AND applied > region.final_lsn THEN
			RAISE EXCEPTION 'more of region "%" is applied here than counts', region.name
				USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
	END LOOP;
	IF wait_ms = 0 THEN
		accepted := homing._on_accept(round, proposer, map::text);
	END IF;
END
$$;
COMMENT ON FUNCTION homing._accept(uuid, bigint, int2, jsonb) IS
	'second step of a proposal, at one voter';

-- What this database voted for in another cluster, or as a region that is no more.
CREATE FUNCTION homing._forget_other_votes() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE homing.acceptor a SET accepted_round = 0, accepted_from = 0, value = NULL
	WHERE a.value IS NOT NULL
$$;

-- A map that no vote was needed for must not contradict one that may have been voted for.
CREATE FUNCTION homing._check_not_voted(map jsonb) RETURNS void
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM homing.acceptor a WHERE (a.value->>'epoch')::bigint = (map->>'epoch')::bigint
			   AND homing._map_digest(a.value) <> homing._map_digest(map)) THEN
		RAISE EXCEPTION 'the loss of a region is being decided' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Finish it: call homing.declare_lost for that region again.';
	END IF;
END
$$;

-- Those that a map is about which this region has accepted and not adopted.
CREATE FUNCTION homing._unfinished_votes() RETURNS int2[]
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT coalesce(array_agg(k.region_id), '{}') FROM homing.member k CROSS JOIN homing.acceptor a CROSS JOIN homing.cluster_map c
		WHERE k.status = 'active' AND (a.value->>'epoch')::bigint > c.epoch
			AND homing._has_voted_against(k.region_id));
END
$$;

-- Regions whose loss is decided on, as far as this region knows, and not yet done.
CREATE FUNCTION homing._unfinished_losses() RETURNS text[]
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT coalesce(array_agg(k.name ORDER BY k.region_id), '{}') FROM homing.member k
		WHERE k.status = 'active' AND (k.pending OR k.region_id = ANY (homing._unfinished_votes())));
END
$$;
COMMENT ON FUNCTION homing._unfinished_losses() IS
	'regions that somebody began to declare lost and did not get to the end';

CREATE FUNCTION homing._check_no_loss() RETURNS void
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	unfinished CONSTANT text[] := homing._unfinished_losses();
BEGIN
	IF cardinality(unfinished) > 0 THEN
		RAISE EXCEPTION 'region "%" is being declared lost', unfinished[1] USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Finish it: call homing.declare_lost for that region again.';
	END IF;
END
$$;

-- Lets a majority decide. Returns what has been decided; raises when nothing could be.
CREATE FUNCTION homing._vote(map jsonb, reached int2[], purpose text) RETURNS jsonb
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l);
	base CONSTANT jsonb := homing._map();
	voters CONSTANT int2[] := homing._voters(base);
	longest int4;
	outcome record;
BEGIN
	SELECT greatest(a.longest_lease, (extract(epoch FROM current_setting('homing.lease_duration')::interval) * 1000)::int4) INTO longest
	FROM homing.acceptor a;
	SELECT * INTO outcome FROM homing._propose(voters, reached, here,
		(SELECT a.promised_round + 1 FROM homing.acceptor a), (base->>'epoch')::bigint, map::text, 2 * longest + 5000);
	IF outcome.value IS NULL THEN
		RAISE EXCEPTION 'cannot %: no majority of the regions has voted for it', purpose
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = outcome.obstacle,
				HINT = 'Try again. What has been voted for is kept; if the regions cannot agree because too many are gone, name all that are lost, and pass force => true.';
	END IF;
	RETURN jsonb_build_object('map', outcome.value::jsonb,
		'answered', (SELECT jsonb_agg(homing._member_name(base, a) ORDER BY a) FROM unnest(outcome.answered) a));
END
$$;
