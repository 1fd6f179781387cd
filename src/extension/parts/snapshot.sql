-- What another region had at one moment, and how far of each region's stream that was: for a region that joins, and for
-- one that lacks the end of a stream. Slots that begin where the snapshot ends send what it lacks, and nothing twice.

-- Waits, with writers of homed tables at the donor held up, for those that have written. Short tries: who
-- waits behind a lock that waits for a long transaction waits for that too. Our own tables come first, as in
-- a forwarded transaction.
CREATE FUNCTION homing._freeze(step text, address text, region text, purpose text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	tables CONSTANT text := (SELECT string_agg(q[1], ', ') FROM homing._peer_query(step,
		'SELECT r FROM unnest(homing._replicated_tables()) r UNION ALL SELECT relid::regclass FROM homing.homed_table') q);
BEGIN
	PERFORM homing._open_step('freeze', address);
	PERFORM homing._peer_query('freeze', 'SET lock_timeout = ''2s''');
	-- A deadlock with writers is ours to give up.
	PERFORM homing._peer_query('freeze', 'SET deadlock_timeout = ''50ms''');
	FOR attempt IN 1 .. 10 LOOP
		PERFORM homing._peer_query('freeze', 'BEGIN');
		BEGIN
			PERFORM homing._peer_query('freeze', format('LOCK TABLE %s IN SHARE MODE', tables));
			RETURN;
		EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
			PERFORM homing._peer_query('freeze', 'ROLLBACK');
		END;
		PERFORM pg_sleep(0.5);  -- for those who waited behind us
	END LOOP;
	RAISE EXCEPTION 'cannot %: writers of homed tables at region "%" did not end in time', purpose, region
		USING ERRCODE = 'lock_not_available', HINT = 'pg_stat_activity shows long transactions there: end them and try again.';
END
$$;

-- `step` is a session with the donor. The snapshot lives as long as session "snapshot"; `positions` is, by region, how
-- far of its stream is in it.
CREATE FUNCTION homing._take_snapshot(step text, address text, region text, purpose text, OUT snapshot text, OUT positions jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._open_step('snapshot', address);
	PERFORM homing._freeze(step, address, region, purpose);
	PERFORM homing._peer_query('snapshot', 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
	SELECT q[1] INTO snapshot FROM homing._peer_query('snapshot', 'SELECT pg_export_snapshot()') q;
	SELECT q[1]::jsonb INTO positions FROM homing._peer_query(step,
		'SELECT coalesce(jsonb_object_agg(m.region_id, pg_replication_origin_progress(''pg_'' || s.oid, false)), ''{}'')
		 FROM homing.member m CROSS JOIN homing.local_region l
		 JOIN pg_subscription s ON s.subname = homing._stream_name(m.region_id, l.region_id)
		 JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()') q;
	-- Its own position. Everything before is flushed when this returns.
	SELECT positions || q[1]::jsonb INTO positions FROM homing._peer_query(step,
		'SELECT jsonb_build_object(region_id, pg_logical_emit_message(true, ''pg_homing'', ''snapshot'')) FROM homing.local_region') q;
	PERFORM homing._peer_query('freeze', 'COMMIT');
	PERFORM homing._peer_close('freeze');
END
$$;

-- Opens session "donor", which sees the snapshot.
CREATE FUNCTION homing._open_donor(address text, snapshot text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._open_step('donor', address);
	PERFORM homing._peer_query('donor', 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
	PERFORM homing._peer_query('donor', format('SET TRANSACTION SNAPSHOT %L', snapshot));
END
$$;

-- The digests of the rows of some buckets.
CREATE FUNCTION homing._row_digests(relation regclass, key name, buckets int, chosen bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET homing.read_consistency = eventual
AS $$
DECLARE
	digests bigint[];
BEGIN
	EXECUTE format('SELECT coalesce(array_agg(%s), ''{}'') FROM %s WHERE %s = ANY ($1)', homing._row_digest(relation), relation,
		homing._bucket(key, buckets)) INTO digests USING chosen;
	RETURN digests;
END
$$;

-- Makes the rows of a table those that the session sees: deletes the others, unless told to only add, and takes what is
-- missing. Returns how many it took. Rows that are the same are not touched: a part that is prepared may hold them. The
-- bucket of a row follows from its key as text: here and in _bring_rows under the settings of _bucket_digests.
CREATE FUNCTION homing._renew_rows(session text, relation regclass, key name, only_add boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET session_replication_role = replica
AS $$
DECLARE
	buckets CONSTANT int := homing._bucket_count(relation);
	bucket CONSTANT text := homing._bucket(key, buckets);
	digest CONSTANT text := homing._row_digest(relation);
	-- Without a key of its own, a row can be there twice.
	identified CONSTANT boolean := EXISTS (SELECT FROM pg_index i WHERE i.indrelid = relation AND (i.indisprimary OR i.indisreplident));
	different bigint[];
	theirs bigint[] := '{}';
	taken bigint;
BEGIN
	SELECT array_agg(coalesce(h.key, t.key)::bigint) INTO different
	FROM jsonb_each_text(homing._bucket_digests(relation, key, buckets)) h
	FULL JOIN (SELECT d.* FROM homing._peer_query(session, 'SELECT homing._bucket_digests($1::regclass, $2, $3::int)',
		relation::text, key::text, buckets::text) q, jsonb_each_text(q[1]::jsonb) d) t USING (key)
	WHERE h.value IS DISTINCT FROM t.value;
	IF different IS NULL THEN
		RETURN 0;
	END IF;
	IF NOT only_add THEN
		IF identified THEN
			SELECT q[1]::bigint[] INTO theirs FROM homing._peer_query(session,
				'SELECT homing._row_digests($1::regclass, $2, $3::int, $4::bigint[])', relation::text, key::text, buckets::text, different::text) q;
		END IF;
		PERFORM homing._write_copy(relation, format('DELETE FROM %s WHERE %s = ANY (%L::bigint[]) AND %s NOT IN '
			'(SELECT d::bigint FROM jsonb_array_elements_text($1) d)', relation, bucket, different, digest), to_jsonb(theirs));
	END IF;
	-- As a statement of _write_copy: the guard lets it pass.
	taken := homing._write_copy(relation, format('SELECT homing._bring_rows(%L, %L, %L)', session, relation,
		format('%s = ANY (%L::bigint[]) AND %s <> ALL (%L::bigint[])', bucket, different, digest,
			homing._row_digests(relation, key, buckets, different))), '[]');
	RETURN taken;
END
$$;
