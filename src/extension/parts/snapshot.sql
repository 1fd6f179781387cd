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
	in_vain boolean;
BEGIN
	PERFORM homing._open_step('freeze', address);
	PERFORM homing._peer_query('freeze', 'SET lock_timeout = ''2s''');
	-- A deadlock with writers is ours to give up.
	PERFORM homing._peer_query('freeze', 'SET deadlock_timeout = ''50ms''');
	FOR attempt IN 1 .. 30 LOOP
		-- Others wait behind who waits: not for one that will not end soon.
		SELECT q[1]::boolean INTO in_vain FROM homing._peer_query('freeze',
			'SELECT EXISTS (SELECT FROM pg_locks k LEFT JOIN pg_stat_activity a USING (pid) WHERE k.locktype = ''relation'' AND k.granted
				AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
				AND k.relation IN (SELECT r FROM unnest(homing._replicated_tables()) r UNION ALL SELECT relid FROM homing.homed_table)
				AND k.mode IN (''RowExclusiveLock'', ''ShareRowExclusiveLock'', ''ExclusiveLock'', ''AccessExclusiveLock'')
				AND (k.pid IS NULL OR a.xact_start < clock_timestamp() - interval ''2 seconds''))') q;
		IF NOT in_vain THEN
			PERFORM homing._peer_query('freeze', 'BEGIN');
			BEGIN
				PERFORM homing._peer_query('freeze', format('LOCK TABLE %s IN SHARE MODE', tables));
				RETURN;
			EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
				PERFORM homing._peer_query('freeze', 'ROLLBACK');
			END;
		END IF;
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
		'SELECT coalesce(jsonb_object_agg(region_id, pg_replication_origin_progress(origin, false)), ''{}'') FROM homing._streams()') q;
	-- Its own position: the end of a commit that is sent, so that other regions come there too. The row asks for nothing.
	PERFORM homing._peer_query('freeze', 'INSERT INTO homing.dependency (region_id, seq, origin, position)
		SELECT region_id, nextval(''homing.dependency_seq''), region_id, ''0/0'' FROM homing.local_region');
	PERFORM homing._peer_query('freeze', 'COMMIT');
	SELECT positions || q[1]::jsonb INTO positions FROM homing._peer_query('freeze',
		'SELECT jsonb_build_object(region_id, ''0/0''::pg_lsn + homing._last_commit()) FROM homing.local_region') q;
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

-- The rows of some buckets that are there more often than their digests are among `others`, as a condition.
CREATE FUNCTION homing._surplus(relation regclass, key name, buckets int, chosen bigint[], others bigint[]) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(tableoid, ctid) IN (SELECT x.tableoid, x.ctid FROM '
		'(SELECT tableoid, ctid, d, row_number() OVER (PARTITION BY d) AS n FROM (SELECT tableoid, ctid, %s AS d FROM %s WHERE %s = ANY (%L::bigint[])) r) x '
		'LEFT JOIN (SELECT d, count(*) AS n FROM unnest(%L::bigint[]) d GROUP BY 1) o USING (d) WHERE x.n > coalesce(o.n, 0))',
		homing._row_digest(relation), relation, homing._bucket(key, buckets), chosen, others)
$$;

-- Exchanges rows of some buckets, of which the session has those with the digests `theirs`. Where a row has taken the place
-- of another it is updated, as at its home: a part that is prepared here may hold it by a foreign key. Rows that are the
-- same are not touched.
CREATE FUNCTION homing._exchange_rows(session text, relation regclass, key name, buckets int, chosen bigint[], theirs bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET session_replication_role = replica
AS $$
DECLARE
	stale CONSTANT text := format('%s = ANY (%L::bigint[]) AND %s <> ALL (%L::bigint[])',
		homing._bucket(key, buckets), chosen, homing._row_digest(relation), theirs);
	identity CONSTANT text[] := homing._identity(relation);
	-- A column that no update can change belongs to what a row is.
	same CONSTANT text := (SELECT string_agg(format('h.%I::text IS NOT DISTINCT FROM i.%1$I::text', a.attname), ' AND ') FROM pg_attribute a
		WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND (a.attname = ANY (identity) OR a.attidentity = 'a'));
	columns CONSTANT text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
		WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '');
	changes CONSTANT text := (SELECT string_agg(format('%I = i.%1$I', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
		WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity <> 'a'
			AND a.attname <> ALL (identity));
	taken bigint;
BEGIN
	EXECUTE format('CREATE TEMP TABLE homing_incoming (LIKE %s INCLUDING GENERATED) ON COMMIT DROP', relation);
	taken := homing._bring_rows(session, relation,
		homing._surplus(relation, key, buckets, chosen, homing._row_digests(relation, key, buckets, chosen)), 'pg_temp.homing_incoming');
	BEGIN
		PERFORM homing._write_copy(relation, format('DELETE FROM %s h WHERE %s AND NOT EXISTS (SELECT FROM pg_temp.homing_incoming i WHERE %s)',
			relation, stale, same), '[]');
		IF changes IS NOT NULL THEN
			PERFORM homing._write_copy(relation, format('UPDATE %s h SET %s FROM pg_temp.homing_incoming i WHERE %s', relation, changes, same), '[]');
		END IF;
		PERFORM homing._write_copy(relation, format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM pg_temp.homing_incoming i '
			'WHERE NOT EXISTS (SELECT FROM %1$s h WHERE %3$s)', relation, columns, same), '[]');
	EXCEPTION WHEN unique_violation OR exclusion_violation THEN
		-- Rows have changed places under another constraint.
		PERFORM homing._write_copy(relation, format('DELETE FROM %s h WHERE %s', relation, stale), '[]');
		PERFORM homing._write_copy(relation, format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM pg_temp.homing_incoming',
			relation, columns), '[]');
	END;
	DROP TABLE pg_temp.homing_incoming;
	RETURN taken;
END
$$;

-- Makes the rows of a table those that the session sees, or only adds those that are missing here. Returns how many it
-- took. The bucket and the digest of a row follow from texts: here and in _bring_rows under the settings of _bucket_digests.
CREATE FUNCTION homing._renew_rows(session text, relation regclass, key name, only_add boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET session_replication_role = replica
AS $$
DECLARE
	at_once CONSTANT bigint := 1000000;  -- rows to look at one by one
	buckets CONSTANT int := homing._bucket_count(relation);
	identified CONSTANT boolean := EXISTS (SELECT FROM pg_index i WHERE i.indrelid = relation AND (i.indisprimary OR i.indisreplident));
	chosen bigint[];
	theirs bigint[];
	taken bigint := 0;
BEGIN
	FOR chosen IN
		SELECT array_agg(d.bucket) FROM (
			SELECT coalesce(h.key, t.key)::bigint AS bucket, sum(greatest(split_part(h.value, ' ', 1)::bigint, split_part(t.value, ' ', 1)::bigint))
				OVER (ORDER BY coalesce(h.key, t.key)::bigint) AS rows
			FROM jsonb_each_text(homing._bucket_digests(relation, key, buckets)) h
			FULL JOIN (SELECT b.* FROM homing._peer_query(session, 'SELECT homing._bucket_digests($1::regclass, $2, $3::int)',
				relation::text, key::text, buckets::text) q, jsonb_each_text(q[1]::jsonb) b) t USING (key)
			WHERE h.value IS DISTINCT FROM t.value) d
		GROUP BY trunc((d.rows - 1) / at_once)
	LOOP
		IF NOT only_add THEN
			SELECT q[1]::bigint[] INTO theirs FROM homing._peer_query(session,
				'SELECT homing._row_digests($1::regclass, $2, $3::int, $4::bigint[])', relation::text, key::text, buckets::text, chosen::text) q;
		END IF;
		IF identified AND NOT only_add THEN
			taken := taken + homing._exchange_rows(session, relation, key, buckets, chosen, theirs);
		ELSE
			IF NOT only_add THEN
				PERFORM homing._write_copy(relation, format('DELETE FROM %s WHERE %s', relation,
					homing._surplus(relation, key, buckets, chosen, theirs)), '[]');
			END IF;
			-- As a statement of _write_copy: the guard lets it pass.
			taken := taken + homing._write_copy(relation, format('SELECT homing._bring_rows(%L, %L, %L)', session, relation,
				homing._surplus(relation, key, buckets, chosen, homing._row_digests(relation, key, buckets, chosen))), '[]');
		END IF;
		IF NOT only_add AND (SELECT array_agg(d ORDER BY d) FROM unnest(theirs) d)
				IS DISTINCT FROM (SELECT array_agg(d ORDER BY d) FROM unnest(homing._row_digests(relation, key, buckets, chosen)) d) THEN
			RAISE EXCEPTION 'the rows of table "%" did not become what they are at the other region', relation USING ERRCODE = 'data_exception';
		END IF;
	END LOOP;
	RETURN taken;
END
$$;
