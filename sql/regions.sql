-- Regions as servers: options, credentials, who may do what.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_homing;
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE ROLE regress_homing_user LOGIN;

-- Options belong to the server or to the user mapping, as libpq says.
CREATE SERVER regress_region FOREIGN DATA WRAPPER homing
	OPTIONS (host 'localhost', port '5432', dbname 'app', sslmode 'verify-full', application_name 'x');
ALTER SERVER regress_region OPTIONS (SET port '5433', DROP application_name);
ALTER SERVER regress_region OPTIONS (ADD keepalives_idle '3');
SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'regress_region';
\set VERBOSITY sqlstate
ALTER SERVER regress_region OPTIONS (ADD user 'x');
ALTER SERVER regress_region OPTIONS (ADD password 'x');
ALTER SERVER regress_region OPTIONS (ADD nonsense 'x');
-- These are for pg_homing to say.
ALTER SERVER regress_region OPTIONS (ADD client_encoding 'x');
ALTER SERVER regress_region OPTIONS (ADD connect_timeout '1');
ALTER SERVER regress_region OPTIONS (ADD replication 'database');
ALTER FOREIGN DATA WRAPPER homing OPTIONS (ADD host 'x');
\set VERBOSITY default

CREATE USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (user 'app', password 'secret', sslpassword 'x');
CREATE USER MAPPING FOR PUBLIC SERVER regress_region OPTIONS (user 'app', password_required 'false');
DROP USER MAPPING FOR PUBLIC SERVER regress_region;
\set VERBOSITY sqlstate
CREATE USER MAPPING FOR PUBLIC SERVER regress_region OPTIONS (host 'x');
\set VERBOSITY default
CREATE USER MAPPING FOR PUBLIC SERVER regress_region OPTIONS (user 'app', password_required 'perhaps');

-- Who is no superuser cannot waive the password, nor use certificates of the server.
GRANT USAGE ON FOREIGN SERVER regress_region TO regress_homing_user;
SET ROLE regress_homing_user;
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (user 'app', password_required 'false');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (user 'app', sslcert 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (user 'app', password 'p');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (SET password 'q', ADD password_required 'true');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_region OPTIONS (SET password_required 'false');
RESET ROLE;

-- A foreign table makes no sense.
CREATE FOREIGN TABLE regress_table (id int) SERVER regress_region OPTIONS (table_name 'x');
CREATE FOREIGN TABLE regress_table (id int) SERVER regress_region;
SELECT * FROM regress_table;

-- Everybody may look; nobody else may change the cluster or see what is below the views.
SET ROLE regress_homing_user;
SELECT * FROM homing.regions;
SELECT * FROM homing.homes;
SELECT * FROM homing.tables;
SELECT * FROM homing.events;
SELECT * FROM homing.member;
SELECT homing._map();
SELECT homing.create_cluster('us', 'dbname=app');
SELECT homing.join_cluster('us', 'dbname=app', via => 'dbname=app');
RESET ROLE;
SELECT p.oid::regprocedure AS "functions for everybody"
FROM pg_proc p WHERE p.pronamespace = 'homing'::regnamespace AND has_function_privilege('regress_homing_user', p.oid, 'EXECUTE')
ORDER BY p.proname, p.pronargs;
SELECT c.oid::regclass AS "relations for everybody"
FROM pg_class c WHERE c.relnamespace = 'homing'::regnamespace AND c.relkind IN ('r', 'v')
	AND has_table_privilege('regress_homing_user', c.oid, 'SELECT,INSERT,UPDATE,DELETE')
ORDER BY c.relname;

-- Every function fixes its search path, or is in C or as plain as can be.
SELECT p.oid::regprocedure AS "functions with the caller's search path"
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'homing'::regnamespace AND l.lanname <> 'c'
	AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false);

DROP FOREIGN TABLE regress_table;
DROP USER MAPPING FOR CURRENT_USER SERVER regress_region;
DROP SERVER regress_region CASCADE;
DROP ROLE regress_homing_user;
