-- Regions: how they are reached, and how a cluster comes to be.
--
-- A region is a SERVER of the foreign data wrapper "homing" that is named like it; credentials are USER
-- MAPPINGs. create_cluster and join_cluster make the mapping of the role that calls them (and, at the other
-- regions, of the role that called them there); those of other roles are the administrator's to make.

CREATE FUNCTION homing._fdw_validator(options text[], catalog oid) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_fdw_validator';

CREATE FOREIGN DATA WRAPPER homing VALIDATOR homing._fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER homing IS 'regions of a cluster, one server each';

CREATE FUNCTION homing._conninfo_options(conninfo text, OUT keyword text, OUT value text, OUT of_user boolean)
RETURNS SETOF record
STRICT IMMUTABLE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_conninfo_options';
COMMENT ON FUNCTION homing._conninfo_options(text) IS
	'the options of a connection string; of_user: it belongs into a user mapping';

CREATE FUNCTION homing._add_stream_table(stream text, relation regclass) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_add_stream_table';
COMMENT ON FUNCTION homing._add_stream_table(text, regclass) IS
	'lets the subscription apply changes of the table from now on; no rows are copied';

CREATE FUNCTION homing._advance_slot(slot text, target pg_lsn) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_advance_slot';
COMMENT ON FUNCTION homing._advance_slot(text, pg_lsn) IS
	'moves an unused slot forward, durably';

CREATE FUNCTION homing._bring_schema(conninfo text, tables text[]) RETURNS void
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_bring_schema';
COMMENT ON FUNCTION homing._bring_schema(text, text[]) IS
	'recreates tables of another database here, with all that they need; names are schema-qualified. What exists already is left as it is, except the tables';

CREATE FUNCTION homing._bring_rows(session text, relation regclass, condition text DEFAULT 'true', into_table regclass DEFAULT '-') RETURNS bigint
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'homing_bring_rows';
COMMENT ON FUNCTION homing._bring_rows(text, regclass, text, regclass) IS
	'copies rows of the table of that name in the session, those of the condition, here or into another table with these columns, and returns how many; they are not sent on to other regions';

-- Whether a thing of a dumped schema exists here, so that it is not created again.
CREATE FUNCTION homing._has_object(kind text, schema text, name text) RETURNS boolean
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN kind = 'SCHEMA' THEN EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = name)
		WHEN kind = 'EXTENSION' THEN EXISTS (SELECT FROM pg_extension e WHERE e.extname = name)
		WHEN kind IN ('PROCEDURAL LANGUAGE', 'LANGUAGE') THEN EXISTS (SELECT FROM pg_language l WHERE l.lanname = name)
		WHEN kind IN ('TYPE', 'DOMAIN', 'SHELL TYPE') THEN to_regtype(format('%I.%I', schema, name)) IS NOT NULL
		WHEN kind IN ('FUNCTION', 'PROCEDURE') THEN
			to_regprocedure(format('%I.%s', schema, quote_ident(split_part(name, '(', 1)) || substr(name, strpos(name, '(')))) IS NOT NULL
		WHEN kind = 'COLLATION' THEN to_regcollation(format('%I.%I', schema, name)) IS NOT NULL
		WHEN kind IN ('TABLE', 'SEQUENCE') THEN to_regclass(format('%I.%I', schema, name)) IS NOT NULL
		ELSE false END
$$;

-- --- connection strings and servers -----------------------------------------------------------------

CREATE FUNCTION homing._conninfo(conninfo text) RETURNS text
STABLE STRICT LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('%s=''%s''', o.keyword, replace(replace(o.value, E'\\', E'\\\\'), '''', E'\\''')), ' ')
	FROM (SELECT keyword, value FROM homing._conninfo_options(conninfo)
		  UNION ALL
		  SELECT 'user', current_user
		  WHERE NOT EXISTS (SELECT FROM homing._conninfo_options(conninfo) WHERE keyword = 'user')) o
$$;
COMMENT ON FUNCTION homing._conninfo(text) IS
	'the connection string in one form, with the user it means: the current one unless it names another';

CREATE FUNCTION homing._place(conninfo text) RETURNS text
STABLE STRICT LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(string_agg(format('%s=%s', keyword, value), ' '), 'the default server')
	FROM homing._conninfo_options(conninfo) WHERE keyword IN ('host', 'hostaddr', 'port', 'dbname')
$$;
COMMENT ON FUNCTION homing._place(text) IS 'where a connection string leads to, for messages';

-- The SERVER of a region and its administrator's USER MAPPING here. Those of a lost region of that name
-- are kept and changed, with what other roles have there.
CREATE FUNCTION homing._put_server(region text, conninfo text, administrator name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	of_server CONSTANT text := (SELECT string_agg(format('%I %L', keyword, value), ', ')
		FROM homing._conninfo_options(conninfo) WHERE NOT of_user);
	of_user CONSTANT text := (SELECT string_agg(format('%I %L', o.keyword, o.value), ', ')
		FROM homing._conninfo_options(conninfo) o WHERE o.of_user);
	known text[];
BEGIN
	SELECT s.srvoptions INTO known FROM pg_foreign_server s WHERE s.srvname = region;
	IF FOUND THEN
		IF known IS NOT NULL THEN
			EXECUTE format('ALTER SERVER %I OPTIONS (%s)', region,
				(SELECT string_agg(format('DROP %I', option_name), ', ') FROM pg_options_to_table(known)));
		END IF;
		IF of_server IS NOT NULL THEN
			EXECUTE format('ALTER SERVER %I OPTIONS (%s)', region, of_server);
		END IF;
		EXECUTE format('DROP USER MAPPING IF EXISTS FOR %I SERVER %I', administrator, region);
	ELSE
		EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER homing%s', region,
			coalesce(format(' OPTIONS (%s)', of_server), ''));
	END IF;
	EXECUTE format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (%s)', administrator, region, of_user);
END
$$;

-- --- what a region must be like -------------------------------------------------------------------------

CREATE FUNCTION homing._listed(list text, name text) RETURNS boolean
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM regexp_matches(list, '"([^"]*)"|([^",[:space:]]+)', 'g') AS m
				   WHERE coalesce(m[1], m[2]) IN (name, '$libdir/' || name))
$$;

-- Settings of this server that do not fit a region with so many more peers.
CREATE FUNCTION homing._unfit_settings(peers int, OUT setting text, OUT value text, OUT needed text, OUT hint text)
RETURNS SETOF record
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	WITH used AS (
		SELECT
			-- A database that is no region gives back those it had as one.
			(SELECT count(*) FROM pg_replication_slots s
			 WHERE (s.database = current_database() AND s.plugin = 'pg_homing') IS NOT TRUE OR EXISTS (SELECT FROM homing.local_region)) AS slots,
			(SELECT count(*) FROM pg_replication_origin_status) AS origins,
			(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS senders,
			(SELECT count(*) FROM pg_subscription WHERE subenabled) AS subscriptions,
			(SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('logical replication launcher', 'pg_homing launcher'))
				+ (SELECT count(*) FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'walsender', 'walreceiver',
					'autovacuum launcher', 'autovacuum worker', 'archiver', 'background writer', 'checkpointer', 'startup',
					'walwriter', 'logger', 'parallel worker', 'logical replication launcher', 'logical replication worker',
					'pg_homing launcher')) AS workers
	), limits (setting, used, more) AS (
		-- One of three regions or more has a tail slot as well.
		SELECT 'max_replication_slots', greatest(slots, origins),
			peers + CASE WHEN peers + (SELECT greatest(count(*), 1) FROM homing.member m WHERE m.status <> 'lost') < 3
				OR EXISTS (SELECT FROM homing.tail_slot) THEN 0 ELSE 1 END FROM used
		UNION ALL
		-- A slot whose walsender is away will want it back.
		SELECT 'max_wal_senders', greatest(senders, slots), peers FROM used
		UNION ALL
		SELECT 'max_logical_replication_workers', subscriptions, peers FROM used
		UNION ALL
		-- Our own worker, the keeper of the lease, the declarer of losses.
		SELECT 'max_worker_processes', workers + subscriptions + 3, peers FROM used
	), unfit (setting, needed) AS (
		SELECT 'shared_preload_libraries', 'pg_homing among its libraries'
		WHERE NOT homing._listed(current_setting('shared_preload_libraries'), 'pg_homing')
		UNION ALL
		SELECT 'wal_level', 'logical' WHERE current_setting('wal_level') <> 'logical'
		UNION ALL
		SELECT 'output_plugin_libraries', 'pg_homing among its libraries, each one a list element of its own'
		-- Minor releases before August 2026 do not have it.
		WHERE current_setting('output_plugin_libraries', true) IS NOT NULL
			AND NOT homing._listed(current_setting('output_plugin_libraries', true), 'pg_homing')
		UNION ALL
		SELECT 'max_prepared_transactions', 'at least 1' WHERE current_setting('max_prepared_transactions')::int < 1
		UNION ALL
		SELECT 'track_commit_timestamp', 'on' WHERE NOT current_setting('track_commit_timestamp')::boolean
		UNION ALL
		SELECT setting, format('at least %s: %s in use, %s more for its streams', used + more, used, more)
		FROM limits WHERE current_setting(setting)::bigint < used + more
	)
	SELECT setting, current_setting(setting), needed,
		CASE setting
			WHEN 'output_plugin_libraries' THEN 'Add pg_homing in postgresql.conf and reload the server, as in: output_plugin_libraries = ''pgoutput, test_decoding, pg_homing''.'
			WHEN 'shared_preload_libraries' THEN 'Add pg_homing in postgresql.conf and restart the server, as in: shared_preload_libraries = ''pg_homing''.'
			ELSE format('Change %s in postgresql.conf and restart the server.', setting) END
	FROM unfit
$$;

CREATE FUNCTION homing._check_settings(region text, peers int) RETURNS void
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	unfit record;
BEGIN
	SELECT * INTO unfit FROM homing._unfit_settings(peers) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'region "%" has % = %, but needs %', region, unfit.setting,
			coalesce(nullif(unfit.value, ''), ''''''), unfit.needed
			USING ERRCODE = 'config_file_error', HINT = unfit.hint;
	END IF;
END
$$;

-- What must be equal at all regions.
CREATE FUNCTION homing._properties() RETURNS jsonb
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object(
		'major version of PostgreSQL', current_setting('server_version_num')::int / 10000,
		'version of pg_homing', (SELECT extversion FROM pg_extension WHERE extname = 'pg_homing'),
		'homing.fencing', current_setting('homing.fencing'),
		'encoding', pg_encoding_to_char(d.encoding),
		'collation provider', CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'c' THEN 'libc' ELSE d.datlocprovider::text END,
		'lc_collate', d.datcollate, 'lc_ctype', d.datctype, 'ICU locale', coalesce(d.daticulocale, 'none'))
	FROM pg_database d WHERE d.datname = current_database()
$$;

CREATE FUNCTION homing._compare_properties(region text, theirs jsonb) RETURNS void
STABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	other record;
BEGIN
	SELECT t.key AS property, t.value AS there, h.value AS here INTO other
	FROM jsonb_each_text(theirs) t LEFT JOIN jsonb_each_text(homing._properties()) h USING (key)
	WHERE h.value IS DISTINCT FROM t.value ORDER BY t.key COLLATE "C" LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'this database has % %, but region "%" has %', other.property, other.here, region, other.there
			USING ERRCODE = 'config_file_error', HINT = 'All regions of a cluster must have the same.';
	END IF;
END
$$;

-- A table as it must be at every region; names are qualified by the search_path.
CREATE FUNCTION homing._describe_table(relation regclass) RETURNS jsonb
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object(
		'kind', c.relkind, 'replica identity', c.relreplident,
		'columns', (SELECT jsonb_object_agg(a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
				CASE WHEN a.attcollation <> 0 THEN 'COLLATE ' || a.attcollation::regcollation END,
				CASE WHEN a.attnotnull THEN 'NOT NULL' END,
				CASE a.attgenerated WHEN 's' THEN 'GENERATED' END))
			FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped),
		'constraints', (SELECT jsonb_agg(pg_get_constraintdef(n.oid) ORDER BY pg_get_constraintdef(n.oid))
			FROM pg_constraint n WHERE n.conrelid = relation AND n.contype IN ('p', 'u', 'x', 'c')),
		'unique indexes', (SELECT jsonb_agg(d ORDER BY d)
			FROM pg_index i CROSS JOIN LATERAL regexp_replace(pg_get_indexdef(i.indexrelid), '^.*? ON ', '') AS d
			WHERE i.indrelid = relation AND i.indisunique))
	FROM pg_class c WHERE c.oid = relation
$$;

-- --- create_cluster ---------------------------------------------------------------------------------

CREATE FUNCTION homing._require_administrator(purpose text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
		RAISE EXCEPTION 'must be superuser to %', purpose USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF EXISTS (SELECT FROM homing.local_region) AND purpose <> 'join a cluster' THEN
		RAISE EXCEPTION 'this database is region "%" of a cluster already',
			(SELECT m.name FROM homing.local_region JOIN homing.member m USING (region_id))
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
END
$$;

CREATE FUNCTION homing._check_name(name text) RETURNS void
IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF name IS NULL OR name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		RAISE EXCEPTION 'invalid region name %', coalesce(quote_literal(name), 'NULL')
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'A region name has 1 to 63 characters: lower-case letters, digits and underscores, a letter first.';
	END IF;
END
$$;

-- An advisory lock with a number nobody guesses: a session that sees it is in this very database, not in
-- a copy of it.
CREATE FUNCTION homing._nonce() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	number CONSTANT bigint := ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint;
BEGIN
	PERFORM pg_advisory_xact_lock(number);
	RETURN number::text;
END
$$;

CREATE FUNCTION homing._sees_nonce(session text, nonce text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT q[1]::boolean FROM homing._peer_query(session,
		'SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		 WHERE l.locktype = ''advisory'' AND d.datname = current_database() AND l.objsubid = 1
			AND (l.classid::bigint << 32) | l.objid::bigint = $1::bigint)', nonce) q
$$;

-- Opens a session for the steps of a join: each statement on its own unless the session says BEGIN.
CREATE FUNCTION homing._open_step(session text, conninfo text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._peer_open(session, conninfo);
	PERFORM homing._peer_query(session,
		'SELECT set_config(s, v, false) FROM (VALUES (''lock_timeout'', ''10s''), (''statement_timeout'', ''0''),
			(''idle_in_transaction_session_timeout'', ''0''), (''default_transaction_read_only'', ''off''),
			(''default_transaction_isolation'', ''read committed''), (''synchronous_commit'', ''local''), (''client_min_messages'', ''warning''),
			(''jit'', ''off'')) AS x(s, v)');
END
$$;

-- The session called "self" leads to this database, as a superuser.
CREATE FUNCTION homing._open_self(conninfo text, nonce text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM homing._open_step('self', conninfo);
	IF NOT homing._sees_nonce('self', nonce) THEN
		RAISE EXCEPTION 'the connection string does not lead to this database'
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = format('It leads to %s; this is database "%s".', homing._place(conninfo), current_database()),
				HINT = 'The second argument says how the other regions reach the database in which the function is called.';
	END IF;
	PERFORM homing._require_superuser('self', 'this database');
END
$$;

CREATE FUNCTION homing._require_superuser(session text, place text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT (SELECT q[1]::boolean FROM homing._peer_query(session, 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user') q) THEN
		RAISE EXCEPTION 'the connection to % is not that of a superuser', place
			USING ERRCODE = 'insufficient_privilege',
				HINT = 'Regions talk to each other as the administrator: name one with user=... in the connection string.';
	END IF;
END
$$;

CREATE FUNCTION homing.create_cluster(name text, conninfo text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	address text;
BEGIN
	PERFORM homing._require_administrator('create a cluster');
	PERFORM homing._check_name(name);
	IF conninfo IS NULL THEN
		RAISE EXCEPTION 'the connection string must be given' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	address := homing._conninfo(conninfo);
	PERFORM homing._check_settings(name, 1);
	PERFORM homing._lock_change();
	PERFORM homing._open_self(address, homing._nonce());
	PERFORM homing._peer_close('self');
	PERFORM homing._check_vacant();
	IF EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = name) THEN
		RAISE EXCEPTION 'server "%" already exists', name USING ERRCODE = 'duplicate_object',
			HINT = 'create_cluster makes the server of the region: drop it, or choose another name.';
	END IF;

	EXECUTE homing._publication();
	PERFORM homing._put_server(name, address, current_user);
	INSERT INTO homing.local_region (region_id, cluster_id, admin) VALUES (1, gen_random_uuid(), current_user);
	INSERT INTO homing.cluster_map (epoch) VALUES (1);
	PERFORM homing._forget_other_votes();
	INSERT INTO homing.member (region_id, name, status, joined_epoch) VALUES (1, create_cluster.name, 'active', 1);
	INSERT INTO homing.event (at, epoch, kind, region, actor)
	VALUES (clock_timestamp(), 1, 'create_cluster', create_cluster.name, session_user);
	PERFORM homing._start_worker();
END
$$;
COMMENT ON FUNCTION homing.create_cluster(text, text) IS
	'makes this database the first region of a new cluster. conninfo says how other regions reach it, as superuser. Fails with F0000 when a setting does not fit, with 08001 when the connection string does not work';

-- Raises if something of the name that a region needs is here and not ours.
CREATE FUNCTION homing._check_vacant() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_publication p WHERE p.pubname = 'homing'
			   AND (p.puballtables
					OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid)
					OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
							   WHERE r.prpubid = p.oid AND c.relnamespace <> 'homing'::regnamespace))) THEN
		RAISE EXCEPTION 'publication "homing" already exists' USING ERRCODE = 'duplicate_object',
			HINT = 'A region has a publication of that name for its own: drop or rename the one that is there.';
	END IF;
	-- What a call that was cut off left, or the extension when it was dropped.
	IF EXISTS (SELECT FROM pg_publication p WHERE p.pubname = 'homing') THEN
		DROP PUBLICATION homing;
	END IF;
END
$$;

-- The tables that are in the stream of every region, besides the homed ones.
CREATE FUNCTION homing._replicated_tables() RETURNS regclass[]
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY['homing.activation', 'homing.assignment', 'homing.key_acceptance', 'homing.milestone', 'homing.ownership', 'homing.dependency', 'homing.outcome',
		'homing.lost_part', 'homing.orphan', 'homing.orphan_review']::regclass[]
$$;

CREATE FUNCTION homing._publication() RETURNS text
IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('CREATE PUBLICATION homing FOR TABLE %s WITH (publish_via_partition_root = true)', string_agg(r::text, ', '))
	FROM unnest(homing._replicated_tables()) r
$$;
