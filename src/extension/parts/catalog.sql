-- The extension's own tables. The public interface is the views and functions; these are not granted.
--
--   local_region, cluster_map, member,
--   witness                             this region, and the cluster map it knows. Local: they travel
--                                       only as a map (map.sql), never in a replication stream.
--   keyspace, homed_table               equal at every region; written at all regions by home_table.
--   activation, assignment, milestone,  replicated, INSERT-only: rows of different origins never touch.
--   key_acceptance, ownership, dependency
--   pending_key                         local: what is in those and open.
--   acceptor                            local: this region as a voter.
--   event                               local history.

CREATE TABLE homing.local_region (
	region_id int2 NOT NULL CHECK (region_id > 0),
	cluster_id uuid NOT NULL,
	admin name NOT NULL,     -- the role that peers connect as
	fenced text,             -- why this region must not serve; NULL: it may
	missing int2[] NOT NULL DEFAULT '{}',  -- lost regions the end of whose streams it lacks: it must not serve (missing.sql)
	copied jsonb             -- by region, how far the copy is that has those ends, until the streams go on from there
);
CREATE UNIQUE INDEX local_region_single ON homing.local_region ((true));
COMMENT ON TABLE homing.local_region IS 'the region that this database is; empty outside a cluster';

CREATE TABLE homing.cluster_map (
	epoch bigint NOT NULL CHECK (epoch > 0)
);
CREATE UNIQUE INDEX cluster_map_single ON homing.cluster_map ((true));
COMMENT ON TABLE homing.cluster_map IS 'version of the cluster map';

CREATE TABLE homing.member (
	region_id int2 PRIMARY KEY CHECK (region_id > 0),
	name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
	status text NOT NULL CHECK (status IN ('joining', 'active', 'lost')),
	heirs int2[] NOT NULL DEFAULT '{}',   -- in order of preference; empty: spread over the survivors
	spread int2[] NOT NULL DEFAULT '{}',  -- the survivors, set when it is declared lost
	pending boolean NOT NULL DEFAULT false,  -- a majority has voted that it is lost; how far it came is not known yet
	final_lsn pg_lsn,                     -- position of its stream that all survivors have; set when lost
	joined_epoch bigint NOT NULL,
	lost_epoch bigint
);
COMMENT ON TABLE homing.member IS 'incarnations of regions: a region that returns from a loss is a new row of the same name';

CREATE TABLE homing.witness (
	region_id int2 PRIMARY KEY CHECK (region_id > 0),  -- of the same numbers as members
	name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
	status text NOT NULL CHECK (status IN ('joining', 'active', 'leaving', 'removed'))
);
COMMENT ON TABLE homing.witness IS 'voters without data; only active ones vote';

-- What this region keeps as a voter: it is durable before the voter answers. Local.
CREATE TABLE homing.acceptor (
	promised_round bigint NOT NULL DEFAULT 0 CHECK (promised_round >= 0),  -- 0: none
	promised_to int2 NOT NULL DEFAULT 0,
	accepted_round bigint NOT NULL DEFAULT 0 CHECK (accepted_round >= 0),  -- 0: it has no value
	accepted_from int2 NOT NULL DEFAULT 0,
	value jsonb,                         -- a cluster map
	longest_lease int4 NOT NULL DEFAULT 0  -- ms, of those it has promised
);
CREATE UNIQUE INDEX acceptor_single ON homing.acceptor ((true));
INSERT INTO homing.acceptor DEFAULT VALUES;
COMMENT ON TABLE homing.acceptor IS 'what this region has promised and accepted as a voter on the cluster map';

CREATE TABLE homing.keyspace (
	keyspace_id int4 PRIMARY KEY CHECK (keyspace_id > 0),
	name text NOT NULL UNIQUE,
	placement text NOT NULL CHECK (placement IN ('hash', 'first_write', 'region')),
	homes int4 NOT NULL CHECK (homes BETWEEN 1 AND 4096),
	recorded_owners int2[] NOT NULL CHECK (cardinality(recorded_owners) = homes)  -- by home
);
COMMENT ON TABLE homing.keyspace IS 'sets of keys that co-located tables share';

CREATE TABLE homing.homed_table (
	table_id bigint PRIMARY KEY,  -- the same at every region
	relid oid NOT NULL UNIQUE,    -- here
	keyspace_id int4 NOT NULL REFERENCES homing.keyspace,
	key_attnum int2 NOT NULL,     -- here
	closing boolean NOT NULL DEFAULT false  -- about to be unhomed: writes are refused
);
COMMENT ON TABLE homing.homed_table IS 'homed tables';

CREATE TABLE homing.activation (
	table_id bigint PRIMARY KEY
);
COMMENT ON TABLE homing.activation IS 'homed tables that every region has: written once, when the last region has committed home_table';

CREATE TABLE homing.assignment (
	keyspace_id int4 NOT NULL,
	key bytea NOT NULL,        -- canonical bytes
	version int8 NOT NULL,
	home int4 NOT NULL,
	from_region int2,          -- who gave the key away; NULL: it did not change regions
	PRIMARY KEY (keyspace_id, key, version)
);
COMMENT ON TABLE homing.assignment IS
	'explicit key to home; the highest version counts. A key that came from another region is served when it is accepted';

CREATE TABLE homing.key_acceptance (
	keyspace_id int4 NOT NULL,
	key bytea NOT NULL,
	version int8 NOT NULL,
	region_id int2 NOT NULL,   -- who wrote it
	PRIMARY KEY (keyspace_id, key, version, region_id)
);
COMMENT ON TABLE homing.key_acceptance IS 'assigned keys whose new owner has all that the old one wrote';

CREATE TABLE homing.pending_key (
	keyspace_id int4 NOT NULL,
	key bytea NOT NULL,
	version int8 NOT NULL,
	home int4 NOT NULL,
	from_region int2 NOT NULL,
	PRIMARY KEY (keyspace_id, key, version)
);
COMMENT ON TABLE homing.pending_key IS 'assigned keys that are not accepted yet; local, kept by triggers';

CREATE TABLE homing.milestone (
	region_id int2 NOT NULL,   -- who wrote it
	epoch bigint NOT NULL,
	PRIMARY KEY (region_id, epoch)
);
COMMENT ON TABLE homing.milestone IS
	'written by every region when a region joins: a position of each stream that all regions reach, also the one that copied what came before';

CREATE TABLE homing.ownership (
	keyspace_id int4 NOT NULL,
	home int4 NOT NULL,
	version int8 NOT NULL CHECK (version > 0),
	kind text NOT NULL CHECK (kind IN ('release', 'accept')),
	from_region int2 NOT NULL,  -- who wrote it
	to_region int2 NOT NULL,    -- release: the new owner; accept: who wrote it
	at timestamptz NOT NULL,
	PRIMARY KEY (keyspace_id, home, version, kind, from_region)
);
COMMENT ON TABLE homing.ownership IS
	'homes that were handed over: the newest release counts, over keyspace.recorded_owners; nobody serves the home between it and its acceptance';

CREATE TABLE homing.dependency (
	region_id int2 NOT NULL,   -- who wrote it
	seq int8 NOT NULL,
	origin int2 NOT NULL,
	position pg_lsn NOT NULL,
	PRIMARY KEY (region_id, seq, origin)
);
COMMENT ON TABLE homing.dependency IS
	'what follows in the stream of region_id must not be applied before the stream of origin is applied up to position';

CREATE SEQUENCE homing.dependency_seq;

CREATE TABLE homing.event (
	event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL,
	epoch bigint NOT NULL,
	kind text NOT NULL,
	region text,
	actor name NOT NULL,
	reason text
);
COMMENT ON TABLE homing.event IS 'changes of ownership and membership';

-- Sessions and workers keep what these tables say; a change tells them to read anew.
CREATE FUNCTION homing._changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_changed';
CREATE FUNCTION homing._assignment_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'homing_assignment_changed';

DO $$
DECLARE
	cached text;
BEGIN
	FOREACH cached IN ARRAY ARRAY['local_region', 'cluster_map', 'member', 'witness', 'acceptor', 'keyspace', 'homed_table', 'activation', 'ownership'] LOOP
		EXECUTE format('CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON homing.%I '
			'FOR EACH ROW EXECUTE FUNCTION homing._changed()', cached);
		EXECUTE format('ALTER TABLE homing.%I ENABLE ALWAYS TRIGGER changed', cached);
	END LOOP;
END
$$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON homing.assignment
FOR EACH ROW EXECUTE FUNCTION homing._assignment_changed();
ALTER TABLE homing.assignment ENABLE ALWAYS TRIGGER changed;
CREATE TRIGGER changed AFTER INSERT ON homing.key_acceptance
FOR EACH ROW EXECUTE FUNCTION homing._assignment_changed();
ALTER TABLE homing.key_acceptance ENABLE ALWAYS TRIGGER changed;

