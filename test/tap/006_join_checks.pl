# What a server must be like to hold a region, and what a join leaves that is cut off at any moment.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)]);
my ($us, $eu) = map { $cluster->node($_) } qw(us eu);
my $create = q{SELECT homing.create_cluster('us', '} . $cluster->conninfo('us') . q{')};
my $join = sprintf q{SELECT homing.join_cluster('eu', '%s', via => '%s')}, map { $cluster->conninfo($_) } qw(eu us);

# --- settings: each failure names the setting, its value and what it needs ------------------------------

sub fails_while
{
	my ($region, $settings, $sql, $message, $changed) = @_;
	my $node = $cluster->node($changed // $region);
	my $conf = $node->data_dir . '/postgresql.conf';
	my $before = slurp_file($conf);
	$node->append_conf('postgresql.conf', $settings);
	$node->restart;
	$cluster->fails_with($region, $sql, 'F0000', "refused while $settings", $message);
	unlink $conf;
	append_to_file($conf, $before);
	$node->restart;
	return;
}

fails_while('us', "wal_level = replica", $create,
	qr/region "us" has wal_level = replica, but needs logical\n.*HINT:  Change wal_level/s);
fails_while('us', "track_commit_timestamp = off", $create, qr/region "us" has track_commit_timestamp = off, but needs on/);
fails_while('us', "max_prepared_transactions = 0", $create,
	qr/region "us" has max_prepared_transactions = 0, but needs at least 1/);
fails_while('us', "max_replication_slots = 0", $create,
	qr/region "us" has max_replication_slots = 0, but needs at least 1: 0 in use, 1 more/);
fails_while('us', "max_logical_replication_workers = 0", $create,
	qr/region "us" has max_logical_replication_workers = 0, but needs at least 1/);
fails_while('us', "shared_preload_libraries = ''", $create,
	qr/region "us" has shared_preload_libraries = '', but needs pg_homing among its libraries/);
SKIP:
{
	skip 'this minor release has no output_plugin_libraries', 4
		if $cluster->sql('us', q{SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'}) == 0;
	fails_while('us', "output_plugin_libraries = 'pgoutput'", $create,
		qr/region "us" has output_plugin_libraries = pgoutput, but needs pg_homing among its libraries/);
	# Quoted as one, they are the name of one library that nobody has.
	fails_while('us', q{output_plugin_libraries = '"pgoutput, pg_homing"'}, $create,
		qr/has output_plugin_libraries = "pgoutput, pg_homing", but needs pg_homing/);
}
is($cluster->sql('us', 'SELECT (SELECT count(*) FROM pg_foreign_server) + (SELECT count(*) FROM pg_publication)'),
	'0', 'refusals leave nothing');

$cluster->sql('us', $create);
$cluster->sql('us', 'CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i');
$cluster->sql('us', q{SELECT homing.home_table('t', 'id')});
# PROTOCOL §3 row 65: regions with different versions of the extension do not form a cluster.
my $version = $cluster->sql('eu', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_homing'});
$cluster->sql('eu', q{UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'pg_homing'});
$cluster->fails_with('eu', $join, 'F0000', 'refused with another version of the extension',
	qr/this database has version of pg_homing (0\.9|\Q$version\E), but region "(us|eu)" has (0\.9|\Q$version\E)/);
$cluster->sql('eu', qq{UPDATE pg_extension SET extversion = '$version' WHERE extname = 'pg_homing'});
fails_while('eu', "wal_level = replica", $join, qr/region "eu" has wal_level = replica, but needs logical/);
fails_while('eu', "max_wal_senders = 0", $join, qr/region "eu" has max_wal_senders = 0, but needs at least 1/);
# The region that is joined counts as well.
fails_while('eu', "max_replication_slots = 0", $join,
	qr/region "us" has max_replication_slots = 0, but needs at least 1/, 'us');

# --- cut off -------------------------------------------------------------------------------------------

sub nothing_left
{
	my ($what) = @_;
	for my $region (qw(us eu))
	{
		$cluster->poll($region, q{SELECT count(*) = 0 FROM pg_replication_slots});
		is($cluster->sql($region, q{SELECT (SELECT count(*) FROM pg_subscription)
				|| ' ' || (SELECT count(*) FROM pg_foreign_server WHERE srvname = 'eu')
				|| ' ' || (SELECT count(*) FROM homing.member WHERE name = 'eu')}),
			'0 0 0', "$what: nothing is left at $region");
	}
	is($cluster->sql('eu', q{SELECT to_regclass('t') IS NULL}), 't', "$what: no table was brought");
	return;
}

# Holds a slot of the join up: it waits for a transaction that has written.
sub start_join_behind_writer
{
	my ($region) = @_;
	my $writer = $cluster->node($region)->background_psql('app');
	$writer->query_safe('BEGIN; CREATE TABLE held_up ();');
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ 'psql', '-X', '-d', $eu->connstr('app'), '-c', $join ],
		'>', \$out, '2>', \$err, IPC::Run::timeout(120));
	$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_replication_slots WHERE NOT temporary AND confirmed_flush_lsn IS NULL});
	return ($writer, $run);
}

for my $region (qw(us eu))
{
	# Cancelled, it cleans up after itself at once.
	my ($writer, $run) = start_join_behind_writer($region);
	$cluster->sql('eu', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE query LIKE '%homing.join_cluster(%' AND application_name = 'psql' AND pid <> pg_backend_pid()});
	IPC::Run::finish($run);
	nothing_left("cancelled while a slot is made at $region");
	is($cluster->sql('eu', 'SELECT count(*) FROM pg_publication'), '0', 'nor a publication');
	$writer->quit;

	# Terminated, it cannot; the next call does.
	($writer, $run) = start_join_behind_writer($region);
	$cluster->sql('eu', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE query LIKE '%homing.join_cluster(%' AND application_name = 'psql' AND pid <> pg_backend_pid()});
	IPC::Run::finish($run);
	$writer->quit;
}

# The joining server dies between the commit of the others and its own: it is no region, they have one that
# is joining. A trigger that waits at the commit holds it there.
$cluster->sql('eu', q{
	CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_lock(4711); RETURN NULL; END$$;
	CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON homing.milestone INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold();});
my $holder = $eu->background_psql('app');
$holder->query_safe('SELECT pg_advisory_lock(4711)');
my ($out, $err) = ('', '');
my $run = IPC::Run::start([ 'psql', '-X', '-d', $eu->connstr('app'), '-c', $join ],
	'>', \$out, '2>', \$err, IPC::Run::timeout(120));
$cluster->poll('eu', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted});
is($cluster->sql('us', q{SELECT status FROM homing.member WHERE name = 'eu'}), 'joining', 'the others have committed');
$cluster->kill('eu');
IPC::Run::finish($run);
eval { $holder->quit };
$cluster->start('eu');
is($cluster->sql('eu', 'SELECT count(*) FROM homing.local_region'), '0', 'it is no region');
$cluster->sql('eu', 'DROP TRIGGER hold ON homing.milestone');

$cluster->sql('eu', $join);
is($cluster->sql($_, q{SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM homing.regions}),
	'eu active, us active', "$_ knows both regions") for qw(us eu);
is($cluster->sql($_, q{SELECT count(*) FROM pg_replication_slots}), '1', "one slot at $_") for qw(us eu);
$cluster->sql('us', 'INSERT INTO t VALUES (1001, 1)');
$cluster->same_everywhere('t');

done_testing();
