-- Sessions with peers, for the functions that change the cluster. They belong to the transaction that opens
-- them and end with it.

CREATE FUNCTION homing._peer_open(session text, conninfo text) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_open';
COMMENT ON FUNCTION homing._peer_open(text, text) IS
	'opens a session, unless one of that name with that connection string is open. Fails with 08001 when the server cannot be reached within homing.connect_timeout';

CREATE FUNCTION homing._peer_query(session text, sql text, VARIADIC args text[] DEFAULT '{}') RETURNS SETOF text[]
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_query';
COMMENT ON FUNCTION homing._peer_query(text, text, text[]) IS
	'runs one statement in the session, with arguments $1, $2 ... of types that it infers, and returns its rows as text. An error there is raised here with its own SQLSTATE';

CREATE FUNCTION homing._peer_open_all(sessions text[], conninfos text[], OUT session text, OUT failure text) RETURNS SETOF record
STRICT VOLATILE ROWS 1 LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_open_all';
COMMENT ON FUNCTION homing._peer_open_all(text[], text[]) IS
	'opens several sessions at once; returns those that could not be opened within homing.connect_timeout, and why';

CREATE FUNCTION homing._peer_post(session text, sql text, VARIADIC args text[] DEFAULT '{}') RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_post';
COMMENT ON FUNCTION homing._peer_post(text, text, text[]) IS
	'sends a statement that _peer_query would run, and does not wait. One posted after another runs, in a transaction of its own, even if that failed';

CREATE FUNCTION homing._peer_take(session text) RETURNS SETOF text[]
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_take';
COMMENT ON FUNCTION homing._peer_take(text) IS
	'what _peer_query would return, for the oldest statement posted in the session whose answer was not taken yet';

CREATE FUNCTION homing._peer_follow(session text) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_follow';
COMMENT ON FUNCTION homing._peer_follow(text) IS
	'from now on the session is in one transaction there, committed just before ours or rolled back with it';

CREATE FUNCTION homing._peer_close(session text) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_close';
COMMENT ON FUNCTION homing._peer_close(text) IS
	'closes the session, if it is open and does not follow this transaction';

CREATE FUNCTION homing._peer_give_back(session text) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_peer_give_back';
COMMENT ON FUNCTION homing._peer_give_back(text) IS
	'closes the session, unless this process keeps its sessions';

CREATE FUNCTION homing._lock_change() RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_lock_change';
COMMENT ON FUNCTION homing._lock_change() IS
	'lets one change of members or homed tables at a time happen at this region, until the end of the transaction';

CREATE FUNCTION homing._hold_change() RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_hold_change';
COMMENT ON FUNCTION homing._hold_change() IS
	'as _lock_change, until the end of the session';

CREATE FUNCTION homing._release_change() RETURNS void
VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_release_change';
COMMENT ON FUNCTION homing._release_change() IS
	'ends what _hold_change began';

CREATE FUNCTION homing._debug_point(name text) RETURNS void
STRICT VOLATILE LANGUAGE c AS 'MODULE_PATHNAME', 'homing_debug_point';
COMMENT ON FUNCTION homing._debug_point(text) IS
	'kills this process if homing.debug_point is the name';
