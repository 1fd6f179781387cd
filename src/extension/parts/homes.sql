-- Homed tables and their keys.

CREATE FUNCTION homing._owner(keyspace_id int4, home int4) RETURNS int2
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_owner';
COMMENT ON FUNCTION homing._owner(int4, int4) IS 'region that owns the home now; NULL: all its heirs are lost too';

CREATE FUNCTION homing._heirs(keyspace_id int4, home int4) RETURNS int2[]
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_heirs';
COMMENT ON FUNCTION homing._heirs(int4, int4) IS 'regions that take over when the owner is lost, first one first';

CREATE FUNCTION homing._homes(OUT keyspace_id int4, OUT home int4, OUT owner int2, OUT heirs int2[]) RETURNS SETOF record
STRICT STABLE ROWS 200 LANGUAGE c AS 'MODULE_PATHNAME', 'homing_homes';
COMMENT ON FUNCTION homing._homes() IS 'all homes, as _owner and _heirs tell of each';

CREATE FUNCTION homing._is_key_type(type oid, collation oid) RETURNS boolean
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_is_key_type';
CREATE FUNCTION homing._shares_key_bytes(type oid, other oid) RETURNS boolean
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_shares_key_bytes';
CREATE FUNCTION homing._key_types() RETURNS text
IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_key_types';
CREATE FUNCTION homing._spread(homes int4, regions int2[]) RETURNS int2[]
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_spread';
CREATE FUNCTION homing._check_owner(relation oid) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_check_owner';
COMMENT ON FUNCTION homing._check_owner(oid) IS 'raises unless the caller of the security definer function that calls this owns the relation';
CREATE FUNCTION homing._remove_stream_table(stream text, relation regclass) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_remove_stream_table';
CREATE FUNCTION homing._lock_homes(keyspace_id int4, homes int4) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_lock_homes';
COMMENT ON FUNCTION homing._lock_homes(int4, int4) IS 'waits for the writers of the keyspace and holds further ones up until the end of the transaction';
CREATE FUNCTION homing._key_bytes("table" regclass, key anycompatible) RETURNS bytea
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_key_bytes';
CREATE FUNCTION homing._key_owner(keyspace_id int4, key bytea) RETURNS int2
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_key_owner';
CREATE FUNCTION homing._key_home(keyspace_id int4, key bytea) RETURNS int4
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_key_home';
CREATE FUNCTION homing._assign(keyspace_id int4, key bytea, region int2) RETURNS boolean
STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'homing_assign';
COMMENT ON FUNCTION homing._assign(int4, bytea, int2) IS
	'assigns a key to a home of the region; runs where the key is homed now. False: it is homed there already';

CREATE FUNCTION homing.home_of("table" regclass, key anycompatible) RETURNS text
STRICT STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_home_of';
COMMENT ON FUNCTION homing.home_of(regclass, anycompatible) IS
	'region that executes the writes of the key, as known here; NULL: its owner and all heirs are lost';

-- --- a change at all regions ---------------------------------------------------------------------------

-- This region, if it may change the cluster.
CREATE FUNCTION homing._require_serving(although_lacking boolean DEFAULT false) RETURNS homing.local_region
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here homing.local_region;
BEGIN
	SELECT * INTO here FROM homing.local_region;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a region of a cluster' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Call homing.create_cluster or homing.join_cluster first.';
	END IF;
	PERFORM homing._refuse_witness();
	IF here.fenced IS NOT NULL THEN
		RAISE EXCEPTION 'this region is fenced: %', here.fenced
			USING ERRCODE = 'read_only_sql_transaction', HINT = 'Call the function at a region that serves.';
	END IF;
	IF here.missing <> '{}' AND NOT although_lacking THEN
		RAISE EXCEPTION 'this region lacks the last changes of region %', homing._region_names(here.missing)
			USING ERRCODE = 'read_only_sql_transaction', DETAIL = 'Its worker takes a copy of them from another region.',
				HINT = 'Call the function at a region that serves.';
	END IF;
	RETURN here;
END
$$;

CREATE FUNCTION homing._active_region(region text) RETURNS int2
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id int2;
BEGIN
	SELECT m.region_id INTO id FROM homing.member m WHERE m.name = region AND m.status = 'active';
	IF NOT FOUND THEN
		RAISE EXCEPTION 'region "%" %', region, CASE WHEN EXISTS (SELECT FROM homing.member m WHERE m.name = region)
				THEN 'is not active' ELSE 'does not exist' END
			USING ERRCODE = 'invalid_parameter_value', HINT = 'homing.regions lists the regions.';
	END IF;
	RETURN id;
END
$$;

CREATE FUNCTION homing._region_session(id int2) RETURNS text
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'region ' || lpad(id::text, 5, '0')
$$;

-- Begins a change at all regions: a following session with every peer, the change lock everywhere, taken in
-- the order of region ids, and one map. Returns the peers, ascending.
CREATE FUNCTION homing._begin_change(purpose text) RETURNS int2[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := homing._require_serving();
	map jsonb := homing._map();
	regions CONSTANT int2[] := homing._living(map);
	peers CONSTANT int2[] := array_remove(regions, here.region_id);
	id int2;
	heard text;
	failure text;
BEGIN
	FOREACH id IN ARRAY regions LOOP
		IF id = here.region_id THEN
			PERFORM homing._lock_change();
			CONTINUE;
		END IF;
		BEGIN
			PERFORM homing._peer_open(homing._region_session(id), homing._region_conninfo(homing._member_name(map, id)));
		EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
			GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT;
			RAISE EXCEPTION 'cannot %: region "%" cannot be reached', purpose, homing._member_name(map, id)
				USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection', DETAIL = failure,
					HINT = 'Every region takes part in this change. Try again when it can be reached, or declare it lost.';
		END;
		PERFORM homing._peer_query(homing._region_session(id), 'SET lock_timeout = ''10s''');
		PERFORM homing._peer_follow(homing._region_session(id));
		PERFORM homing._peer_query(homing._region_session(id), 'SELECT homing._lock_change()');
	END LOOP;

	-- The locks may have been waited for.
	PERFORM homing._require_serving();
	PERFORM homing._check_no_loss();
	map := homing._map();
	FOREACH id IN ARRAY peers LOOP
		SELECT q[1] INTO heard FROM homing._peer_query(homing._region_session(id),
			'SELECT homing._map_digest() FROM homing.local_region WHERE fenced IS NULL AND missing = ''{}''') q;
		IF heard IS NULL THEN
			RAISE EXCEPTION 'cannot %: region "%" is fenced', purpose, homing._member_name(map, id)
				USING ERRCODE = 'object_not_in_prerequisite_state',
					HINT = 'Every region takes part in this change. Its homing.events say why it is fenced. If it shall not come back, declare it lost.';
		END IF;
		IF heard::bigint IS DISTINCT FROM homing._map_digest(map) THEN
			RAISE EXCEPTION 'the cluster map at region "%" is not the one here', homing._member_name(map, id)
				USING ERRCODE = 'serialization_failure', HINT = 'Regions tell each other within a moment: try again.';
		END IF;
	END LOOP;
	IF homing._living(map) <> regions OR EXISTS (SELECT FROM homing.member m WHERE m.status = 'joining') THEN
		RAISE EXCEPTION 'cannot % while a region joins or leaves', purpose
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Try again when that is over.';
	END IF;
	RETURN peers;
END
$$;

-- Sessions of other regions read what this transaction read, not what it wrote.
CREATE FUNCTION homing._require_clean_transaction(purpose text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'cannot % in a transaction of isolation level %', purpose, upper(current_setting('transaction_isolation'))
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
		RAISE EXCEPTION 'cannot % in a transaction that has written', purpose USING ERRCODE = 'active_sql_transaction',
			DETAIL = 'Other regions do not see what it wrote.', HINT = 'Commit first.';
	END IF;
END
$$;

CREATE FUNCTION homing._record_event(kind text, region text, actor text, reason text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO homing.event (at, epoch, kind, region, actor, reason)
	SELECT clock_timestamp(), c.epoch, kind, region, actor, reason FROM homing.cluster_map c
$$;

CREATE FUNCTION homing._flush_position() RETURNS pg_lsn
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_flush_position';

-- Waits until every other region has received what this region has written so far.
CREATE FUNCTION homing._await_replication(timeout interval DEFAULT '10s') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target CONSTANT pg_lsn := homing._flush_position();
	give_up CONSTANT timestamptz := clock_timestamp() + timeout;
	behind text;
BEGIN
	LOOP
		SELECT string_agg(format('"%s"', m.name), ', ' ORDER BY m.region_id) INTO behind
		FROM homing.local_region l JOIN homing.member m ON m.region_id <> l.region_id AND m.status <> 'lost'
		LEFT JOIN pg_replication_slots s ON s.slot_name = homing._stream_name(l.region_id, m.region_id)
		WHERE s.confirmed_flush_lsn IS NULL OR s.confirmed_flush_lsn < target;
		EXIT WHEN behind IS NULL;
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'not every region has received the writes of this one' USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = format('Behind: %s.', behind), HINT = 'homing.regions shows the lag. Try again when replication has caught up.';
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
END
$$;
COMMENT ON FUNCTION homing._await_replication(interval) IS
	'waits until every other region has received what this one has written so far; 55000 when that takes too long';

-- --- the functions -------------------------------------------------------------------------------------

-- Homes a table at all regions. Everything at the peers is done in sessions that follow this transaction:
-- their parts commit first, each leaving a table that is "preparing" and refuses writes, then ours with the
-- row of homing.activation. A crash in between leaves such tables; the next call replaces them.
CREATE FUNCTION homing.home_table("table" regclass, key text, placement text DEFAULT 'hash', colocate_with regclass DEFAULT NULL,
	region text DEFAULT NULL, homes int DEFAULT 128, allow_unenforced_unique boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	relation ALIAS FOR $1;
	purpose CONSTANT text := 'home a table';
	here CONSTANT homing.local_region := homing._require_serving();
	here_name text;
	name text;
	peers int2[];
	peer int2;
	key_attnum int2;
	space homing.keyspace;
	owner int2;
	table_id bigint;
	last record;
	digest text;
	event_reason text;
BEGIN
	IF relation IS NULL OR key IS NULL OR placement IS NULL OR homes IS NULL OR allow_unenforced_unique IS NULL THEN
		RAISE EXCEPTION 'arguments of home_table must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM homing._check_owner(relation);
	PERFORM homing._check_kind(relation);
	IF placement NOT IN ('hash', 'first_write', 'region') THEN
		RAISE EXCEPTION 'invalid placement "%"', placement USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Placements are "hash", "first_write" and "region".';
	END IF;
	IF placement = 'region' AND colocate_with IS NULL AND region IS NULL THEN
		RAISE EXCEPTION 'placement "region" needs a region' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Pass region => ''name''.';
	ELSIF region IS NOT NULL AND (placement <> 'region' OR colocate_with IS NOT NULL) THEN
		RAISE EXCEPTION 'a region is only given for placement "region"' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF homes NOT BETWEEN 1 AND 4096 THEN
		RAISE EXCEPTION 'number of homes must be between 1 and 4096' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	name := format('%I.%I', (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation),
		(SELECT c.relname FROM pg_class c WHERE c.oid = relation));
	IF cardinality(homing._living(homing._map())) > 1 THEN
		PERFORM homing._require_clean_transaction(purpose);
	END IF;

	peers := homing._begin_change(purpose);
	here_name := (SELECT m.name FROM homing.member m WHERE m.region_id = here.region_id);
	-- Cheap refusals before anything is locked that others use.
	key_attnum := homing._check_table(relation, key, allow_unenforced_unique);
	PERFORM homing._discard_preparing(relation, true);
	IF EXISTS (SELECT FROM homing.homed_table t WHERE t.relid = relation) THEN
		RAISE EXCEPTION 'table "%" is already homed', name USING ERRCODE = 'duplicate_object',
			HINT = 'homing.tables lists the homed tables; homing.unhome_table makes one an ordinary table again.';
	END IF;
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);

	SELECT * INTO last FROM homing._last_ids();
	FOREACH peer IN ARRAY peers LOOP
		SELECT greatest(last.table_id, q[1]::bigint) AS table_id, greatest(last.keyspace_id, q[2]::int4) AS keyspace_id INTO last
		FROM homing._peer_query(homing._region_session(peer), 'SELECT table_id, keyspace_id FROM homing._last_ids()') q;
	END LOOP;
	table_id := last.table_id + 1;

	IF colocate_with IS NOT NULL THEN
		space := homing._colocation(colocate_with, relation, key_attnum);
		IF placement <> 'hash' AND placement <> space.placement THEN
			RAISE EXCEPTION 'placement of table "%" is "%"', colocate_with, space.placement USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Co-located tables share their placement: leave it out.';
		END IF;
		event_reason := format('%s by %I, with %s', name, key, colocate_with);
	ELSE
		space.keyspace_id := last.keyspace_id + 1;
		space.name := CASE WHEN EXISTS (SELECT FROM homing.keyspace k WHERE k.name = name) THEN name || ' ' || space.keyspace_id ELSE name END;
		space.placement := placement;
		IF placement = 'region' THEN
			owner := homing._active_region(region);
			-- One home: when its owner is lost, the keys still stay together.
			space.recorded_owners := ARRAY[owner];
			event_reason := format('%s by %I, at region %s', name, key, region);
		ELSE
			space.recorded_owners := homing._spread(homes, ARRAY(
				SELECT m.region_id FROM homing.member m WHERE m.status = 'active' ORDER BY m.region_id));
			event_reason := format('%s by %I, %s homes%s', name, key, homes,
				CASE placement WHEN 'first_write' THEN ', by first write' ELSE '' END);
		END IF;
	END IF;

	digest := CASE WHEN cardinality(peers) > 0 THEN homing._rows_digest(relation) END;
	FOREACH peer IN ARRAY peers LOOP
		PERFORM homing._peer_query(homing._region_session(peer),
			'SELECT homing._take_table($1, $2, $3, $4, $5, $6::bigint, $7::int4, $8, $9, $10::int2[], $11::boolean)',
			here_name, name, homing._table_shape(relation), digest, key, table_id::text, space.keyspace_id::text,
			space.name, space.placement, space.recorded_owners::text, allow_unenforced_unique::text);
		PERFORM homing._peer_query(homing._region_session(peer), 'SELECT homing._record_event($1, $2, $3, $4)',
			'home_table', here_name, session_user, event_reason);
	END LOOP;
	PERFORM homing._register_table(relation, key, table_id, space.keyspace_id, space.name, space.placement, space.recorded_owners,
		allow_unenforced_unique);
	INSERT INTO homing.activation (table_id) VALUES (table_id);
	PERFORM homing._record_event('home_table', here_name, session_user, event_reason);
END
$$;
COMMENT ON FUNCTION homing.home_table(regclass, text, text, regclass, text, int, boolean) IS
	'homes a table at all regions: each row is written at the region that its key column leads to. placement: hash (default), spreads keys over the regions; first_write, each key goes to the region that first writes it; region, all keys at one region. colocate_with: shares the homes of another homed table. The table is brought to regions that do not have it, with its rows. Needs every region';

-- The keyspace of a homed table, if the column can share it.
CREATE FUNCTION homing._colocation(colocate_with regclass, relation regclass, key_attnum int2) RETURNS homing.keyspace
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	space homing.keyspace;
	their_type oid;
	our_type oid;
BEGIN
	SELECT k.* INTO space FROM homing.keyspace k JOIN homing.homed_table t USING (keyspace_id) WHERE t.relid = colocate_with;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'table "%" is not homed', colocate_with USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Home the table to co-locate with first.';
	END IF;
	SELECT a.atttypid INTO their_type FROM homing.homed_table t JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum
	WHERE t.relid = colocate_with;
	SELECT a.atttypid INTO our_type FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = key_attnum;
	IF NOT homing._shares_key_bytes(their_type, our_type) THEN
		RAISE EXCEPTION 'key of type % cannot share the homes of table "%"', format_type(our_type, NULL), colocate_with
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The key there is of type %s.', format_type(their_type, NULL)),
				HINT = 'Keys of co-located tables are of one type, all integers, or all texts.';
	END IF;
	RETURN space;
END
$$;

-- Unhomes a table at all regions.
--
--  1. Every region marks the table as closing and lets its writers end. From then on writes are refused.
--  2. Every region waits until the others have received what it wrote: the copies are now equal.
--  3. All regions forget the table, in sessions that follow this transaction.
--
-- Steps 1 and 2 are committed on the way, in sessions of their own. A crash leaves the table closing; the
-- next call continues. A failure opens it again.
CREATE FUNCTION homing.unhome_table("table" regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	relation ALIAS FOR $1;
	here CONSTANT homing.local_region := homing._require_serving();
	here_name text;
	name text;
	peers int2[];
	peer int2;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION 'arguments of unhome_table must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM homing._check_owner(relation);
	PERFORM homing._require_homed(relation);
	IF cardinality(homing._living(homing._map())) > 1 THEN
		PERFORM homing._require_clean_transaction('unhome a table');
	END IF;
	peers := homing._begin_change('unhome a table');
	PERFORM homing._require_homed(relation);
	here_name := (SELECT m.name FROM homing.member m WHERE m.region_id = here.region_id);
	name := format('%I.%I', (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation),
		(SELECT c.relname FROM pg_class c WHERE c.oid = relation));

	IF cardinality(peers) > 0 THEN
		BEGIN
			FOREACH peer IN ARRAY peers || here.region_id LOOP
				PERFORM homing._peer_open('step ' || peer, homing._region_conninfo(m.name)) FROM homing.member m WHERE m.region_id = peer;
				PERFORM homing._peer_query('step ' || peer, 'SELECT homing._close_table(to_regclass($1), true)', name);
			END LOOP;
			FOREACH peer IN ARRAY peers || here.region_id LOOP
				PERFORM homing._peer_query('step ' || peer, 'SELECT homing._let_writers_end(to_regclass($1))', name);
			END LOOP;
			FOREACH peer IN ARRAY peers || here.region_id LOOP
				PERFORM homing._peer_query('step ' || peer, 'SELECT homing._await_replication()');
			END LOOP;
		EXCEPTION WHEN query_canceled OR OTHERS THEN
			FOREACH peer IN ARRAY peers || here.region_id LOOP
				BEGIN
					PERFORM homing._peer_open('step ' || peer, homing._region_conninfo(m.name)) FROM homing.member m WHERE m.region_id = peer;
					PERFORM homing._peer_query('step ' || peer, 'SELECT homing._close_table(to_regclass($1), false)', name);
				EXCEPTION WHEN OTHERS THEN
					RAISE WARNING 'table "%" refuses writes at region "%": %', name,
						(SELECT m.name FROM homing.member m WHERE m.region_id = peer), SQLERRM USING HINT = 'Call homing.unhome_table again.';
				END;
			END LOOP;
			RAISE;
		END;
	END IF;

	FOREACH peer IN ARRAY peers LOOP
		PERFORM homing._peer_query(homing._region_session(peer),
			'SELECT homing._unregister_table(to_regclass($1)) WHERE EXISTS (SELECT FROM homing.homed_table t WHERE t.relid = to_regclass($1))', name);
		PERFORM homing._peer_query(homing._region_session(peer), 'SELECT homing._record_event($1, $2, $3, $4)',
			'unhome_table', here_name, session_user, name);
	END LOOP;
	PERFORM homing._unregister_table(relation);
	PERFORM homing._record_event('unhome_table', here_name, session_user, name);
END
$$;
COMMENT ON FUNCTION homing.unhome_table(regclass) IS
	'makes a homed table an ordinary table at every region; each keeps its rows, which are equal then. Needs every region';

CREATE FUNCTION homing._require_homed(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM homing.homed_table t WHERE t.relid = relation) THEN
		RAISE EXCEPTION 'table "%" is not homed', relation USING ERRCODE = 'invalid_parameter_value',
			HINT = 'homing.tables lists the homed tables.';
	END IF;
END
$$;

-- The keyspace of the table. The row that makes it active may be on its way.
CREATE FUNCTION homing._await_activation(relation regclass) RETURNS int4
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	give_up CONSTANT timestamptz := clock_timestamp() + interval '5 seconds';
	space int4;
BEGIN
	LOOP
		SELECT t.keyspace_id INTO space FROM homing.homed_table t
		WHERE t.relid = relation AND NOT t.closing AND EXISTS (SELECT FROM homing.activation x WHERE x.table_id = t.table_id);
		IF FOUND THEN
			RETURN space;
		END IF;
		IF clock_timestamp() > give_up THEN
			RAISE EXCEPTION 'table "%" is not active', relation USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'homing.tables shows its state. Try again when every region has the table.';
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

CREATE FUNCTION homing._close_table(relation regclass, close boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE homing.homed_table t SET closing = close WHERE t.relid = relation AND t.closing <> close
$$;

-- Requires: the closing is committed.
CREATE FUNCTION homing._let_writers_end(relation regclass) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT homing._lock_homes(k.keyspace_id, k.homes) FROM homing.keyspace k JOIN homing.homed_table t USING (keyspace_id)
	WHERE t.relid = relation
$$;

-- Assigns a key. The present owner of the key decides, alone: it holds the lock of the key's home, so nobody
-- writes the key meanwhile, and from the commit on it does not serve it any more. The new owner serves the
-- key when it has all that the old one wrote: the assignment is to a key what a release is to a home.
CREATE FUNCTION homing.assign_key("table" regclass, key anycompatible, region text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	relation ALIAS FOR $1;
	here CONSTANT homing.local_region := homing._require_serving();
	space int4;
	bytes bytea;
	target int2;
	owner int2;
	owner_name text;
	assigned boolean;
	event_reason text;
BEGIN
	IF relation IS NULL OR key IS NULL OR region IS NULL THEN
		RAISE EXCEPTION 'arguments of assign_key must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM homing._check_owner(relation);
	PERFORM homing._require_homed(relation);
	space := homing._await_activation(relation);
	target := homing._active_region(region);
	bytes := homing._key_bytes(relation, key);
	owner := homing._key_owner(space, bytes);
	IF owner = target AND NOT EXISTS (SELECT FROM homing.keyspace k WHERE k.keyspace_id = space AND k.placement = 'first_write'
			AND NOT EXISTS (SELECT FROM homing.assignment a WHERE a.keyspace_id = space AND a.key = bytes)) THEN
		RETURN;
	END IF;
	SELECT m.name INTO owner_name FROM homing.member m WHERE m.region_id = owner;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the region of the key and all its heirs are lost' USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection';
	END IF;
	event_reason := format('key %s of %s, from region %s', key, relation, owner_name);

	IF owner = here.region_id THEN
		assigned := homing._assign_here(space, bytes, target, region, session_user, event_reason);
	ELSE
		-- Ids of keyspaces are the same everywhere, those of tables are not needed there.
		PERFORM homing._peer_open(homing._region_session(owner), homing._region_conninfo(owner_name));
		PERFORM homing._peer_follow(homing._region_session(owner));
		SELECT q[1]::boolean INTO assigned FROM homing._peer_query(homing._region_session(owner),
			'SELECT homing._assign_here($1::int4, $2::bytea, $3::int2, $4, $5, $6)',
			space::text, bytes::text, target::text, region, session_user, event_reason) q;
		IF assigned THEN
			PERFORM homing._record_event('assign_key', region, session_user, event_reason);
		END IF;
	END IF;
END
$$;
COMMENT ON FUNCTION homing.assign_key(regclass, anycompatible, text) IS
	'assigns a key, with its rows, to a region, in all co-located tables; from any region. The present owner of the key and the region must be reachable. Writes of the key wait until its rows are there';

CREATE FUNCTION homing._assign_here(keyspace_id int4, key bytea, target int2, region text, actor text, reason text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._check_follower(target) FROM homing.local_region l WHERE l.region_id <> target;
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'local', true);
	END IF;
	IF NOT homing._assign(keyspace_id, key, target) THEN
		RETURN false;
	END IF;
	PERFORM homing._record_event('assign_key', region, actor, reason);
	RETURN true;
END
$$;
