-- The session's state that changes what a statement means is the same at the home.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
SELECT format('host=%s port=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_user) AS server, current_database() AS original \gset
\set us :server ' dbname=regress_session_us'
\set eu :server ' dbname=regress_session_eu'
CREATE DATABASE regress_session_us TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_session_eu TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_session_us
CREATE EXTENSION pg_homing;
SELECT homing.create_cluster('us', :'us');
CREATE TABLE kept (id int PRIMARY KEY, name text, value text);
CREATE SCHEMA other;
CREATE FUNCTION public.which() RETURNS text LANGUAGE sql AS $$SELECT 'public'$$;
CREATE FUNCTION other.which() RETURNS text LANGUAGE sql AS $$SELECT 'other'$$;
-- Evaluates, at the home, an expression that is text until then.
CREATE FUNCTION evaluate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT (' || NEW.value || ')::text' INTO NEW.value;
	RETURN NEW;
END $$;
CREATE TRIGGER evaluate BEFORE INSERT OR UPDATE ON kept FOR EACH ROW EXECUTE FUNCTION evaluate();
\c regress_session_eu
CREATE EXTENSION pg_homing;
SET client_min_messages = warning;
SELECT homing.join_cluster('eu', :'eu', via => :'us');
CREATE SCHEMA other;
CREATE FUNCTION public.which() RETURNS text LANGUAGE sql AS $$SELECT 'public'$$;
CREATE FUNCTION other.which() RETURNS text LANGUAGE sql AS $$SELECT 'other'$$;
-- What the home would do by itself.
ALTER DATABASE regress_session_eu SET DateStyle = 'German';
ALTER DATABASE regress_session_eu SET TimeZone = 'Asia/Kolkata';
ALTER DATABASE regress_session_eu SET bytea_output = 'escape';
ALTER DATABASE regress_session_eu SET default_transaction_isolation = 'serializable';
ALTER DATABASE regress_session_eu SET default_transaction_read_only = on;
\c regress_session_us
SELECT homing.home_table('kept', 'id', placement => 'region', region => 'eu');
-- A setting, a value, and an expression whose result depends on it.
CREATE TABLE cases (n serial, setting text, value text, expression text);
INSERT INTO cases (setting, value, expression) VALUES
	('DateStyle', 'SQL, DMY', $$'03/02/2024'::date - '2024-01-01' || ' ' || '2024-02-03'::date$$),
	('DateStyle', 'ISO, MDY', $$'03/02/2024'::date - '2024-01-01' || ' ' || '2024-02-03'::date$$),
	('IntervalStyle', 'iso_8601', $$'1 day 02:03'::interval$$),
	('IntervalStyle', 'sql_standard', $$'-1 day 02:03'::interval$$),
	('TimeZone', 'America/New_York', $$'2024-07-01 12:00+00'::timestamptz || ' ' || extract(epoch FROM '2024-07-01 12:00'::timestamptz)$$),
	('TimeZone', 'UTC', $$'2024-07-01 12:00+00'::timestamptz || ' ' || extract(epoch FROM '2024-07-01 12:00'::timestamptz)$$),
	('array_nulls', 'off', $$('{NULL}'::text[])[1] IS NULL$$),
	('array_nulls', 'on', $$('{NULL}'::text[])[1] IS NULL$$),
	('bytea_output', 'hex', $$'a\000b'::bytea$$),
	('bytea_output', 'escape', $$'a\000b'::bytea$$),
	('default_text_search_config', 'german', $$to_tsvector('die Katzen')$$),
	('default_text_search_config', 'simple', $$to_tsvector('die Katzen')$$),
	('extra_float_digits', '-3', $$0.1::float8 + 0.2::float8$$),
	('extra_float_digits', '1', $$0.1::float8 + 0.2::float8$$),
	('lc_monetary', 'C', $$'12.3'::money$$),
	('lc_numeric', 'C', $$to_char(1234.5, '9G999D9')$$),
	('lc_time', 'C', $$to_char('2024-07-01'::date, 'TMMonth')$$),
	('lock_timeout', '12345', $$current_setting('lock_timeout')$$),
	('statement_timeout', '54321', $$current_setting('statement_timeout')$$),
	('row_security', 'off', $$current_setting('row_security')$$),
	('row_security', 'on', $$current_setting('row_security')$$),
	('search_path', 'other, public', $$which()$$),
	('search_path', 'public', $$which()$$),
	('standard_conforming_strings', 'off', $$length('a\\b')$$),
	('standard_conforming_strings', 'on', $$length('a\\b')$$),
	('transform_null_equals', 'on', $$(SELECT NULL::int = NULL)$$),
	('transform_null_equals', 'off', $$(SELECT NULL::int = NULL)$$),
	('xmlbinary', 'hex', $$xmlelement(name a, 'ab'::bytea)$$),
	('xmlbinary', 'base64', $$xmlelement(name a, 'ab'::bytea)$$),
	('xmloption', 'document', $$current_setting('xmloption') || ('<a/>'::xml IS DOCUMENT)$$),
	('homing.forward_settings', 'app.tenant', $$coalesce(current_setting('app.tenant', true), '')$$),
	('app.tenant', 'one', $$current_setting('app.tenant')$$),
	('app.tenant', 'two', $$current_setting('app.tenant')$$);
\unset QUIET
SET escape_string_warning = off;

-- One transaction for all, and one for each.
CREATE PROCEDURE try(commits boolean) LANGUAGE plpgsql AS $$
DECLARE
	c cases;
	expected text;
	got text;
BEGIN
	FOR c IN SELECT * FROM cases ORDER BY n LOOP
		PERFORM set_config(c.setting, c.value, false);
		EXECUTE 'SELECT (' || c.expression || ')::text' INTO expected;
		DELETE FROM public.kept WHERE id = c.n;
		INSERT INTO public.kept VALUES (c.n, c.setting, c.expression) RETURNING value INTO got;
		IF got IS DISTINCT FROM expected THEN
			RAISE WARNING '% = %: % at home, % here', c.setting, c.value, got, expected;
		END IF;
		IF commits THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;
CALL try(false);
RESET ALL;
SET escape_string_warning = off;
CALL try(true);
RESET ALL;
SET escape_string_warning = off;
SET homing.read_consistency = 'session';
SELECT c.n, c.setting, c.value, k.value AS result FROM cases c JOIN kept k ON k.id = c.n ORDER BY n;
-- Every setting that travels is in the list.
SELECT 'missing: ' || name FROM pg_settings WHERE name IN ('DateStyle', 'IntervalStyle', 'TimeZone', 'array_nulls', 'bytea_output', 'default_text_search_config',
	'extra_float_digits', 'lc_monetary', 'lc_numeric', 'lc_time', 'lock_timeout', 'row_security', 'search_path', 'standard_conforming_strings',
	'statement_timeout', 'transform_null_equals', 'xmlbinary', 'xmloption') AND name NOT IN (SELECT setting FROM cases);

-- Levels, savepoints, timeouts, users.
INSERT INTO kept VALUES (100, 'isolation', $$current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')$$) RETURNING value;
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO kept VALUES (101, 'isolation', $$current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')$$) RETURNING value;
SAVEPOINT s;
SET LOCAL TimeZone = 'Asia/Tokyo';
INSERT INTO kept VALUES (102, 'local', $$current_setting('TimeZone')$$) RETURNING value;
ROLLBACK TO s;
INSERT INTO kept VALUES (102, 'local', $$current_setting('TimeZone')$$) RETURNING value = current_setting('TimeZone') AS same;
COMMIT;
BEGIN READ ONLY;
INSERT INTO kept VALUES (103, 'never', '1');
ROLLBACK;
SET statement_timeout = '300ms';
INSERT INTO kept VALUES (104, 'slow', 'pg_sleep(60)');
RESET statement_timeout;
INSERT INTO kept VALUES (105, 'user', 'current_user = session_user') RETURNING value;

-- Away with all of it.
\set QUIET on
\set leave 'DO $x$ DECLARE s text; BEGIN FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database() LOOP EXECUTE format(''ALTER SUBSCRIPTION %I DISABLE'', s); EXECUTE format(''ALTER SUBSCRIPTION %I SET (slot_name = NONE)'', s); EXECUTE format(''DROP SUBSCRIPTION %I'', s); END LOOP; END $x$'
:leave;
\c regress_session_eu
SET default_transaction_read_only = off;
:leave;
\c :original
SELECT count(homing._drop_slot(slot_name)) FROM pg_replication_slots WHERE database LIKE 'regress_session%';
DROP DATABASE regress_session_us WITH (FORCE);
DROP DATABASE regress_session_eu WITH (FORCE);
