-- Public views. Plain names instead of ids; readable by everyone (see privileges).

CREATE VIEW homing.regions AS
WITH owned AS (
	SELECT h.owner AS region_id, count(*) AS homes FROM homing._homes() h GROUP BY 1
), stream AS (
	SELECT m.region_id, s.active_pid,
		CASE WHEN NOT pg_is_in_recovery() THEN
			greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.confirmed_flush_lsn), 0)::bigint END AS bytes
	FROM (SELECT * FROM homing.local_region LIMIT 1) l CROSS JOIN homing.member m
	JOIN pg_replication_slots s ON s.slot_name = homing._cluster_stream(l.cluster_id::text, l.region_id, m.region_id)
)
SELECT m.name,
	CASE WHEN m.status = 'active' AND m.region_id <> l.region_id AND s.region_id IS NULL AND NOT l.witness THEN 'needs copy' ELSE m.status END AS status,
	CASE WHEN m.region_id = l.region_id THEN c.epoch ELSE p.epoch END AS epoch,
	coalesce(o.homes, 0) AS homes,
	CASE WHEN r.state = 'streaming' THEN coalesce(r.replay_lag, interval '0') END AS replay_lag,
	s.bytes AS replay_lag_bytes,
	CASE WHEN m.region_id = l.region_id THEN clock_timestamp() ELSE p.last_seen END AS last_seen,
	CASE WHEN m.region_id = l.region_id THEN l.fenced IS NOT NULL OR l.missing <> '{}' OR NOT l.witness AND coalesce(homing._lease_left() <= interval '0', false) ELSE p.fenced END AS fenced,
	CASE WHEN m.region_id = l.region_id AND NOT l.witness THEN homing._lease_left() END AS lease_left
-- The limits tell the planner that there is one row: else it expects so many that it compiles the query.
FROM (SELECT *, EXISTS (SELECT FROM homing.witness w WHERE w.region_id = r.region_id) AS witness FROM homing.local_region r LIMIT 1) l
CROSS JOIN (SELECT * FROM homing.cluster_map LIMIT 1) c
-- A region that came back is a new member of the old name: the newest counts.
CROSS JOIN (
	(SELECT DISTINCT ON (name) region_id, name, status FROM homing.member ORDER BY name, region_id DESC)
	UNION ALL
	SELECT region_id, name, 'witness' FROM homing.witness WHERE status <> 'removed') m
LEFT JOIN owned o ON o.region_id = m.region_id
LEFT JOIN homing._peer_seen() p ON p.region_id = m.region_id
LEFT JOIN stream s ON s.region_id = m.region_id
LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
ORDER BY m.region_id;
COMMENT ON VIEW homing.regions IS 'regions of the cluster as this region knows them';
COMMENT ON COLUMN homing.regions.name IS 'name of the region, and of the SERVER that leads to it';
COMMENT ON COLUMN homing.regions.status IS 'joining, active or lost; witness: it votes and keeps no data; needs copy: active, but what this region wrote while it was away is not kept any more';
COMMENT ON COLUMN homing.regions.epoch IS 'version of the cluster map there, when last heard; NULL: not heard since this server started';
COMMENT ON COLUMN homing.regions.homes IS 'homes it owns now, over all keyspaces';
COMMENT ON COLUMN homing.regions.replay_lag IS 'time from our commit to its replay there (pg_stat_replication); NULL: here, not connected, or no permission';
COMMENT ON COLUMN homing.regions.replay_lag_bytes IS 'WAL of this server that it has not confirmed yet, in bytes; NULL: here';
COMMENT ON COLUMN homing.regions.last_seen IS 'when it last answered this region; NULL: not since this server started';
COMMENT ON COLUMN homing.regions.fenced IS 'whether it refuses writes of homed tables, when last heard';
COMMENT ON COLUMN homing.regions.lease_left IS 'for how long this region may serve without another answer of a majority; NULL: another region, or no lease is needed';

CREATE VIEW homing.homes AS
SELECT k.name AS keyspace, h.home, o.name AS owner,
	ARRAY(SELECT m.name
		  FROM unnest(h.heirs) WITH ORDINALITY AS heir(region_id, place)
		  JOIN homing.member m USING (region_id)
		  ORDER BY heir.place) AS heirs
FROM homing._homes() h
JOIN homing.keyspace k USING (keyspace_id)
LEFT JOIN homing.member o ON o.region_id = h.owner
ORDER BY h.keyspace_id, h.home;
COMMENT ON VIEW homing.homes IS 'homes of every keyspace: who owns them, who takes over';
COMMENT ON COLUMN homing.homes.keyspace IS 'name of the keyspace that co-located tables share';
COMMENT ON COLUMN homing.homes.home IS 'number of the home, from 0';
COMMENT ON COLUMN homing.homes.owner IS 'region that executes the writes of the home; NULL: all its heirs are lost too';
COMMENT ON COLUMN homing.homes.heirs IS 'regions that take over when the owner is lost, first one first';

CREATE VIEW homing.tables AS
SELECT t.relid::regclass AS table_name, a.attname AS key_column, k.name AS keyspace, k.placement, k.homes,
	CASE WHEN t.closing THEN 'closing' WHEN x.table_id IS NULL THEN 'preparing' ELSE 'active' END AS state
FROM homing.homed_table t
JOIN homing.keyspace k USING (keyspace_id)
LEFT JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = t.key_attnum
LEFT JOIN homing.activation x USING (table_id)
ORDER BY t.table_id;
COMMENT ON VIEW homing.tables IS 'homed tables';
COMMENT ON COLUMN homing.tables.table_name IS 'the table; the root of a partitioned table';
COMMENT ON COLUMN homing.tables.key_column IS 'column whose value decides a row''s home';
COMMENT ON COLUMN homing.tables.keyspace IS 'name of the keyspace that co-located tables share';
COMMENT ON COLUMN homing.tables.placement IS 'hash: keys spread over the homes; first_write: a key belongs to the region that first writes it; region: one region owns all keys';
COMMENT ON COLUMN homing.tables.homes IS 'number of homes in the keyspace';
COMMENT ON COLUMN homing.tables.state IS 'active; preparing until every region has the table; closing while it is unhomed. Only an active table can be written';

CREATE VIEW homing.events AS
SELECT at, epoch, kind, region, actor, reason FROM homing.event ORDER BY at, event_id;
COMMENT ON VIEW homing.events IS 'changes of ownership and membership, as this region saw them';
COMMENT ON COLUMN homing.events.at IS 'when it happened, by the clock of the region where it was started';
COMMENT ON COLUMN homing.events.epoch IS 'version of the cluster map from then on';
COMMENT ON COLUMN homing.events.kind IS 'what happened, named as the function that does it';
COMMENT ON COLUMN homing.events.region IS 'region it is about';
COMMENT ON COLUMN homing.events.actor IS 'role that asked for it';
COMMENT ON COLUMN homing.events.reason IS 'why, as the actor said, or what changed';

CREATE VIEW homing.in_doubt AS
SELECT p.gid, m.name AS coordinator, p.prepared, p.owner,
	CASE WHEN o.committed THEN 'committing'
		WHEN NOT o.committed THEN 'aborting'
		WHEN r.commit IS NOT NULL THEN 'resolved by hand'
		WHEN m.status = 'lost' THEN 'coordinator lost'
		ELSE 'waiting for its coordinator' END AS state
FROM homing._parts p
LEFT JOIN homing.member m ON m.region_id = p.coordinator
LEFT JOIN homing.outcome o ON o.id = p.token
LEFT JOIN homing.resolution r ON r.gid = p.gid
ORDER BY p.prepared;
COMMENT ON VIEW homing.in_doubt IS 'parts of transactions over several regions that are prepared in this region and not decided yet';
COMMENT ON COLUMN homing.in_doubt.gid IS 'name of the prepared transaction';
COMMENT ON COLUMN homing.in_doubt.coordinator IS 'region whose commit decides';
COMMENT ON COLUMN homing.in_doubt.prepared IS 'since when it is prepared, and holds its locks';
COMMENT ON COLUMN homing.in_doubt.owner IS 'role that wrote it';
COMMENT ON COLUMN homing.in_doubt.state IS 'committing, aborting, resolved by hand, coordinator lost, or waiting for its coordinator';

CREATE VIEW homing.lost_parts AS
SELECT DISTINCT ON (p.part) l.name AS region, c.name AS coordinator, p.decision AS transaction, p.at AS noticed
FROM homing.lost_part p
LEFT JOIN homing.member l ON l.region_id = p.lost
LEFT JOIN homing.member c ON c.region_id = p.coordinator
ORDER BY p.part, p.at;
COMMENT ON VIEW homing.lost_parts IS 'parts of committed transactions over several regions that were lost with their region: it had prepared them, and no other region had received them';
COMMENT ON COLUMN homing.lost_parts.region IS 'region that was lost';
COMMENT ON COLUMN homing.lost_parts.coordinator IS 'region whose commit had decided';
COMMENT ON COLUMN homing.lost_parts.transaction IS 'token of the transaction, which is the last but one field of the gid of its parts';
COMMENT ON COLUMN homing.lost_parts.noticed IS 'when a survivor noticed it, by its clock';

CREATE VIEW homing.stat_forwarding AS
SELECT m.name AS region, s.statements, s.rows,
	s.connection_errors, s.conflicts, s.constraint_errors, s.cancels, s.other_errors,
	s.connections, s.connect_us / 1000.0::float8 AS connect_time,
	s.execute_us / 1000.0::float8 AS execute_time,
	s.commits, s.commit_us / 1000.0::float8 AS commit_time,
	s.prepared, s.decided, s.rolled_back,
	s.read_waits, s.read_wait_us / 1000.0::float8 AS read_wait_time, s.read_timeouts, s.since
FROM homing._forward_stats() s JOIN homing.member m USING (region_id)
ORDER BY m.region_id;
COMMENT ON VIEW homing.stat_forwarding IS 'what the sessions of this region have forwarded to each other one, since it was reset; kept over a clean restart';
COMMENT ON COLUMN homing.stat_forwarding.region IS 'region that it was forwarded to';
COMMENT ON COLUMN homing.stat_forwarding.statements IS 'statements sent there';
COMMENT ON COLUMN homing.stat_forwarding.rows IS 'rows that they have written or returned';
COMMENT ON COLUMN homing.stat_forwarding.connection_errors IS 'errors of class 08: the region could not be reached, or the connection broke';
COMMENT ON COLUMN homing.stat_forwarding.conflicts IS 'errors of class 40: serialization failures and deadlocks';
COMMENT ON COLUMN homing.stat_forwarding.constraint_errors IS 'errors of class 23: constraints';
COMMENT ON COLUMN homing.stat_forwarding.cancels IS 'errors of class 57: cancelled, timed out, or ended by an administrator';
COMMENT ON COLUMN homing.stat_forwarding.other_errors IS 'all other errors';
COMMENT ON COLUMN homing.stat_forwarding.connections IS 'connections opened';
COMMENT ON COLUMN homing.stat_forwarding.connect_time IS 'time spent on opening them, in ms, with the wait for homing.max_connections_per_region';
COMMENT ON COLUMN homing.stat_forwarding.execute_time IS 'time from sending statements to their answers, in ms; with the commit when a statement was a transaction of its own';
COMMENT ON COLUMN homing.stat_forwarding.commits IS 'transactions that were committed by the region''s own COMMIT';
COMMENT ON COLUMN homing.stat_forwarding.commit_time IS 'time from sending COMMIT or PREPARE TRANSACTION to the answer, in ms';
COMMENT ON COLUMN homing.stat_forwarding.prepared IS 'parts of transactions over several regions that the region was asked to prepare';
COMMENT ON COLUMN homing.stat_forwarding.decided IS 'prepared parts whose transaction has committed here';
COMMENT ON COLUMN homing.stat_forwarding.rolled_back IS 'prepared parts whose transaction has not';
COMMENT ON COLUMN homing.stat_forwarding.read_waits IS 'reads that waited until a commit there had arrived here';
COMMENT ON COLUMN homing.stat_forwarding.read_wait_time IS 'time they waited, in ms';
COMMENT ON COLUMN homing.stat_forwarding.read_timeouts IS 'reads that failed because it did not arrive within homing.read_timeout';
COMMENT ON COLUMN homing.stat_forwarding.since IS 'when counting began';

CREATE VIEW homing.sessions AS
SELECT s.local_pid, pg_get_userbyid(s.user_id) AS user_name, m.name AS region, s.remote_pid, s.state,
	clock_timestamp() - s.transaction_start AS transaction_age, s.connected
FROM homing._sessions() s JOIN homing.member m USING (region_id)
ORDER BY s.local_pid, m.region_id;
COMMENT ON VIEW homing.sessions IS 'connections that sessions of this database have to other regions';
COMMENT ON COLUMN homing.sessions.local_pid IS 'process of the session here (pg_stat_activity)';
COMMENT ON COLUMN homing.sessions.user_name IS 'role that forwards';
COMMENT ON COLUMN homing.sessions.region IS 'the other region';
COMMENT ON COLUMN homing.sessions.remote_pid IS 'process there; NULL while it connects';
COMMENT ON COLUMN homing.sessions.state IS 'connecting; active: an answer is awaited; idle in transaction; idle';
COMMENT ON COLUMN homing.sessions.transaction_age IS 'since when the transaction here is open that the other one follows; NULL: none';
COMMENT ON COLUMN homing.sessions.connected IS 'when the connection was asked for';
