-- The return of a lost region: nothing that it had committed is overwritten unseen (P9).
--
-- rejoin() at the lost region, which is fenced:
--
--  1. Whoever passed the check before the fence ends. Then nothing is written here any more.
--  2. What was written here and is beyond the final position of its stream, so in no other region, is read
--     from its own WAL. The slots of its streams have kept it; no consumer moves them since the survivors
--     stopped.
--  3. A surviving region records every change in homing.orphan, from where it reaches all regions. The ids
--     follow from the order of the changes: recording twice is recording once.
--  4. In one transaction, this database stops being a region. Its homed tables keep their rows, which nobody can write
--     (kept_copy.sql).
--  5. It joins anew, under its name, as a new incarnation, and takes of the rows what differs.
--
-- A crash before 4 changes nothing here; the next call begins anew. After 4, join_cluster is left to do.
--
-- `old` of a recorded change is the row before it. Replica identity seldom tells; but as long as nobody has
-- written the row since the survivors stopped, it is what they have.

CREATE TABLE homing.orphan (
	id bigint PRIMARY KEY,        -- region_id * 2^32 + number of the change
	region_id int2 NOT NULL,      -- that was lost
	lsn pg_lsn NOT NULL,          -- of its commit
	xid bigint NOT NULL,
	committed_at timestamptz NOT NULL,
	relation text NOT NULL,
	op text NOT NULL CHECK (op IN ('insert', 'update', 'delete', 'truncate')),
	key jsonb,                    -- rows as texts by column
	old jsonb,
	new jsonb
);
COMMENT ON TABLE homing.orphan IS 'changes that a lost region had committed and no other region had received; replicated, INSERT-only';

CREATE TABLE homing.orphan_review (
	id bigint NOT NULL,
	region_id int2 NOT NULL,   -- who wrote it
	action text NOT NULL CHECK (action IN ('reapplied', 'discarded')),
	at timestamptz NOT NULL,
	actor name NOT NULL,
	PRIMARY KEY (id, region_id)
);
COMMENT ON TABLE homing.orphan_review IS 'what was decided about them; replicated, INSERT-only';

CREATE TABLE homing.loss_mark (
	lost int2 PRIMARY KEY,
	xid xid8 NOT NULL
);
COMMENT ON TABLE homing.loss_mark IS
	'the transaction from which on rows here may have been written after we stopped applying from a lost region; local';

-- --- at a survivor -----------------------------------------------------------------------------------

-- The columns that identify a row.
CREATE FUNCTION homing._identity(relation regclass) RETURNS text[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(
		(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i
		 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		 WHERE i.indexrelid = (SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = relation AND (x.indisprimary OR x.indisreplident)
							   ORDER BY x.indisreplident DESC LIMIT 1)),
		(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
		 WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
$$;

-- "column = value" for each column of the row; with nulls where `exactly`.
CREATE FUNCTION homing._row_condition(relation regclass, image jsonb, exactly boolean) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(CASE
			WHEN e.value IS NULL THEN format('%I IS NULL', e.key)
			WHEN exactly THEN format('%I::text IS NOT DISTINCT FROM (%L::%s)::text', e.key, e.value, format_type(a.atttypid, a.atttypmod))
			ELSE format('%I = %L::%s', e.key, e.value, format_type(a.atttypid, a.atttypmod)) END, ' AND ' ORDER BY a.attnum)
	FROM jsonb_each_text(image) e JOIN pg_attribute a ON a.attrelid = relation AND a.attname = e.key AND NOT a.attisdropped
$$;

-- The row as it is here now, as texts by column; and whether it was written by nobody since the mark.
CREATE FUNCTION homing._row_now(relation regclass, key jsonb, mark xid8, OUT image jsonb, OUT untouched boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
AS $$
DECLARE
	names text;
	texts text;
BEGIN
	SELECT string_agg(format('%L', a.attname), ', ' ORDER BY a.attnum), string_agg(format('t.%I::text', a.attname), ', ' ORDER BY a.attnum)
	INTO names, texts FROM pg_attribute a
	WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
	EXECUTE format('SELECT jsonb_object(ARRAY[%s]::text[], ARRAY[%s]::text[]), age(t.xmin) >= age($1::xid) FROM ONLY %s t WHERE %s LIMIT 1',
		names, texts, relation, homing._row_condition(relation, key, false)) INTO image, untouched USING mark;
END
$$;

-- Records changes `numbered` from first + 1 on. What is recorded already stays as it is.
CREATE FUNCTION homing._record_orphans(lost int2, first bigint, changes jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	mark CONSTANT xid8 := (SELECT m.xid FROM homing.loss_mark m WHERE m.lost = _record_orphans.lost);
	change record;
	class regclass;
	row_key jsonb;
	before jsonb;
	now_here record;
	columns text[];
BEGIN
	FOR change IN
		SELECT (lost::bigint << 32) + first + x.n AS id, x.c->>'table' AS relation, x.c->>'op' AS op, (x.c->>'lsn')::pg_lsn AS lsn,
			(x.c->>'xid')::bigint AS xid, (x.c->>'at')::timestamptz AS at, x.c->'old' AS old, x.c->'new' AS new,
			coalesce((x.c->>'full')::boolean, false) AS is_full
		FROM jsonb_array_elements(changes) WITH ORDINALITY AS x(c, n) ORDER BY x.n
	LOOP
		CONTINUE WHEN EXISTS (SELECT FROM homing.orphan o WHERE o.id = change.id);
		class := to_regclass(change.relation);
		row_key := NULL;
		before := NULL;
		IF change.op <> 'truncate' AND class IS NOT NULL THEN
			columns := homing._identity(class);
			SELECT jsonb_object_agg(c, coalesce(change.old, change.new)->c) INTO row_key FROM unnest(columns) c;
			IF change.op <> 'insert' THEN
				-- What an earlier one of these changes made of the row.
				SELECT coalesce(o.old, '{}') || o.new INTO before FROM homing.orphan o
				WHERE o.region_id = lost AND o.relation = change.relation AND o.id < change.id AND o.new @> row_key
				ORDER BY o.id DESC LIMIT 1;
				IF change.is_full THEN
					before := change.old;
				ELSIF before IS NULL THEN
					SELECT * INTO now_here FROM homing._row_now(class, row_key, mark);
					before := CASE WHEN now_here.untouched THEN now_here.image END;
				END IF;
			END IF;
		END IF;
		INSERT INTO homing.orphan (id, region_id, lsn, xid, committed_at, relation, op, key, old, new)
		VALUES (change.id, lost, change.lsn, change.xid, change.at, change.relation, change.op, row_key, before, change.new);
	END LOOP;
END
$$;

-- --- review ------------------------------------------------------------------------------------------

CREATE FUNCTION homing._orphan_verdict(relation text, op text, key jsonb, old jsonb, new jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	conflict CONSTANT text := 'conflicts with the row as it is now';
	class CONSTANT regclass := to_regclass(relation);
	image jsonb;
BEGIN
	IF class IS NULL THEN
		RETURN 'the table is gone';
	ELSIF op = 'truncate' THEN
		RETURN conflict;
	END IF;
	image := (homing._row_now(class, key, NULL)).image;
	RETURN CASE
		WHEN op = 'delete' AND image IS NULL THEN 'superseded'
		WHEN op <> 'delete' AND image @> new THEN 'superseded'
		WHEN op = 'insert' AND image IS NULL THEN 'applies cleanly'
		WHEN op <> 'insert' AND old IS NOT NULL AND image @> old THEN 'applies cleanly'
		ELSE conflict END;
END
$$;
COMMENT ON FUNCTION homing._orphan_verdict(text, text, jsonb, jsonb, jsonb) IS
	'what would come of the change, with the row as it is here now';

CREATE VIEW homing.orphaned_writes AS
SELECT o.id, m.name AS region, o.relation AS "table", o.op AS operation, o.key, o.old, o.new, o.committed_at, o.lsn, o.xid AS transaction,
	coalesce(r.action, 'open') AS state,
	CASE WHEN r.action IS NULL THEN homing._orphan_verdict(o.relation, o.op, o.key, o.old, o.new) END AS verdict,
	r.at AS reviewed_at, r.actor AS reviewed_by
FROM homing.orphan o
LEFT JOIN homing.member m USING (region_id)
LEFT JOIN LATERAL (SELECT v.action, v.at, v.actor FROM homing.orphan_review v WHERE v.id = o.id ORDER BY v.at LIMIT 1) r ON true
ORDER BY o.id;
COMMENT ON VIEW homing.orphaned_writes IS
	'changes that a region had committed before it was lost and that no other region had received, recorded when it came back';
COMMENT ON COLUMN homing.orphaned_writes.id IS 'number, for homing.reapply and homing.discard; in the order in which they were committed';
COMMENT ON COLUMN homing.orphaned_writes.region IS 'region that had committed it';
COMMENT ON COLUMN homing.orphaned_writes."table" IS 'table that was written, of a partitioned table the partition';
COMMENT ON COLUMN homing.orphaned_writes.operation IS 'insert, update, delete or truncate';
COMMENT ON COLUMN homing.orphaned_writes.key IS 'columns that identify the row, as texts';
COMMENT ON COLUMN homing.orphaned_writes.old IS 'the row before; NULL when nobody knows it any more';
COMMENT ON COLUMN homing.orphaned_writes.new IS 'the row after; large values that the change left alone are missing';
COMMENT ON COLUMN homing.orphaned_writes.committed_at IS 'when it was committed, by the clock of that region';
COMMENT ON COLUMN homing.orphaned_writes.lsn IS 'end of its commit in the WAL of that region';
COMMENT ON COLUMN homing.orphaned_writes.transaction IS 'transaction that it was part of, there';
COMMENT ON COLUMN homing.orphaned_writes.state IS 'open, reapplied or discarded';
COMMENT ON COLUMN homing.orphaned_writes.verdict IS
	'applies cleanly: the row is as it was before the change; superseded: it is already as the change would make it; conflicts with the row as it is now: it was written since, or nobody knows; the table is gone';
COMMENT ON COLUMN homing.orphaned_writes.reviewed_at IS 'when it was reapplied or discarded';
COMMENT ON COLUMN homing.orphaned_writes.reviewed_by IS 'by whom';

CREATE FUNCTION homing._review_orphan(id bigint, action text) RETURNS homing.orphan
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	found_orphan homing.orphan;
BEGIN
	-- Two reviewers of one region take turns.
	SELECT * INTO found_orphan FROM homing.orphan o WHERE o.id = _review_orphan.id FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'orphaned write % does not exist', id USING ERRCODE = 'invalid_parameter_value',
			HINT = 'homing.orphaned_writes lists them.';
	END IF;
	IF EXISTS (SELECT FROM homing.orphan_review r WHERE r.id = _review_orphan.id) THEN
		RAISE EXCEPTION 'orphaned write % was % already', id, (SELECT min(r.action) FROM homing.orphan_review r WHERE r.id = _review_orphan.id)
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	INSERT INTO homing.orphan_review (id, region_id, action, at, actor) VALUES (id, here.region_id, action, clock_timestamp(), session_user);
	RETURN found_orphan;
END
$$;

-- The statement that makes the change again, provided that the row is as before.
CREATE FUNCTION homing._orphan_statement(change homing.orphan) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE change.op
		WHEN 'insert' THEN format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE VALUES (%s) ON CONFLICT DO NOTHING', change.relation, v.names, v.texts)
		WHEN 'update' THEN format('UPDATE %s SET %s WHERE %s AND %s', change.relation, v.changes,
			homing._row_condition(change.relation::regclass, change.key, false), homing._row_condition(change.relation::regclass, change.old, true))
		WHEN 'delete' THEN format('DELETE FROM %s WHERE %s AND %s', change.relation,
			homing._row_condition(change.relation::regclass, change.key, false), homing._row_condition(change.relation::regclass, change.old, true)) END
	FROM (SELECT string_agg(format('%I', e.key), ', ' ORDER BY a.attnum) AS names,
			string_agg(format('%L::%s', e.value, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) AS texts,
			string_agg(format('%I = %L::%s', e.key, e.value, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
				FILTER (WHERE change.old->e.key IS DISTINCT FROM change.new->e.key) AS changes
		  FROM jsonb_each_text(coalesce(change.new, '{}')) e
		  JOIN pg_attribute a ON a.attrelid = to_regclass(change.relation) AND a.attname = e.key AND NOT a.attisdropped) v
$$;

CREATE FUNCTION homing.reapply(ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex'
AS $$
DECLARE
	one bigint;
	change homing.orphan;
	verdict text;
	statement text;
	written bigint;
	made int := 0;
BEGIN
	FOR one IN SELECT DISTINCT i FROM unnest(ids) i ORDER BY i LOOP
		change := homing._review_orphan(one, 'reapplied');
		verdict := homing._orphan_verdict(change.relation, change.op, change.key, change.old, change.new);
		statement := CASE verdict WHEN 'applies cleanly' THEN homing._orphan_statement(change) END;
		written := 0;
		IF statement IS NOT NULL THEN
			EXECUTE statement;
			GET DIAGNOSTICS written = ROW_COUNT;
			made := made + written;
		END IF;
		IF written = 0 AND verdict <> 'superseded' THEN
			RAISE EXCEPTION 'cannot reapply orphaned write % of table "%"', one, change.relation
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = format('It %s.', CASE verdict WHEN 'applies cleanly' THEN 'conflicts with the row as it is at its home' ELSE verdict END),
					HINT = 'Write what the row shall be, as an ordinary statement, then call homing.discard for it.';
		END IF;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION homing.reapply(bigint[]) IS
	'makes orphaned writes again, as new writes at the present homes of their rows, in the caller''s transaction; returns how many rows were written. 55000 when the row is not as it was before the write; one that is superseded counts as done';

CREATE FUNCTION homing.reapply(id bigint, VARIADIC more bigint[] DEFAULT '{}') RETURNS int
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing.reapply(ARRAY[id] || more)
$$;
COMMENT ON FUNCTION homing.reapply(bigint, bigint[]) IS 'see homing.reapply(bigint[])';

CREATE FUNCTION homing.discard(ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._review_orphan(i, 'discarded') FROM (SELECT DISTINCT unnest(ids) ORDER BY 1) AS x(i);
	RETURN (SELECT count(DISTINCT i) FROM unnest(ids) i);
END
$$;
COMMENT ON FUNCTION homing.discard(bigint[]) IS
	'marks orphaned writes as not wanted; they stay in homing.orphaned_writes. Returns how many';

CREATE FUNCTION homing.discard(id bigint, VARIADIC more bigint[] DEFAULT '{}') RETURNS int
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing.discard(ARRAY[id] || more)
$$;
COMMENT ON FUNCTION homing.discard(bigint, bigint[]) IS 'see homing.discard(bigint[])';
