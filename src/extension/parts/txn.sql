-- Outcomes of transactions that were forwarded.
--
-- The transaction itself inserts its row, at the region where it commits; the row reaches every region with
-- what the transaction wrote. committed = false: it can never commit any more.

CREATE TABLE homing.outcome (
	id uuid NOT NULL,
	bucket int2 NOT NULL,
	committed boolean NOT NULL,
	rows bigint NOT NULL DEFAULT 0,   -- of its last statement
	PRIMARY KEY (id, bucket)
) PARTITION BY LIST (bucket);
CREATE TABLE homing.outcome_0 PARTITION OF homing.outcome FOR VALUES IN (0);
CREATE TABLE homing.outcome_1 PARTITION OF homing.outcome FOR VALUES IN (1);
CREATE TABLE homing.outcome_2 PARTITION OF homing.outcome FOR VALUES IN (2);
COMMENT ON TABLE homing.outcome IS 'how forwarded transactions ended, for an hour at least';

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

CREATE FUNCTION homing._last_commit() RETURNS bigint
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_last_commit';
COMMENT ON FUNCTION homing._last_commit() IS
	'position in WAL where this session''s last commit ended';

CREATE FUNCTION homing.outcome(token uuid) RETURNS text
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_outcome';
COMMENT ON FUNCTION homing.outcome(uuid) IS
	'how a transaction ended whose outcome was reported as unknown (08007): committed; aborted, also for good; or unknown, when the region cannot be reached or it is too long ago. Waits up to homing.outcome_timeout';

-- --- forgetting -------------------------------------------------------------------------------------------

CREATE FUNCTION homing._bucket_to_empty() RETURNS int2
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_bucket_to_empty';

-- Empties the bucket of two hours ago. The truncation is of a partition, so it is not replicated: every
-- region forgets for itself.
CREATE FUNCTION homing._forget_outcomes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bucket CONSTANT text := 'homing.outcome_' || homing._bucket_to_empty();
BEGIN
	IF bucket IS NULL OR pg_relation_size(bucket::regclass) = 0 THEN
		RETURN;
	END IF;
	EXECUTE 'TRUNCATE ' || bucket;
END
$$;
COMMENT ON FUNCTION homing._forget_outcomes() IS
	'empties the bucket of outcomes that nobody may ask for any more';
