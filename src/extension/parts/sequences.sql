-- Sequences of homed tables draw from disjoint strides: a sequence that steps by k steps by k times
-- _stride() at every region, each from an offset of its own. So values never collide, however regions come
-- and go, without a word between them: a region that is lost takes its offset with it, and one that joins has
-- an offset that no living region has (_stride() regions can live at a time).
--
-- The stride is a prime that nobody's sequence steps by, so a sequence shows by itself, also in a dump, whether it
-- is strided and what it stepped by before.

CREATE FUNCTION homing._stride() RETURNS bigint
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 61::bigint
$$;

-- The id of a region that joins: never used before, and no living region draws the same values.
CREATE FUNCTION homing._next_region_id(map jsonb) RETURNS int2
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT min(last.id + n)::int2
	FROM (SELECT max((m->>'id')::int) FROM jsonb_array_elements(map->'members' || coalesce(map->'witnesses', '[]')) m) AS last (id),
		generate_series(1, homing._stride()) n
	WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(map->'members') m
		WHERE m->>'status' <> 'lost' AND (last.id + n - (m->>'id')::int) % homing._stride() = 0)
$$;

-- Sequences that a table owns, or draws defaults of its columns from, partitions included.
CREATE FUNCTION homing._sequences_of(relation regclass, OUT sequence regclass, OUT of_table regclass, OUT column_name name, OUT is_number boolean)
RETURNS SETOF record STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	WITH parts (oid) AS (
		SELECT relation UNION SELECT p.relid FROM pg_partition_tree(relation) p
	), drawn (sequence, of_table, attnum) AS (
		SELECT d.objid, d.refobjid, d.refobjsubid
		FROM pg_depend d JOIN parts ON d.refobjid = parts.oid
		WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
			AND d.deptype IN ('a', 'i')
		UNION
		SELECT d.refobjid, a.adrelid, a.adnum
		FROM pg_attrdef a JOIN parts ON a.adrelid = parts.oid
		JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_class'::regclass
	)
	SELECT s.seqrelid, drawn.of_table, a.attname, a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
	FROM drawn JOIN pg_sequence s ON s.seqrelid = drawn.sequence
	JOIN pg_attribute a ON a.attrelid = drawn.of_table AND a.attnum = drawn.attnum
	ORDER BY 1, 2, 3
$$;

-- The value nearest to `value`, on the side that the sequence goes to, that region `region_id` may draw.
CREATE FUNCTION homing._strided(value numeric, step bigint, origin bigint, region_id int2) RETURNS numeric
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	-- ≡ origin (mod step) + step * region (mod step * stride), in the direction of the step.
	SELECT value + sign(step::numeric) * mod(mod(sign(step::numeric) * (mod(origin, abs(step)) + step::numeric * region_id - value), width) + width, width)
	FROM (SELECT abs(step)::numeric * homing._stride()) AS w (width)
$$;

-- Gives one sequence the stride and offset of this region, and lets it go on behind `beyond`, the furthest value in
-- use.
CREATE FUNCTION homing._stride_sequence(sequence regclass, beyond numeric) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT int2 := (SELECT l.region_id FROM homing.local_region l);
	s CONSTANT pg_sequence := (SELECT q FROM pg_sequence q WHERE q.seqrelid = sequence);
	strided CONSTANT boolean := s.seqincrement % homing._stride() = 0;
	step CONSTANT bigint := CASE WHEN strided THEN s.seqincrement / homing._stride() ELSE s.seqincrement END;
	up CONSTANT boolean := step > 0;
	last numeric;
	drawn boolean;
	first numeric;
	start numeric;
	bound numeric;
	cycles boolean;
BEGIN
	EXECUTE format('SELECT last_value, is_called FROM %s', sequence) INTO last, drawn;
	-- The next value, if nothing were changed but for what is in use.
	first := CASE WHEN drawn THEN last + step ELSE last END;
	IF beyond IS NOT NULL AND (CASE WHEN up THEN beyond >= first ELSE beyond <= first END) THEN
		first := beyond + step;
	END IF;
	first := homing._strided(first, step, s.seqstart, here);
	start := homing._strided(s.seqstart, step, s.seqstart, here);
	bound := homing._strided(CASE WHEN up THEN s.seqmin ELSE s.seqmax END, step, s.seqstart, here);
	cycles := s.seqcycle AND bound BETWEEN s.seqmin AND s.seqmax;
	IF cycles AND first NOT BETWEEN s.seqmin AND s.seqmax THEN
		first := bound;
	END IF;
	EXECUTE format('ALTER SEQUENCE %s INCREMENT BY %s', sequence, step * homing._stride())
		|| CASE WHEN start BETWEEN s.seqmin AND s.seqmax THEN format(' START WITH %s', start) ELSE '' END
		|| CASE WHEN cycles THEN format(' %s %s', CASE WHEN up THEN 'MINVALUE' ELSE 'MAXVALUE' END, bound) ELSE '' END
		|| CASE WHEN first BETWEEN s.seqmin AND s.seqmax THEN format(' RESTART WITH %s', first) ELSE '' END;
	IF first NOT BETWEEN s.seqmin AND s.seqmax THEN
		-- Exhausted, which nextval says itself.
		PERFORM setval(sequence, CASE WHEN up THEN s.seqmax ELSE s.seqmin END, true);
	END IF;
END
$$;

-- Whether the sequence draws this region's values already.
CREATE FUNCTION homing._draws_ours(sequence regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	s CONSTANT pg_sequence := (SELECT q FROM pg_sequence q WHERE q.seqrelid = sequence);
	step CONSTANT bigint := s.seqincrement / homing._stride();
	last bigint;
BEGIN
	IF s.seqincrement % homing._stride() <> 0 THEN
		RETURN false;
	END IF;
	EXECUTE format('SELECT last_value FROM %s', sequence) INTO last;
	RETURN (SELECT bool_and(v = homing._strided(v, step, s.seqstart, l.region_id))
		FROM homing.local_region l, unnest(ARRAY[last, s.seqstart]) v);
END
$$;

-- The sequences of a table, each with the furthest value of it that a column holds.
CREATE FUNCTION homing._sequences_in_use("table" regclass, skip_ours boolean, OUT sequence regclass, OUT furthest numeric)
RETURNS SETOF record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
#variable_conflict use_column
DECLARE
	drawn record;
	held numeric;
BEGIN
	FOR drawn IN
		SELECT q.sequence, s.seqincrement > 0 AS up,
			string_agg(format('SELECT %s(%I)::numeric AS v FROM %s', CASE WHEN s.seqincrement > 0 THEN 'max' ELSE 'min' END,
				q.column_name, q.of_table), ' UNION ALL ') FILTER (WHERE q.is_number) AS values
		FROM homing._sequences_of("table") q JOIN pg_sequence s ON s.seqrelid = q.sequence
		GROUP BY 1, 2 ORDER BY 1
	LOOP
		CONTINUE WHEN skip_ours AND homing._draws_ours(drawn.sequence);
		held := NULL;
		IF drawn.values IS NOT NULL THEN
			EXECUTE format('SELECT %s(v) FROM (%s) q', CASE WHEN drawn.up THEN 'max' ELSE 'min' END, drawn.values) INTO held;
		END IF;
		sequence := drawn.sequence;
		furthest := held;
		RETURN NEXT;
	END LOOP;
END
$$;

CREATE FUNCTION homing._stride_sequences("table" regclass) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing._stride_sequence(q.sequence, q.furthest) FROM homing._sequences_in_use("table", true) q
$$;
COMMENT ON FUNCTION homing._stride_sequences(regclass) IS
	'lets the sequences of a homed table draw values that no other region draws; repeatable';

-- For a table that is no longer homed: its sequences step as they did before, from behind what it holds.
CREATE FUNCTION homing._unstride_sequences("table" regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on
AS $$
#variable_conflict use_variable
DECLARE
	used record;
	last bigint;
BEGIN
	FOR used IN
		SELECT q.sequence, q.furthest, s.seqincrement / homing._stride() AS step, s.seqmin, s.seqmax
		FROM homing._sequences_in_use("table", false) q JOIN pg_sequence s ON s.seqrelid = q.sequence
		WHERE s.seqincrement % homing._stride() = 0
			AND NOT EXISTS (SELECT FROM homing.homed_table h, homing._sequences_of(h.relid) o
				WHERE h.relid <> "table" AND o.sequence = q.sequence)
	LOOP
		EXECUTE format('ALTER SEQUENCE %s INCREMENT BY %s', used.sequence, used.step);
		EXECUTE format('SELECT last_value FROM %s', used.sequence) INTO last;
		IF used.furthest BETWEEN used.seqmin AND used.seqmax
			AND (CASE WHEN used.step > 0 THEN used.furthest > last ELSE used.furthest < last END)
		THEN
			PERFORM setval(used.sequence, used.furthest::bigint, true);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing._unstride_sequences(regclass) IS
	'undoes what _stride_sequences did';

-- Sequences were set by hand: whatever value they are at, they go on with ours.
CREATE FUNCTION homing._realign_sequences() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing._stride_sequences(h.relid) FROM homing.homed_table h ORDER BY h.table_id
$$;
