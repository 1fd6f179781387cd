-- Rows of a region that was lost, kept from the day it left its cluster until it is a region again: most of them are what
-- the others have, and need not travel anew.
--
-- The guard of a table with such rows is one of this kind. Whatever only this region had written is recorded before
-- (orphans.sql); the guard sees to it that nothing is written afterwards, which join_cluster would overwrite.

CREATE FUNCTION homing._refuse_to_write_copy() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	whole CONSTANT regclass := coalesce(pg_partition_root(TG_RELID), TG_RELID);
BEGIN
	RAISE EXCEPTION 'table "%" is a copy that a lost region has kept', TG_RELID::regclass USING ERRCODE = 'read_only_sql_transaction',
		DETAIL = 'Its rows become those of the cluster when this database joins it again; what was written until then would be gone.',
		HINT = format('homing.join_cluster completes the return. To use the table without the cluster, as superuser: SELECT homing._remove_guard(%L).', whole);
END
$$;
COMMENT ON FUNCTION homing._refuse_to_write_copy() IS
	'trigger: refuses writes of rows that a lost region has kept; its argument is the cluster';

CREATE FUNCTION homing._keep_copy(relation regclass, cluster uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing._install_guard(relation, format('homing._refuse_to_write_copy(%L)', cluster), '')
$$;

-- The tables, and partitions, whose rows are a copy that a region of the cluster has kept.
CREATE FUNCTION homing._kept_copies(cluster text) RETURNS regclass[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(t.tgrelid::regclass ORDER BY t.tgrelid), '{}') FROM pg_trigger t
	WHERE t.tgname = 'homing_guard' AND t.tgfoid = 'homing._refuse_to_write_copy()'::regprocedure
		AND t.tgargs = convert_to(cluster, 'SQL_ASCII') || '\x00'
$$;

-- After joining: those that are left are of tables that are not homed any more.
CREATE FUNCTION homing._tell_kept_copies(cluster text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	relation regclass;
BEGIN
	FOR relation IN SELECT k FROM unnest(homing._kept_copies(cluster)) k JOIN pg_class c ON c.oid = k WHERE NOT c.relispartition LOOP
		RAISE WARNING 'table "%" is not homed any more: its rows are those that this region had when it was lost', relation
			USING HINT = format('Compare them with those of another region. To write the table, as superuser: SELECT homing._remove_guard(%L).', relation);
	END LOOP;
END
$$;

-- Exchanges the rows of those buckets in which the copy is not what the session sees. Returns how many it took. The
-- bucket of a row follows from its key as text: here and in _bring_rows under the settings of _bucket_digests.
CREATE FUNCTION homing._renew_copy(session text, relation regclass, key name) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET session_replication_role = replica
AS $$
DECLARE
	buckets CONSTANT int := homing._bucket_count(relation);
	different jsonb;
BEGIN
	SELECT jsonb_agg(coalesce(h.key, t.key)) INTO different
	FROM jsonb_each_text(homing._bucket_digests(relation, key, buckets)) h
	FULL JOIN (SELECT d.* FROM homing._peer_query(session, 'SELECT homing._bucket_digests($1::regclass, $2, $3::int)',
		relation::text, key::text, buckets::text) q, jsonb_each_text(q[1]::jsonb) d) t USING (key)
	WHERE h.value IS DISTINCT FROM t.value;
	IF different IS NULL THEN
		RETURN 0;
	END IF;
	PERFORM homing._write_copy(relation, format('DELETE FROM %s WHERE %s IN (SELECT b::bigint FROM jsonb_array_elements_text($1) b)',
		relation, homing._bucket(key, buckets)), different);
	RETURN homing._bring_rows(session, relation, format('%s = ANY (%L::bigint[])', homing._bucket(key, buckets),
		ARRAY(SELECT jsonb_array_elements_text(different))));
END
$$;
