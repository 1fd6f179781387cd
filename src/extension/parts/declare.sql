-- Declares regions lost: their homes pass to their heirs at every survivor.
--
--  1. A session with every survivor, ourselves included, each holding the survivor's change lock; so one
--     declaration, join or home_table runs at a time. All survivors get the newest map there is; if it
--     already has the loss, only 6 is left to do. Each step is sent to all at once, and goes out with the one before
--     it where it need not know its outcome: opening a session apart, it takes two round trips until the heirs serve.
--  2. Every survivor stops applying from the lost regions and waits until its apply worker is gone.
--  3. Every survivor tells how far it applied. A survivor that missed the tail would serve keys whose last
--     writes it does not have: those who are behind receive it from the furthest (relay.sql). For whom nobody has kept it
--     serves later than the others (missing.sql); somebody must have all.
--     Without force, before 2: a majority of the voters accepts the map of epoch + 1 in which the regions are
--     pending (vote.sql). They do when all that they promised to them has ended; so by then the regions do not
--     serve. And instead of 5's first adoption, a majority accepts the map of 4.
--  4. The new map: epoch + 1, the regions lost, their final positions, the survivors.
--  5. Every survivor adopts it, and serves.
--  6. Every survivor removes the subscriptions from, and the slots of, the lost regions.
--
-- A crash between 2 and 5 leaves subscriptions disabled; the next declaration, from any survivor,
-- continues. With votes there is no way back from the first one: the worker of any survivor goes on. One after the
-- first adoption in 5 is finished by the workers. The lost regions are told by the workers too.

CREATE FUNCTION homing._voting(map jsonb, reached int2[]) RETURNS int2[]
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(v ORDER BY v), '{}') FROM unnest(homing._voters(map)) v WHERE v = ANY (reached)
$$;

-- Lets a majority vote that the regions are about to be lost, and tells the survivors, who stop applying from them.
-- Returns the map that was decided and who voted.
CREATE FUNCTION homing._vote_lost(newest jsonb, targets int2[], survivors int2[], witnesses int2[], purpose text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	voters CONSTANT int2[] := homing._voters(newest);
	voting CONSTANT int2[] := homing._voting(newest, survivors || witnesses);
	proposed jsonb;
	decided jsonb;
	outcome jsonb;
	target int2;
BEGIN
	IF cardinality(voting) <= cardinality(voters) / 2 THEN
		RAISE EXCEPTION 'cannot %: % of % voters are no majority', purpose, cardinality(voting), cardinality(voters)
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Make sure that the lost regions are stopped and stay so, then pass force => true: it is your word for that.';
	END IF;
	-- Each round decides something: what earlier calls left, then this. Nobody else is at it, by the change locks.
	FOR attempt IN 1 .. 10 LOOP
		IF NOT EXISTS (SELECT FROM jsonb_array_elements(newest->'members') m
					   WHERE (m->>'id')::int2 = ANY (targets) AND m->>'status' <> 'lost' AND (m->>'pending')::boolean IS NOT TRUE)
			AND cardinality(homing._unfinished_votes()) = 0 THEN
			RETURN jsonb_build_object('map', newest, 'answered', outcome->'answered');
		END IF;
		proposed := jsonb_set(newest, '{epoch}', to_jsonb((newest->>'epoch')::bigint + 1));
		proposed := jsonb_set(proposed, '{members}', (
			SELECT jsonb_agg(CASE WHEN (m->>'id')::int2 = ANY (targets) AND m->>'status' <> 'lost'
				THEN m || jsonb_build_object('pending', true) ELSE m END ORDER BY (m->>'id')::int2)
			FROM jsonb_array_elements(newest->'members') m));
		outcome := homing._vote(proposed, voting, purpose);
		decided := outcome->'map';
		IF (decided->>'epoch')::bigint > (newest->>'epoch')::bigint + 1 THEN
			RAISE EXCEPTION 'cannot %: the cluster map here is not the newest', purpose
				USING ERRCODE = 'serialization_failure', HINT = 'Regions tell each other within a moment: try again.';
		END IF;
		-- What is on its way still counts.
		FOR target IN SELECT (m->>'id')::int2 FROM jsonb_array_elements(decided->'members') m WHERE (m->>'pending')::boolean LOOP
			PERFORM homing._at_survivors(survivors, 'SELECT homing._drain_lost($1)', target::text);
		END LOOP;
		PERFORM homing._at_survivors(survivors, 'SELECT homing._adopt_map($1::jsonb)', decided::text);
		PERFORM homing._tell(witnesses, decided);
		newest := decided;
	END LOOP;
	RAISE EXCEPTION 'cannot %: too many other losses are being decided', purpose
		USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Try again.';
END
$$;

-- Sessions may be gone with the failure that brought us here: new ones. What is still going on in the old ones is over
-- when they have let go of the change lock.
CREATE FUNCTION homing._resume_all(survivors int2[], targets int2[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	survivor int2;
	target int2;
	name text;
BEGIN
	FOREACH survivor IN ARRAY survivors LOOP
		SELECT m.name INTO name FROM homing.member m WHERE m.region_id = survivor;
		BEGIN
			PERFORM homing._peer_close('step ' || survivor);
			PERFORM homing._peer_open('resume ' || survivor, homing._region_conninfo(name));
			PERFORM homing._peer_query('resume ' || survivor, 'SET lock_timeout = ''10s''');
			FOREACH target IN ARRAY targets LOOP
				PERFORM homing._peer_query('resume ' || survivor, 'SELECT homing._lock_change(), homing._resume_applying($1)', target::text);
			END LOOP;
			PERFORM homing._peer_close('resume ' || survivor);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'region "%" could not be told to resume replication: %', name, SQLERRM
				USING HINT = 'Call homing.declare_lost again when the region can be reached.';
		END;
	END LOOP;
END
$$;

CREATE FUNCTION homing._loss(map jsonb, regions text[]) RETURNS jsonb
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('epoch', map->'epoch',
		'lost', (SELECT jsonb_agg(jsonb_build_object('region', m->'name', 'epoch', m->'lost_epoch',
					'final_lsn', m->'final_lsn') ORDER BY (m->>'id')::int2)
				 FROM jsonb_array_elements(map->'members') m
				 WHERE m->>'status' = 'lost' AND m->>'name' = ANY (regions)),
		'survivors', (SELECT jsonb_agg(homing._member_name(map, s) ORDER BY s) FROM unnest(homing._living(map)) s))
$$;

-- What declare_lost has found nothing wrong with.
CREATE FUNCTION homing._declare(regions text[], force boolean, reason text, actor text, purpose text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := (SELECT l FROM homing.local_region l);
	newest jsonb := homing._map();
	targets int2[];
	already text[] := '{}';
	survivors int2[];
	witnesses int2[];
	unopened int2[];
	behind int2[];
	opened int2[] := '{}';
	maps jsonb := '{}';
	stopped jsonb := '{}';  -- by survivor and target
	target int2;
	finals jsonb := '{}';
	votes jsonb;
	deciding int;
	noted uuid[] := '{}';
	lacking int2[] := '{}';  -- survivors that must copy before they serve
	lost_without_end CONSTANT int2[] := homing._lacking();
BEGIN
	BEGIN
		-- 1. Sessions, and the newest map. A newer map may name survivors that we did not know.
		LOOP
			SELECT coalesce(array_agg(DISTINCT homing._member_id(newest, r)), '{}') INTO targets
			FROM unnest(regions) r WHERE homing._member_id(newest, r) = ANY (homing._living(newest));
			SELECT array_agg(s ORDER BY s) INTO survivors FROM unnest(homing._living(newest)) s WHERE s <> ALL (targets);
			IF here.region_id <> ALL (survivors) THEN
				RAISE EXCEPTION 'this region was declared lost' USING ERRCODE = 'read_only_sql_transaction';
			END IF;
			unopened := ARRAY(SELECT s FROM unnest(survivors) s WHERE s <> ALL (opened) ORDER BY s);
			EXIT WHEN cardinality(unopened) = 0;
			SELECT maps || o.maps, stopped || o.stopped, lacking || o.lacking INTO maps, stopped, lacking FROM homing._open_survivors(newest, unopened,
				CASE WHEN force THEN targets ELSE '{}' END, here.cluster_id, purpose) o;
			opened := opened || unopened;
			SELECT m.value INTO newest FROM jsonb_each(maps) m ORDER BY (m.value->>'epoch')::bigint DESC LIMIT 1;
		END LOOP;
		behind := ARRAY(SELECT s FROM unnest(survivors) s WHERE homing._map_digest(maps->(s::text)) <> homing._map_digest(newest));
		PERFORM homing._at_survivors(behind, 'SELECT homing._adopt_map($1::jsonb)', newest::text);
		PERFORM homing._at_survivors(behind, 'SELECT homing._await_recount($1::bigint)', newest->>'epoch');

		SELECT coalesce(array_agg(r), '{}') INTO already FROM unnest(regions) r
		WHERE homing._member_id(newest, r) <> ALL (targets);
		IF cardinality(already) > 0 THEN
			RAISE NOTICE 'region % is already lost', (SELECT string_agg(format('"%s"', r), ', ') FROM unnest(already) r);
		END IF;

		-- A majority may have voted already, for an earlier call that did not get to the end.
		IF force IS NOT TRUE AND cardinality(targets) > 0 THEN
			witnesses := homing._open_witnesses(newest);
			votes := homing._vote_lost(newest, targets, survivors, witnesses, purpose);
			newest := votes->'map';
			-- Promises of those about to be lost no longer count anywhere: without them as voters, fewer can outvote
			-- a survivor.
			PERFORM homing._at_survivors(survivors, 'SELECT homing._await_recount($1::bigint)', newest->>'epoch');
			SELECT array_agg(t ORDER BY t) INTO targets FROM (
				SELECT (m->>'id')::int2 FROM jsonb_array_elements(newest->'members') m
				WHERE m->>'status' <> 'lost' AND (m->>'pending')::boolean) x(t);
			targets := coalesce(targets, '{}');
		END IF;

		IF cardinality(targets) > 0 THEN
			-- 2. With force it is done where the map was the newest.
			IF EXISTS (SELECT FROM unnest(survivors) s, unnest(targets) t WHERE stopped->(s::text)->(t::text) IS NULL) THEN
				stopped := homing._stop_survivors(newest, survivors, targets, purpose);
			END IF;

			-- 3.
			FOREACH target IN ARRAY targets LOOP
				SELECT finals || jsonb_build_object(target::text, l.final_position), l.lacking INTO finals, lacking
				FROM homing._level_survivors(newest, target, survivors, stopped, lacking) l;
			END LOOP;
			IF homing._active(newest, survivors) <@ lacking AND force AND survivors = ARRAY[here.region_id] THEN
				-- Nothing else is left: what it has is what counts, also of those that were lost before.
				RAISE WARNING 'the last changes of region % are not in this region, which goes on without them', homing._region_names(lost_without_end)
					USING HINT = 'When the region comes back, homing.rejoin records them in homing.orphaned_writes.';
				newest := jsonb_set(newest, '{members}', (
					SELECT jsonb_agg(m || CASE WHEN (m->>'id')::int2 <> ALL (lost_without_end) THEN '{}'
						ELSE jsonb_build_object('final_lsn', coalesce(pg_replication_origin_progress(s.origin, true), '0/0')) END ORDER BY (m->>'id')::int2)
					FROM jsonb_array_elements(newest->'members') m LEFT JOIN homing._streams() s ON s.region_id = (m->>'id')::int2));
				lacking := '{}';
			END IF;
			IF homing._active(newest, survivors) <@ lacking THEN
				RAISE EXCEPTION 'cannot %: no surviving region has all of the last changes', purpose
					USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Start a lost region again to let the others catch up, or declare those that are behind lost as well: they can join again.';
			END IF;

			-- 4. Who serves later is no heir.
			newest := jsonb_set(newest, '{epoch}', to_jsonb(greatest((newest->>'epoch')::bigint,
				(SELECT max((a.value->>'epoch')::bigint) FROM homing.acceptor a WHERE force)) + 1));
			newest := jsonb_set(newest, '{members}', (
				SELECT jsonb_agg(CASE WHEN (m->>'id')::int2 = ANY (targets)
					THEN m || jsonb_build_object('status', 'lost', 'pending', false,
						'spread', to_jsonb(homing._active(newest, ARRAY(SELECT unnest(survivors) EXCEPT SELECT unnest(lacking)))),
						'heirs', to_jsonb(ARRAY(SELECT h FROM unnest(homing._jsonb_regions(m->'heirs')) WITH ORDINALITY AS u(h, o)
												WHERE h <> ALL (lacking) ORDER BY o)),
						'final_lsn', finals->(m->>'id'), 'lost_epoch', newest->'epoch')
					ELSE m END ORDER BY (m->>'id')::int2)
				FROM jsonb_array_elements(newest->'members') m));
			newest := newest || jsonb_build_object('events', (
				SELECT jsonb_agg(jsonb_build_object('at', clock_timestamp(), 'epoch', newest->'epoch', 'kind', 'declare_lost',
					'region', homing._member_name(newest, t), 'actor', actor, 'reason', reason))
				FROM unnest(targets) t));

			IF force IS NOT TRUE THEN
				SELECT v->'map', v->'answered' INTO newest, votes FROM homing._vote(newest, homing._voting(newest, survivors || witnesses), purpose) v;
			END IF;

			-- 5. Here first: what is decided is then durable where the operator is.
			SELECT q[1]::int INTO deciding FROM homing._peer_query('step ' || here.region_id, 'SELECT pg_backend_pid()') q;
			PERFORM homing._peer_query('step ' || here.region_id, 'SELECT homing._adopt_map($1::jsonb)', newest::text);
		END IF;
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		-- The first adoption decides. Interrupted, it may yet commit: it is over when its session is. Where no session
		-- could be opened, nothing was begun.
		IF (cardinality(opened) > 0 OR SQLSTATE <> '08001') AND cardinality(targets) > 0
			AND (deciding IS NULL OR pg_terminate_backend(deciding, 5000)
				AND NOT EXISTS (SELECT FROM homing.member m WHERE m.region_id = ANY (targets) AND m.status = 'lost')) THEN
			PERFORM homing._resume_all(survivors, targets);
		END IF;
		RAISE;
	END;
	noted := homing._tell_survivors(newest, survivors, here.region_id, targets);
	IF witnesses IS NULL THEN
		witnesses := homing._open_witnesses(newest);
	ELSE
		PERFORM homing._tell(witnesses, newest);
	END IF;
	PERFORM homing._peer_close('step ' || o) FROM unnest(opened || witnesses) o WHERE o <> ALL (survivors);
	PERFORM homing._peer_give_back('step ' || s) FROM unnest(survivors) s;
	IF EXISTS (SELECT FROM jsonb_array_elements(newest->'members') m WHERE m->>'status' <> 'lost' AND (m->>'id')::int2 IN (
			SELECT homing._member_id(newest, r) FROM unnest(regions) r)) THEN
		RAISE EXCEPTION 'cannot %: another loss was decided first', purpose
			USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
	END IF;
	noted := ARRAY(SELECT DISTINCT unnest(noted));
	IF cardinality(noted) > 0 THEN
		RAISE WARNING 'parts of % committed transactions were lost with region %', cardinality(noted),
			(SELECT string_agg(format('"%s"', homing._member_name(newest, t)), ', ') FROM unnest(targets) t)
			USING DETAIL = 'They were prepared there, and no other region had received that they were committed.',
				HINT = 'homing.lost_parts lists them. When the region comes back, homing.rejoin records what they wrote in homing.orphaned_writes.';
	END IF;
	IF cardinality(lacking) > 0 THEN
		RAISE WARNING 'region % lacks the last changes of what is lost, which nobody has kept for it: it serves when it has copied them from another region', homing._region_names(lacking)
			USING HINT = 'homing.regions shows it as fenced until then. To have its homes taken over at once, declare it lost as well.';
	END IF;
	RETURN homing._loss(newest, regions) || CASE WHEN cardinality(lacking) = 0 THEN '{}'
			ELSE jsonb_build_object('behind', (SELECT jsonb_agg(DISTINCT homing._member_name(newest, l)) FROM unnest(lacking) l)) END
		|| CASE WHEN cardinality(noted) = 0 THEN '{}' ELSE jsonb_build_object('lost_parts', cardinality(noted)) END
		|| CASE WHEN votes IS NULL THEN '{}'
		ELSE jsonb_build_object('voted', CASE jsonb_typeof(votes) WHEN 'array' THEN votes ELSE votes->'answered' END) END;
END
$$;

CREATE FUNCTION homing.declare_lost(regions text[], force boolean DEFAULT false, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	here CONSTANT homing.local_region := homing._require_serving(force IS TRUE);
	purpose text;
	newest CONSTANT jsonb := homing._map();
	name text;
	target int2;
	result jsonb;
BEGIN
	IF coalesce(cardinality(regions), 0) = 0 OR array_position(regions, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'the name of the lost region must be given' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOREACH name IN ARRAY regions LOOP
		target := homing._member_id(newest, name);
		IF EXISTS (SELECT FROM homing.witness w WHERE w.name = name AND w.status <> 'removed') THEN
			RAISE EXCEPTION '"%" is a witness: it has nothing to lose', name USING ERRCODE = 'invalid_parameter_value',
				HINT = 'homing.remove_region removes it, whether or not it can be reached.';
		END IF;
		IF target IS NULL THEN
			RAISE EXCEPTION 'region "%" does not exist', name USING ERRCODE = 'invalid_parameter_value',
				HINT = 'homing.regions lists the regions.';
		END IF;
		IF target = here.region_id THEN
			RAISE EXCEPTION 'a region cannot declare itself lost' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Call homing.declare_lost at a region that goes on.';
		END IF;
	END LOOP;
	purpose := format('declare region %s lost', (SELECT string_agg(format('"%s"', r), ', ') FROM unnest(regions) r));
	IF force IS NOT TRUE AND homing._lease_left() IS NULL THEN
		RAISE EXCEPTION 'cannot % without force', purpose USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = 'Without leases, nothing but your word keeps a region that is declared lost from serving.',
			HINT = 'Make sure that the region is stopped and stays so, then pass force => true: it is your word for that.';
	END IF;
	-- The steps run in sessions of their own: they would wait for this transaction's locks for ever, and it
	-- must see what they committed.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'cannot % in a transaction of isolation level %', purpose, upper(current_setting('transaction_isolation'))
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
		RAISE EXCEPTION 'cannot % in a transaction that has written', purpose USING ERRCODE = 'active_sql_transaction';
	END IF;

	IF force THEN
		result := homing._ask_declarer(jsonb_build_object('regions', regions, 'reason', reason, 'actor', session_user,
			'purpose', purpose)::text);
	END IF;
	RETURN coalesce(result, homing._declare(regions, force, reason, session_user, purpose));
END
$$;
COMMENT ON FUNCTION homing.declare_lost(text[], boolean, text) IS
	'declares several regions lost at once; see declare_lost(text, boolean, text)';

CREATE FUNCTION homing.declare_lost(region text, force boolean DEFAULT false, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN homing.declare_lost(ARRAY[region], force, reason);
END
$$;
COMMENT ON FUNCTION homing.declare_lost(text, boolean, text) IS
	'declares a region lost: its homes pass to its heirs at every other region. A majority of the regions votes for it, when all leases of the lost one have ended; without leases, or without a majority, force is the operator''s word that the region is stopped. Fails with 08001 when another region cannot be reached, with 55000 when no survivor has all that the others have received from it';
