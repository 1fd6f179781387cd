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
