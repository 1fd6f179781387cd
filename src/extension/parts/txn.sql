-- Outcomes of transactions that were forwarded.
--
-- The transaction itself inserts its row, at the region where it commits; the row reaches every region with
-- what the transaction wrote. committed = false: it can never commit any more.

CREATE TABLE homing.outcome (
	id uuid NOT NULL,
	bucket int2 NOT NULL,
	committed boolean NOT NULL,
	rows bigint NOT NULL DEFAULT 0,   -- of its last statement
	parts uuid[],                     -- of the decision about a transaction over several regions: under which its parts commit
	PRIMARY KEY (id, bucket)
) PARTITION BY LIST (bucket);
CREATE TABLE homing.outcome_0 PARTITION OF homing.outcome FOR VALUES IN (0);
CREATE TABLE homing.outcome_1 PARTITION OF homing.outcome FOR VALUES IN (1);
CREATE TABLE homing.outcome_2 PARTITION OF homing.outcome FOR VALUES IN (2);
CREATE INDEX ON homing.outcome (id) WHERE parts IS NOT NULL;
COMMENT ON TABLE homing.outcome IS 'how forwarded transactions ended, for an hour at least';

CREATE TABLE homing.awaited_part (
	part uuid PRIMARY KEY,
	decision uuid NOT NULL
);
COMMENT ON TABLE homing.awaited_part IS 'parts that had not arrived here when the decision to commit them was forgotten; local';

CREATE FUNCTION homing._greet(region int2) RETURNS int4
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_greet';
COMMENT ON FUNCTION homing._greet(int2) IS
	'raises unless this is the region; returns max_prepared_transactions';

CREATE FUNCTION homing._keep_outcome(token uuid) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_keep_outcome';
COMMENT ON FUNCTION homing._keep_outcome(uuid) IS
	'keeps, in the transaction, that it has committed';

CREATE FUNCTION homing._settle_outcome(token uuid, OUT committed boolean, OUT rows bigint)
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_settle_outcome';
COMMENT ON FUNCTION homing._settle_outcome(uuid) IS
	'whether the transaction of the token has committed at this region; if not, it never will. Waits while it is running';

CREATE FUNCTION homing._rule_out(token uuid) RETURNS text
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_rule_out';
COMMENT ON FUNCTION homing._rule_out(uuid) IS
	'the decision about a transaction that this region coordinates: committed; never, from now on for good; or forgotten, when it is too long ago';

CREATE FUNCTION homing._last_commit() RETURNS bigint
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_last_commit';
COMMENT ON FUNCTION homing._last_commit() IS
	'position in WAL where this session''s last commit ended';

CREATE FUNCTION homing.outcome(token uuid) RETURNS text
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_outcome';
COMMENT ON FUNCTION homing.outcome(uuid) IS
	'how a transaction ended whose outcome was reported as unknown (08007): committed; aborted, also for good; or unknown, when the region cannot be reached or it is too long ago. Waits up to homing.outcome_timeout';

CREATE FUNCTION homing._final_position(region int2) RETURNS pg_lsn
STABLE LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.final_lsn FROM homing.member m WHERE m.region_id = region
$$;
COMMENT ON FUNCTION homing._final_position(int2) IS
	'position up to which the stream of a lost region has survived';

CREATE FUNCTION homing.causal_token() RETURNS text
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_causal_token';
COMMENT ON FUNCTION homing.causal_token() IS
	'what this session has committed so far, in any region, as a short text for homing.wait_for in another session or region. Call it in a transaction of its own';

CREATE FUNCTION homing.wait_for(token text, timeout interval DEFAULT '10 seconds') RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_wait_for';
COMMENT ON FUNCTION homing.wait_for(text, interval) IS
	'waits until what the token stands for can be read in this region; false if it has not arrived in time. Later reads of the session wait for it too (homing.read_consistency)';

-- --- forgetting -------------------------------------------------------------------------------------------

CREATE FUNCTION homing._bucket_to_empty() RETURNS int2
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_bucket_to_empty';

-- Empties the bucket of two hours ago. The truncation is of a partition, so it is not replicated: every
-- region forgets for itself. Not while a prepared part waits here for a decision, or what was lost is not known here.
CREATE FUNCTION homing._forget_outcomes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	bucket CONSTANT text := 'homing.outcome_' || homing._bucket_to_empty();
BEGIN
	IF bucket IS NULL OR pg_relation_size(bucket::regclass) = 0 OR EXISTS (SELECT FROM homing._parts)
		OR EXISTS (SELECT FROM homing.local_region l WHERE l.missing <> '{}') THEN
		RETURN;
	END IF;
	-- One that was decided while its region was declared lost has not been noted yet.
	PERFORM homing._note_lost_parts();
	EXECUTE format('INSERT INTO homing.awaited_part
		SELECT p.part, o.id FROM %s o CROSS JOIN unnest(o.parts) AS p(part) WHERE o.parts IS NOT NULL
		ON CONFLICT DO NOTHING', bucket);
	DELETE FROM homing.awaited_part a
	WHERE EXISTS (SELECT FROM homing.outcome o WHERE o.id = a.part) OR EXISTS (SELECT FROM homing.lost_part n WHERE n.part = a.part);
	EXECUTE 'TRUNCATE ' || bucket;
END
$$;
COMMENT ON FUNCTION homing._forget_outcomes() IS
	'empties the bucket of outcomes that nobody may ask for any more';

-- --- parts that were lost ---------------------------------------------------------------------------------

-- A region that is lost may have prepared its part of a transaction that then was decided to commit, and not have
-- sent that it did. The part is lost with it. A part inserts its own token as it commits, so that a survivor tells by
-- the tokens that its decision names and that never arrived.

CREATE TABLE homing.lost_part (
	part uuid NOT NULL,
	region_id int2 NOT NULL,      -- who noticed
	decision uuid NOT NULL,
	lost int2 NOT NULL,
	coordinator int2 NOT NULL,
	at timestamptz NOT NULL,
	PRIMARY KEY (part, region_id)
);
COMMENT ON TABLE homing.lost_part IS 'parts of committed transactions that were lost with the region where they were prepared; replicated, INSERT-only';

CREATE FUNCTION homing._token_region(token uuid) RETURNS int2
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_token_region';
COMMENT ON FUNCTION homing._token_region(uuid) IS
	'the region where the transaction of the token commits';

-- Notes the parts that went down with lost regions, when all that survives of these has been applied here. A region
-- looks at what it decided itself, which it has for sure, and at what lost coordinators decided, of which all
-- survivors have the same.
CREATE FUNCTION homing._note_lost_parts() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO homing.lost_part
	SELECT d.part, l.region_id, d.decision, p.region_id, c.region_id, clock_timestamp()
	FROM (SELECT o.id, unnest(o.parts) FROM homing.outcome o WHERE o.parts IS NOT NULL
		  UNION ALL
		  SELECT a.decision, a.part FROM homing.awaited_part a) AS d(decision, part)
	JOIN homing.local_region l ON l.fenced IS NULL AND l.missing = '{}'
	JOIN homing.member p ON p.region_id = homing._token_region(d.part) AND p.status = 'lost'
	JOIN homing.member c ON c.region_id = homing._token_region(d.decision) AND (c.region_id = l.region_id OR c.status = 'lost')
	WHERE NOT EXISTS (SELECT FROM homing.outcome o WHERE o.id = d.part)
	ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION homing._note_lost_parts() IS
	'notes the parts of committed transactions that were lost with their regions';

-- --- prepared parts of transactions over several regions -------------------------------------------------

CREATE TABLE homing.resolution (
	gid text PRIMARY KEY,
	commit boolean NOT NULL
);
COMMENT ON TABLE homing.resolution IS 'what an operator has decided about prepared parts; local, the worker carries it out';

-- OFFSET 0: names that users gave are not taken apart.
CREATE VIEW homing._parts AS
SELECT p.gid, p.prepared, p.owner, split_part(p.gid, ':', 3)::int2 AS coordinator, split_part(p.gid, ':', 8)::uuid AS token
FROM (SELECT x.gid, x.prepared, x.owner FROM pg_prepared_xacts x JOIN (SELECT * FROM homing.local_region LIMIT 1) l
		ON x.gid ~ ('^homing:' || left(l.cluster_id::text, 8)
			|| '(:[0-9]{1,5})(:[0-9]{1,19}){4}:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}:[0-9.]+$')
	WHERE x.database = current_database() OFFSET 0) p;
COMMENT ON VIEW homing._parts IS 'prepared parts of transactions of this cluster in this database';

-- What core::ResolveInDoubt needs to know. The position is read before the decision that it is about.
CREATE FUNCTION homing._doubts(OUT gid text, OUT resolution boolean, OUT decision boolean, OUT coordinator text,
	OUT lost boolean, OUT complete boolean, OUT applied numeric, OUT age bigint, OUT lost_here boolean)
RETURNS SETOF record
VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	part record;
	stream text;
BEGIN
	lost_here := EXISTS (SELECT FROM homing.local_region l JOIN homing.member m USING (region_id) WHERE m.status = 'lost');
	FOR part IN SELECT * FROM homing._parts LOOP
		gid := part.gid;
		SELECT m.name, m.status = 'lost', m.status = 'lost' AND m.region_id <> ALL (l.missing) INTO coordinator, lost, complete
		FROM homing.member m CROSS JOIN homing.local_region l WHERE m.region_id = part.coordinator;
		SELECT 'pg_' || s.oid INTO stream
		FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
		JOIN pg_replication_origin o ON o.roname = 'pg_' || s.oid
		WHERE s.subname = homing._stream_name(part.coordinator, (SELECT l.region_id FROM homing.local_region l));
		applied := coalesce(pg_replication_origin_progress(stream, false) - '0/0'::pg_lsn, 0);
		decision := (SELECT o.committed FROM homing.outcome o WHERE o.id = part.token);
		resolution := (SELECT r.commit FROM homing.resolution r WHERE r.gid = part.gid);
		age := extract(epoch FROM clock_timestamp() - part.prepared) * 1000;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing._doubts() IS
	'what this region knows about its prepared parts; age in ms, applied as a number of bytes';

CREATE FUNCTION homing.resolve(gid text, decision text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF decision IS NULL OR decision NOT IN ('commit', 'abort') THEN
		RAISE EXCEPTION 'invalid decision %', coalesce(quote_literal(decision), 'NULL') USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It is ''commit'' or ''abort''.';
	END IF;
	IF NOT EXISTS (SELECT FROM homing._parts p WHERE p.gid = resolve.gid) THEN
		RAISE EXCEPTION 'no prepared part "%" in this region', gid USING ERRCODE = 'undefined_object',
			HINT = 'They are listed in homing.in_doubt.';
	END IF;
	INSERT INTO homing.resolution VALUES (gid, decision = 'commit')
	ON CONFLICT ON CONSTRAINT resolution_pkey DO UPDATE SET commit = excluded.commit;
	INSERT INTO homing.event (at, epoch, kind, region, actor, reason)
	SELECT clock_timestamp(), c.epoch, 'resolve', m.name, session_user, format('%s %s', decision, gid)
	FROM homing.local_region l JOIN homing.member m USING (region_id) CROSS JOIN homing.cluster_map c;
END
$$;
COMMENT ON FUNCTION homing.resolve(text, text) IS
	'decides by hand about a part of a transaction that is in doubt (homing.in_doubt): commit or abort. Decide the same at every region; the worker carries it out within homing.probe_interval, unless the decision of its coordinator arrives first';

-- --- what was forwarded -----------------------------------------------------------------------------------

CREATE FUNCTION homing._forward_stats(OUT region_id int2, OUT statements bigint, OUT rows bigint,
	OUT connection_errors bigint, OUT conflicts bigint, OUT constraint_errors bigint, OUT cancels bigint, OUT other_errors bigint,
	OUT connections bigint, OUT connect_us bigint, OUT execute_us bigint, OUT commits bigint, OUT commit_us bigint,
	OUT prepared bigint, OUT decided bigint, OUT rolled_back bigint,
	OUT read_waits bigint, OUT read_wait_us bigint, OUT read_timeouts bigint, OUT since timestamptz)
RETURNS SETOF record
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_forward_stats';
COMMENT ON FUNCTION homing._forward_stats() IS 'counters of this database in shared memory; times in microseconds';

CREATE FUNCTION homing.stat_forwarding_reset() RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_stat_forwarding_reset';
COMMENT ON FUNCTION homing.stat_forwarding_reset() IS 'sets the counters of homing.stat_forwarding in this database to zero';

CREATE FUNCTION homing._sessions(OUT local_pid int4, OUT user_id oid, OUT region_id int2, OUT remote_pid int4, OUT state text,
	OUT transaction_start timestamptz, OUT connected timestamptz)
RETURNS SETOF record
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_sessions';
COMMENT ON FUNCTION homing._sessions() IS 'connections that sessions of this database have to other regions';

-- --- deadlocks over several regions -----------------------------------------------------------------------

-- For core::WaitGraph. A prepared transaction that is waited for has no process to name.
CREATE FUNCTION homing._wait_graph() RETURNS text
VOLATILE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(string_agg(line, E'\n'), '')
	FROM (
		SELECT format('w,%s,%s,%s,%s', w.pid, b.pid, (extract(epoch FROM w.waitstart) * 1000000)::bigint,
			(extract(epoch FROM a.xact_start) * 1000000)::bigint)
		FROM (SELECT pid, max(waitstart) AS waitstart FROM pg_locks WHERE NOT granted AND waitstart IS NOT NULL GROUP BY pid) w
		JOIN pg_stat_activity a ON a.pid = w.pid AND a.xact_start IS NOT NULL
		CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(w.pid))) b (pid)
		WHERE b.pid > 0
		UNION ALL
		SELECT format('b,%s,%s,%s,%s', s.local_pid, s.region_id, s.remote_pid,
			(extract(epoch FROM s.transaction_start) * 1000000)::bigint)
		FROM homing._sessions() s
		WHERE s.transaction_start IS NOT NULL AND s.remote_pid IS NOT NULL
	) graph (line)
$$;
COMMENT ON FUNCTION homing._wait_graph() IS
	'who waits for whom in this server (w,WAITER,BLOCKER,SINCE,TRANSACTION), and who works for whom elsewhere (b,PID,REGION,PID THERE,TRANSACTION); times in microseconds';

CREATE FUNCTION homing._cancel_deadlocked(pid int4, since bigint) RETURNS boolean
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_cancel_deadlocked';
COMMENT ON FUNCTION homing._cancel_deadlocked(int4, bigint) IS
	'cancels the process with 40P01 if it still waits for a lock since then (microseconds)';
