-- A homed table at one region: what can be homed, and how it becomes homed here.

-- Raises when the relation is of a kind that cannot be homed.
CREATE FUNCTION homing._check_kind(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	class pg_class;
	relation_name CONSTANT text := relation::regclass;
BEGIN
	SELECT c.* INTO class FROM pg_class c WHERE c.oid = relation;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'relation with OID % does not exist', relation USING ERRCODE = 'undefined_table';
	END IF;
	IF class.relkind NOT IN ('r', 'p') THEN
		RAISE EXCEPTION 'cannot home "%"', relation_name USING ERRCODE = 'wrong_object_type',
			DETAIL = format('It is a %s.', CASE class.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
				WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index'
				WHEN 'c' THEN 'composite type' ELSE 'relation of another kind' END),
			HINT = CASE class.relkind WHEN 'v' THEN 'Home the tables that the view reads.' ELSE 'Only tables can be homed.' END;
	END IF;
	IF class.relpersistence <> 'p' THEN
		RAISE EXCEPTION 'cannot home % table "%"', CASE class.relpersistence WHEN 't' THEN 'temporary' ELSE 'unlogged' END, relation_name
			USING ERRCODE = 'feature_not_supported', DETAIL = 'Its rows cannot be replicated.',
				HINT = CASE class.relpersistence WHEN 't' THEN 'Create an ordinary table.' ELSE 'ALTER TABLE ... SET LOGGED first.' END;
	END IF;
	IF relation < 16384 OR class.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'homing'::regnamespace) THEN
		RAISE EXCEPTION 'cannot home system table "%"', relation_name USING ERRCODE = 'feature_not_supported',
			HINT = 'Only tables of users can be homed.';
	END IF;
	IF class.relispartition THEN
		RAISE EXCEPTION 'cannot home partition "%"', relation_name USING ERRCODE = 'feature_not_supported',
			HINT = format('Home its root: homing.home_table(%L, ...).', pg_partition_root(relation));
	END IF;
	IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = relation) THEN
		RAISE EXCEPTION 'cannot home inheritance child "%"', relation_name USING ERRCODE = 'feature_not_supported',
			HINT = 'Tables of an inheritance tree cannot be homed; a partitioned table can.';
	END IF;
	IF class.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = relation) THEN
		RAISE EXCEPTION 'cannot home table "%" that has inheritance children', relation_name USING ERRCODE = 'feature_not_supported',
			HINT = 'Tables of an inheritance tree cannot be homed; a partitioned table can.';
	END IF;
END
$$;

-- Raises when the column cannot be the key; returns its number.
CREATE FUNCTION homing._check_key(relation oid, key text) RETURNS int2
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	col pg_attribute;
	relation_name CONSTANT text := relation::regclass;
BEGIN
	SELECT a.* INTO col FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = key AND a.attnum > 0 AND NOT a.attisdropped;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'column "%" of table "%" does not exist', key, relation_name USING ERRCODE = 'undefined_column';
	END IF;
	IF NOT homing._is_key_type(col.atttypid, 0) THEN
		RAISE EXCEPTION 'column "%" of type % cannot be a key', key, format_type(col.atttypid, col.atttypmod)
			USING ERRCODE = 'feature_not_supported',
				HINT = format('Key columns can be of these types: %s.', homing._key_types());
	END IF;
	IF NOT homing._is_key_type(col.atttypid, col.attcollation) THEN
		RAISE EXCEPTION 'column "%" of collation % cannot be a key', key, col.attcollation::regcollation
			USING ERRCODE = 'feature_not_supported', DETAIL = 'The collation is not deterministic: different texts can be equal.',
				HINT = 'Use a deterministic collation for the key.';
	END IF;
	IF NOT col.attnotnull THEN
		RAISE EXCEPTION 'key column "%" of table "%" can be null', key, relation_name USING ERRCODE = 'invalid_table_definition',
			HINT = format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL first.', relation_name, key);
	END IF;
	IF col.attgenerated <> '' THEN
		RAISE EXCEPTION 'generated column "%" cannot be a key', key USING ERRCODE = 'feature_not_supported',
			DETAIL = 'Its value is not known before the row is written.', HINT = 'Use a column that is written.';
	END IF;
	RETURN col.attnum;
END
$$;

-- Raises when changes of the table could not be replicated, or rows of different regions could clash.
CREATE FUNCTION homing._check_indexes(relation oid, key text, allow_unenforced_unique boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	leaf record;
	index record;
BEGIN
	FOR leaf IN
		SELECT c.oid, c.oid::regclass AS name, c.relreplident AS identity, a.attnum AS key_attnum
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = key
		WHERE c.oid = relation OR c.oid IN (SELECT t.relid FROM pg_partition_tree(relation) t)
		ORDER BY c.oid <> relation, c.oid
	LOOP
		IF NOT (CASE leaf.identity
			WHEN 'f' THEN true
			WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = leaf.oid AND i.indisprimary AND i.indimmediate)
			WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = leaf.oid AND i.indisreplident)
			ELSE false END)
		THEN
			RAISE EXCEPTION 'table "%" has no replica identity', leaf.name USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'Updates and deletes could not be replicated.',
				HINT = 'Add a primary key that is not deferrable, or choose one with ALTER TABLE ... REPLICA IDENTITY.';
		END IF;

		SELECT a.attname AS name INTO index FROM pg_index i JOIN pg_attribute a ON a.attrelid = leaf.oid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = leaf.oid AND (i.indisprimary OR i.indisreplident) AND a.attgenerated <> '' LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'generated column "%" is in the primary key or replica identity of table "%"', index.name, leaf.name
				USING ERRCODE = 'feature_not_supported', DETAIL = 'Generated columns are not replicated: other regions could not tell which row is updated or deleted.',
					HINT = 'Leave it out: the columns that it is computed from say the same.';
		END IF;

		CONTINUE WHEN allow_unenforced_unique;
		-- Equal keys meet at one region, so a constraint that contains the key with equality is enforced.
		SELECT i.indexrelid::regclass AS name, i.indisexclusion INTO index
		FROM pg_index i
		WHERE i.indrelid = leaf.oid AND (i.indisunique OR i.indisexclusion)
			AND NOT EXISTS (
				SELECT FROM generate_series(0, i.indnkeyatts - 1) place
				WHERE i.indkey[place] = leaf.key_attnum
					AND (NOT i.indisexclusion OR EXISTS (
						SELECT FROM pg_constraint k JOIN pg_operator o ON o.oid = k.conexclop[place + 1]
						WHERE k.conindid = i.indexrelid AND o.oprname = '=' AND o.oprnamespace = 'pg_catalog'::regnamespace)))
		LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION '% "%" of table "%" does not contain the key column "%"',
				CASE WHEN index.indisexclusion THEN 'exclusion constraint' ELSE 'unique index' END, index.name, leaf.name, key
				USING ERRCODE = 'feature_not_supported',
					DETAIL = 'Rows of different keys are written at different regions, where nobody sees that they clash.',
					HINT = 'Add the key column to it, or pass allow_unenforced_unique => true when the application keeps the values apart: a clash then stops replication.';
		END IF;
	END LOOP;
END
$$;

CREATE FUNCTION homing._check_table(relation oid, key text, allow_unenforced_unique boolean) RETURNS int2
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	attnum int2;
BEGIN
	PERFORM homing._check_kind(relation);
	attnum := homing._check_key(relation, key);
	PERFORM homing._check_indexes(relation, key, allow_unenforced_unique);
	RETURN attnum;
END
$$;
COMMENT ON FUNCTION homing._check_table(oid, text, boolean) IS
	'raises with a hint when the table cannot be homed by that column; else returns the number of the column';

-- Equal at two regions when rows fit from one into the other.
CREATE FUNCTION homing._table_shape(relation oid) RETURNS text
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
		|| CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
		|| CASE WHEN a.attgenerated <> '' THEN ' generated' ELSE '' END, ', ' ORDER BY a.attname)
	FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Number and digest of the rows, independent of their order.
CREATE FUNCTION homing._rows_digest(relation regclass) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
SET intervalstyle = 'postgres' SET lc_monetary = 'C' SET extra_float_digits = 3 SET bytea_output = 'hex' SET row_security = off
AS $$
DECLARE
	columns CONSTANT text := (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attname)
		FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped);
	digest text;
BEGIN
	EXECUTE format('SELECT concat_ws('' '', count(*), sum(hashtextextended(ROW(%s)::text, 0)::numeric)) FROM %s', columns, relation)
	INTO digest;
	RETURN digest;
END
$$;

CREATE FUNCTION homing._has_rows(relation regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
	any_row boolean;
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM %s)', relation) INTO any_row;
	RETURN any_row;
END
$$;

-- The streams to this region, as subscriptions here.
CREATE FUNCTION homing._streams(OUT region_id int2, OUT stream name, OUT origin text, OUT enabled boolean) RETURNS SETOF record
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.region_id, s.subname, 'pg_' || s.oid, s.subenabled FROM homing.local_region l
	JOIN homing.member m ON m.region_id <> l.region_id
	JOIN pg_subscription s ON s.subname = homing._stream_name(m.region_id, l.region_id)
	JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
$$;

-- Makes a table homed at this region, in the state "preparing": its writes are refused until the row in
-- homing.activation is here. The keyspace is made when it is not known. Nothing waits for another region.
-- From the commit on, changes are sent to and taken from the peers.
CREATE FUNCTION homing._register_table(relation regclass, key text, table_id bigint, keyspace_id int4, keyspace text,
	placement text, recorded_owners int2[], allow_unenforced_unique boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	key_attnum int2;
BEGIN
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
	key_attnum := homing._check_table(relation, key, allow_unenforced_unique);
	IF EXISTS (SELECT FROM homing.homed_table t WHERE t.relid = relation) THEN
		RAISE EXCEPTION 'table "%" is already homed', relation USING ERRCODE = 'duplicate_object';
	END IF;
	INSERT INTO homing.keyspace (keyspace_id, name, placement, homes, recorded_owners)
	VALUES (keyspace_id, keyspace, placement, cardinality(recorded_owners), recorded_owners)
	ON CONFLICT ON CONSTRAINT keyspace_pkey DO NOTHING;
	INSERT INTO homing.homed_table (table_id, relid, keyspace_id, key_attnum)
	VALUES (table_id, relation, keyspace_id, key_attnum);
	PERFORM homing._install_guard(relation);
	PERFORM homing._stride_sequences(relation);
	EXECUTE format('ALTER PUBLICATION homing ADD TABLE %s', relation);
	PERFORM homing._add_stream_table(s.stream, relation) FROM homing._streams() s;
END
$$;
COMMENT ON FUNCTION homing._register_table(regclass, text, bigint, int4, text, text, int2[], boolean) IS
	'makes a table homed at this region only; its writes are refused until it is activated';

CREATE FUNCTION homing._unregister_table(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	of_keyspace int4;
BEGIN
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation);
	PERFORM homing._remove_stream_table(s.stream, relation) FROM homing._streams() s;
	IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
			   WHERE p.pubname = 'homing' AND r.prrelid = relation) THEN
		EXECUTE format('ALTER PUBLICATION homing DROP TABLE %s', relation);
	END IF;
	PERFORM homing._remove_guard(relation);
	PERFORM homing._unstride_sequences(relation);
	DELETE FROM homing.homed_table t WHERE t.relid = relation RETURNING t.keyspace_id INTO of_keyspace;
	DELETE FROM homing.keyspace k
	WHERE k.keyspace_id = of_keyspace AND NOT EXISTS (SELECT FROM homing.homed_table t WHERE t.keyspace_id = of_keyspace);
END
$$;
COMMENT ON FUNCTION homing._unregister_table(regclass) IS
	'makes a table an ordinary one at this region only';

-- What a home_table that failed while it was committing left here: nobody could write the table since.
CREATE FUNCTION homing._discard_preparing(relation regclass, keep_rows boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF NOT EXISTS (SELECT FROM homing.homed_table t WHERE t.relid = relation
				   AND NOT EXISTS (SELECT FROM homing.activation x WHERE x.table_id = t.table_id)) THEN
		RETURN;
	END IF;
	PERFORM homing._unregister_table(relation);
	IF NOT keep_rows THEN
		PERFORM set_config('session_replication_role', 'replica', true);
		EXECUTE format('DELETE FROM %s', relation);
		PERFORM set_config('session_replication_role', 'origin', true);
	END IF;
END
$$;

-- At a peer: makes the table what it is at region `source`, then homed.
CREATE FUNCTION homing._take_table(source text, name text, shape text, digest text, key text, table_id bigint,
	keyspace_id int4, keyspace text, placement text, recorded_owners int2[], allow_unenforced_unique boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT text := (SELECT m.name FROM homing.member m JOIN homing.local_region USING (region_id));
	relation regclass := to_regclass(name);
BEGIN
	IF relation IS NULL THEN
		PERFORM homing._bring_schema(homing._region_conninfo(source), ARRAY[name]);
		relation := name::regclass;
	ELSE
		PERFORM homing._check_kind(relation);
		PERFORM homing._discard_preparing(relation, false);
	END IF;
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
	IF homing._table_shape(relation) IS DISTINCT FROM shape THEN
		RAISE EXCEPTION 'table "%" at region "%" has other columns', name, here USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('There: %s. At region "%s": %s.', homing._table_shape(relation), source, shape),
			HINT = 'Make the definitions equal, or drop the table there: it is then created.';
	END IF;
	IF digest IS DISTINCT FROM homing._rows_digest(relation) THEN
		IF homing._has_rows(relation) THEN
			RAISE EXCEPTION 'table "%" at region "%" has rows of its own', name, here USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = format('Rows come from region "%s", where homing.home_table was called. Empty the table there, or call it where the rows are.', source);
		END IF;
		PERFORM homing._peer_open('source', homing._region_conninfo(source));
		PERFORM homing._bring_rows('source', relation);
	END IF;
	PERFORM homing._register_table(relation, key, table_id, keyspace_id, keyspace, placement, recorded_owners, allow_unenforced_unique);
END
$$;

-- Ids are never used again: rows of activation, assignment and ownership stay when a table is unhomed.
CREATE FUNCTION homing._last_ids(OUT table_id bigint, OUT keyspace_id int4)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT greatest((SELECT max(t.table_id) FROM homing.homed_table t), (SELECT max(x.table_id) FROM homing.activation x), 0),
		greatest((SELECT max(k.keyspace_id) FROM homing.keyspace k), (SELECT max(a.keyspace_id) FROM homing.assignment a),
			(SELECT max(o.keyspace_id) FROM homing.ownership o), 0)
$$;
