-- Whether the copies of a table are the same in all regions, while it is written.
--
--  1. Every region digests its rows by buckets of their key. Buckets that differ from ours are looked at by row.
--  2. A row that differs may be on its way. So each is held at its home, against writes, until all that the
--     home has written has arrived; what differs then, differs.

-- How a homed table is named at other regions, and its key column.
CREATE FUNCTION homing._homed_name(relation regclass, OUT qualified text, OUT key name, OUT key_type text)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%I.%I', n.nspname, c.relname), a.attname, format_type(a.atttypid, a.atttypmod)
	FROM homing.homed_table t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum
	WHERE t.relid = relation
$$;

-- The region that owns a key, given as text.
CREATE FUNCTION homing._home_of_text(relation regclass, key text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	home text;
BEGIN
	EXECUTE format('SELECT homing.home_of($1, %L::%s)', key, (SELECT t.key_type FROM homing._homed_name(relation) t)) INTO home USING relation;
	RETURN home;
END
$$;

-- How many: a few hundred rows to each.
CREATE FUNCTION homing._bucket_count(relation regclass) RETURNS int
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(greatest(2 ^ ceil(log(2, sum(greatest(c.reltuples, 1))::numeric / 256)), 1024), 65536)::int
	FROM pg_class c WHERE c.oid = relation OR c.oid IN (SELECT t.relid FROM pg_partition_tree(relation) t WHERE t.isleaf)
$$;

-- The bucket of a row, as an expression.
CREATE FUNCTION homing._bucket(key name, buckets int) RETURNS text
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(hashtextextended(%I::text, 0) & %s)', key, buckets - 1)
$$;

-- The digest of a row, as an expression.
CREATE FUNCTION homing._row_digest(relation regclass) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('hashtextextended(ROW(%s)::text, 0)', string_agg(format('%I', a.attname), ', ' ORDER BY a.attname))
	FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

CREATE FUNCTION homing._bucket_digests(relation regclass, key name, buckets int) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET homing.read_consistency = eventual
AS $$
DECLARE
	digests jsonb;
BEGIN
	EXECUTE format('SELECT coalesce(jsonb_object_agg(b, d), ''{}'') FROM (SELECT %s AS b, '
		'concat_ws('' '', count(*), sum(%s::numeric)) AS d FROM %s GROUP BY 1) x',
		homing._bucket(key, buckets), homing._row_digest(relation), relation)
	INTO digests;
	RETURN digests;
END
$$;

-- The rows of some buckets: what identifies each, and its digest.
CREATE FUNCTION homing._bucket_rows(relation regclass, key name, buckets int, chosen int[], OUT identity jsonb, OUT digest text) RETURNS SETOF record
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET homing.read_consistency = eventual
AS $$
DECLARE
	named CONSTANT text[] := ARRAY(SELECT DISTINCT n FROM unnest(homing._identity(relation) || key::text) n ORDER BY n);
BEGIN
	RETURN QUERY EXECUTE format('SELECT jsonb_object(%L::text[], ARRAY[%s]), %s::text FROM %s '
		'WHERE %s IN (SELECT unnest($1))', named,
		(SELECT string_agg(format('%I::text', n), ', ' ORDER BY o) FROM unnest(named) WITH ORDINALITY AS u(n, o)),
		homing._row_digest(relation), relation, homing._bucket(key, buckets))
	USING chosen;
END
$$;

-- The row as it is in this region, as texts by column.
CREATE FUNCTION homing._row_here(relation regclass, identity jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
SET homing.read_consistency = eventual
AS $$
DECLARE
	image jsonb;
	columns CONSTANT name[] := ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname);
BEGIN
	EXECUTE format('SELECT jsonb_object(%L::text[], ARRAY[%s]) FROM %s WHERE %s LIMIT 1', columns::text[],
		(SELECT string_agg(format('%I::text', c), ', ' ORDER BY o) FROM unnest(columns) WITH ORDINALITY AS u(c, o)), relation,
		homing._row_condition(relation, identity, false)) INTO image;
	RETURN image;
END
$$;

-- At the home: the row, which stays as it is until the end of the transaction.
CREATE FUNCTION homing._hold_row(relation regclass, identity jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
BEGIN
	EXECUTE format('SELECT FROM %s WHERE %s FOR SHARE', relation, homing._row_condition(relation, identity, false));
	RETURN homing._row_here(relation, identity);
END
$$;

CREATE FUNCTION homing.verify("table" regclass, region text DEFAULT NULL)
RETURNS TABLE (at_region text, key jsonb, difference text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	relation ALIAS FOR $1;
	only_region ALIAS FOR $2;
	here CONSTANT homing.local_region := homing._require_serving();
	qualified text;
	column_name name;
	mine jsonb;
	theirs jsonb;
	buckets CONSTANT int := homing._bucket_count(relation);
	different int[];
	peer record;
	suspect record;
	home text;
	at_home jsonb;
	there jsonb;
	look_again int;
	told text[] := '{}';  -- our own copy is compared with each of the others
BEGIN
	PERFORM homing._movable(relation);
	IF only_region IS NOT NULL THEN
		PERFORM homing._require_active(only_region);
	END IF;
	PERFORM homing._require_clean_transaction('verify a table');
	SELECT t.qualified, t.key INTO qualified, column_name FROM homing._homed_name(relation) t;
	mine := homing._bucket_digests(relation, column_name, buckets);
	FOR peer IN
		SELECT m.name, 'verify ' || m.name AS session FROM homing.member m
		WHERE m.status = 'active' AND m.region_id <> here.region_id AND (only_region IS NULL OR only_region IN (m.name,
			(SELECT o.name FROM homing.member o WHERE o.region_id = here.region_id)))
		ORDER BY m.region_id
	LOOP
		PERFORM homing._open_step(peer.session, homing._region_conninfo(peer.name));
		SELECT q[1]::jsonb INTO theirs FROM homing._peer_query(peer.session, 'SELECT homing._bucket_digests($1::regclass, $2, $3::int)',
			qualified, column_name::text, buckets::text) q;
		different := ARRAY(SELECT coalesce(m.key, t.key)::int FROM jsonb_each_text(mine) m FULL JOIN jsonb_each_text(theirs) t USING (key)
						 WHERE m.value IS DISTINCT FROM t.value);
		CONTINUE WHEN cardinality(different) = 0;
		FOR suspect IN
			SELECT coalesce(m.identity, t.identity) AS identity
			FROM homing._bucket_rows(relation, column_name, buckets, different) m
			FULL JOIN (SELECT q[1]::jsonb AS identity, q[2] AS digest FROM homing._peer_query(peer.session,
				'SELECT * FROM homing._bucket_rows($1::regclass, $2, $3::int, $4::int[])', qualified, column_name::text, buckets::text, different::text) q) t USING (identity)
			WHERE m.digest IS DISTINCT FROM t.digest
		LOOP
			look_again := 3;
			LOOP
				home := homing._home_of_text(relation, suspect.identity->>column_name::text);
				PERFORM homing._open_step('home ' || home, homing._region_conninfo(home));
				PERFORM homing._peer_query('home ' || home, 'BEGIN');
				SELECT q[1]::jsonb INTO at_home FROM homing._peer_query('home ' || home, 'SELECT homing._hold_row($1::regclass, $2::jsonb)', qualified, suspect.identity::text) q;
				PERFORM homing._peer_query('home ' || home, 'SELECT homing._await_replication()');
				-- Both copies that were compared; one of them may be the home's own.
				FOR at_region, there IN
					SELECT peer.name, q[1]::jsonb FROM homing._peer_query(peer.session, 'SELECT homing._row_here($1::regclass, $2::jsonb)', qualified, suspect.identity::text) q
					UNION ALL
					SELECT m.name, homing._row_here(relation, suspect.identity) FROM homing.member m WHERE m.region_id = here.region_id
				LOOP
					CONTINUE WHEN there IS NOT DISTINCT FROM at_home OR at_region = home OR at_region <> coalesce(only_region, at_region);
					EXIT WHEN at_home IS NULL AND look_again > 0;  -- what is not there cannot be held
					CONTINUE WHEN concat_ws(' ', at_region, suspect.identity) = ANY (told);
					told := told || concat_ws(' ', at_region, suspect.identity);
					key := suspect.identity;
					difference := CASE WHEN at_home IS NULL THEN 'not at its home' WHEN there IS NULL THEN 'missing' ELSE 'different' END;
					RETURN NEXT;
				END LOOP;
				PERFORM homing._peer_query('home ' || home, 'ROLLBACK');
				EXIT WHEN at_home IS NOT NULL OR look_again = 0;
				look_again := look_again - 1;
			END LOOP;
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing.verify(regclass, text) IS
	'rows of the table whose copy in a region, or in all, is not as at their home, while the table is written: missing, different, or not at its home; none when all are the same. 08001 when a region cannot be reached, 57014 when it does not receive what others write';
