-- Who may do what. Tables and functions are for the administrator; everybody may look at the views and ask
-- where a key is at home.
--
-- A view reads the tables below it with its owner's rights, but the functions it calls are checked against
-- the caller's, and so is what an SQL or PL/pgSQL function reads: views call C functions, and functions of
-- nothing but their arguments.

GRANT USAGE ON SCHEMA homing TO PUBLIC;

DO $$
DECLARE
	for_everybody CONSTANT text[] := ARRAY['home_of', '_owns', '_routed', '_serves', '_check_option', '_unreferenced', '_exact_text', '_owner', '_heirs', '_homes', '_peer_seen', '_lease_left', '_cluster_stream',
		'outcome', '_greet', '_keep_outcome', '_settle_outcome', '_last_commit',
		'_begin_change_everywhere', '_await_change_everywhere', '_prepare_change_everywhere', 'run_everywhere',
		'_final_position', 'causal_token', 'wait_for', '_forward_stats', '_sessions'];
	item record;
BEGIN
	FOR item IN
		SELECT p.oid::regprocedure AS signature, p.proname, l.lanname IN ('sql', 'plpgsql') AS queries
		FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'homing'::regnamespace
	LOOP
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', item.signature);
		IF item.proname = ANY (for_everybody) THEN
			EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', item.signature);
		END IF;
		-- Our tables have a few rows and no statistics, so that their queries look as if compiling them paid.
		IF item.queries THEN
			EXECUTE format('ALTER FUNCTION %s SET jit = off', item.signature);
		END IF;
	END LOOP;
	FOR item IN
		SELECT c.oid::regclass AS view FROM pg_class c WHERE c.relnamespace = 'homing'::regnamespace AND c.relkind = 'v' AND c.relname !~ '^_'
			AND c.relname <> 'orphaned_writes'  -- shows rows
	LOOP
		EXECUTE format('GRANT SELECT ON %s TO PUBLIC', item.view);
	END LOOP;
END
$$;
