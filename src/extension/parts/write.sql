-- The guard on every homed table: it refuses a write that the library did not route (P2). A statement
-- trigger, so that COPY keeps its multi-insert; on partitions too, since one can be written directly.

CREATE FUNCTION homing._guard() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_guard';
COMMENT ON FUNCTION homing._guard() IS
	'trigger: refuses writes of a homed table that did not pass through its home';

-- On a table and all its partitions, in place of one with another function. Readers are not in its way, unlike in
-- that of DROP TRIGGER.
CREATE FUNCTION homing._install_guard("table" regclass, function text DEFAULT 'homing._guard()', enabled text DEFAULT 'ALWAYS') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on
AS $$
DECLARE
	part regclass;
BEGIN
	FOR part IN SELECT relid FROM pg_partition_tree("table") UNION SELECT "table" LOOP
		EXECUTE format('CREATE OR REPLACE TRIGGER homing_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
			'FOR EACH STATEMENT EXECUTE FUNCTION %s', part, function);
		EXECUTE format('ALTER TABLE ONLY %s ENABLE %s TRIGGER homing_guard', part, enabled);
	END LOOP;
END
$$;

CREATE FUNCTION homing._remove_guard("table" regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET homing.own_ddl = on
AS $$
DECLARE
	part regclass;
BEGIN
	FOR part IN SELECT relid FROM pg_partition_tree("table") UNION SELECT "table" LOOP
		EXECUTE format('DROP TRIGGER IF EXISTS homing_guard ON %s', part);
	END LOOP;
END
$$;

-- The condition by which regions share out an UPDATE or DELETE whose keys are not known beforehand.
CREATE FUNCTION homing._owns(keyspace int4, homes int4[], key anyelement) RETURNS boolean
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'homing_owns';
COMMENT ON FUNCTION homing._owns(int4, int4[], anyelement) IS
	'whether the home of the key is one of the given ones; false for NULL';

-- The key of a row that another region computed and routed here.
CREATE FUNCTION homing._routed(keyspace int4, homes int4[], key anyelement) RETURNS anyelement
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'homing_routed';
COMMENT ON FUNCTION homing._routed(int4, int4[], anyelement) IS
	'the key, provided that its home is one of the given ones';

CREATE FUNCTION homing._routed(keyspace int4, homes int4[], key anyelement, keys text[]) RETURNS anyelement
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_routed_first';
COMMENT ON FUNCTION homing._routed(int4, int4[], anyelement, text[]) IS
	'the same in a first-write keyspace: claims the unclaimed ones of keys, all that are routed together';

-- A check on rows whose key a trigger may have changed.
CREATE FUNCTION homing._serves(keyspace int4, key anyelement) RETURNS boolean
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_serves';
COMMENT ON FUNCTION homing._serves(int4, anyelement) IS
	'true; raises 0A000 when the home of the key is not in this region';

-- WITH CHECK OPTION of a view through which another region writes.
CREATE FUNCTION homing._check_option(view text, fulfilled boolean, new_row record) RETURNS boolean
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_check_option';
COMMENT ON FUNCTION homing._check_option(text, boolean, record) IS
	'true; raises 44000 unless the condition of the view is fulfilled';

-- A check on rows that an UPDATE of the key moves to another home.
CREATE FUNCTION homing._unreferenced("row" anyelement, new_key "any") RETURNS boolean
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_unreferenced';
COMMENT ON FUNCTION homing._unreferenced(anyelement, "any") IS
	'true; raises 23503 or 0A000 when a foreign key of another row refers to this row of a table';

-- Values whose binary form only their own database understands.
CREATE FUNCTION homing._exact_text(value anyelement) RETURNS text
STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_exact_text';
COMMENT ON FUNCTION homing._exact_text(anyelement) IS
	'the value as text that loses nothing, whatever the settings of the session';
