# Changes of homed tables while every region writes them, with a region that is down, and with one that is lost.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)]);
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE items (id int PRIMARY KEY, gone int, n int NOT NULL DEFAULT 1, note text DEFAULT 'new');
	ALTER TABLE items DROP COLUMN gone;
	CREATE TABLE parts (item_id int REFERENCES items ON DELETE CASCADE, part int, PRIMARY KEY (item_id, part));
	CREATE TABLE ticks (writer int PRIMARY KEY, n int NOT NULL DEFAULT 0);
	INSERT INTO ticks SELECT generate_series(0, 2);
	SELECT homing.home_table('items', 'id');
	SELECT homing.home_table('parts', 'item_id', colocate_with => 'items');
	SELECT homing.home_table('ticks', 'writer', placement => 'region', region => 'eu');});
$cluster->converge;

# What is on its way to a region gets there before that one locks its tables.
my $apply = $cluster->sql('us', q{SELECT w.pid FROM pg_stat_subscription w JOIN homing.member m ON m.name = 'eu' CROSS JOIN homing.local_region l
	WHERE w.subname = homing._stream_name(m.region_id, l.region_id) AND w.relid IS NULL});
kill 'STOP', $apply;
$cluster->sql('eu', q{INSERT INTO items (id) SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('items', id) = 'eu'});
my $output = '';
my $change = IPC::Run::start([ 'psql', '-XAtq', '-d', $cluster->conninfo('us'), '-c', 'ALTER TABLE items ADD COLUMN early int' ],
	'>', \$output, '2>&1', IPC::Run::timeout(120));
$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE items%' AND wait_event = 'Extension'});
$cluster->poll('eu', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'pg_homing us%' AND state = 'active' AND query LIKE '%_change_everywhere%'});
kill 'CONT', $apply;
IPC::Run::finish($change);
is($output, '', 'a change waits for what is on its way');
$cluster->sql('us', 'DELETE FROM items');
$cluster->sql('us', 'ALTER TABLE items DROP COLUMN early');

# Rows come, change and go at all homes, by statements that are planned once. One writer also writes in all regions at a
# time; with two of them, each could wait for the other at another region.
my $number = 0;
sub write_at
{
	my ($region) = @_;
	my $node = $cluster->node($region);
	my $all = $region eq 'us' ? 6 : 0;
	my $script = $node->basedir . '/load.sql';
	append_to_file($script, qq{\\set id random(1, 2000)
\\set fate random(1, 10)
INSERT INTO items (id) VALUES (:id) ON CONFLICT (id) DO UPDATE SET n = items.n + 1;
\\if :fate < 3
DELETE FROM items WHERE id = :id;
\\elif :fate < 6
INSERT INTO parts SELECT id, :fate FROM items WHERE id = :id ON CONFLICT DO NOTHING;
\\elif :fate = $all
UPDATE items SET note = 'all' WHERE n % 7 = 3;
\\endif
UPDATE ticks SET n = n + 1 WHERE writer = } . $number++ . ";\n");
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-M', 'prepared', '--max-tries=1000', '-h', $node->host, '-p', $node->port, '-c', '1', '-T', '600', '-f', $script, 'app' ],
		'>', \$out, '2>', \$err, IPC::Run::timeout(300));
	return { run => $run, err => \$err };
}

sub await_writers
{
	my ($what) = @_;
	my $seen = $cluster->sql('eu', 'SELECT array_agg(n ORDER BY writer) FROM ticks');
	$cluster->poll($_, "SELECT bool_and(n > ('$seen'::int[])[writer + 1] + 3) FROM ticks") for $cluster->names;
	pass("$what: all regions write, and hear of it");
	return;
}

# A writer of several regions may hold the change up for lock_timeout; then the change says that it can be tried again.
sub change
{
	my ($region, $sql) = @_;
	for (1 .. 20)
	{
		my ($sqlstate, undef, $err) = $cluster->try_sql($region, "SET lock_timeout = '2s'; $sql");
		return pass("$region: $sql") unless $sqlstate;
		return fail("$region: $sql") || diag($err) unless $sqlstate =~ /^(?:55P03|40P01)$/;
	}
	fail("$region: $sql never got its locks");
	diag("$_:\n" . $cluster->sql($_, q{
		SELECT pid, application_name, state, wait_event_type, wait_event, pg_blocking_pids(pid), clock_timestamp() - query_start, left(query, 100)
		FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()})) for $cluster->names;
	return;
}

my @load = map { write_at($_) } $cluster->names;
await_writers('before');
change('us', 'ALTER TABLE items ADD COLUMN extra int DEFAULT 7');
await_writers('column added');
$cluster->sql('ap', "INSERT INTO items (id, note, extra) VALUES (10000, 'stays', 8)");
change('eu', 'ALTER TABLE items ALTER extra TYPE bigint, ALTER note TYPE varchar(50)');
await_writers('types changed');
$cluster->sql('ap', 'CREATE INDEX CONCURRENTLY items_extra ON items (extra)');
await_writers('index created');
change('ap', 'ALTER TABLE items DROP COLUMN extra');
await_writers('column dropped');
change('us', 'BEGIN; ALTER TABLE items RENAME note TO "the Note"; ALTER TABLE items RENAME "the Note" TO note; COMMIT');
change('eu', 'TRUNCATE items CASCADE');
await_writers('truncated');
change('ap', 'ALTER TABLE parts DROP CONSTRAINT parts_item_id_fkey');
await_writers('constraint dropped');
for my $load (@load)
{
	# Not INT: who starts the tests in the background may have it ignored.
	$load->{run}->signal('TERM');
	IPC::Run::finish($load->{run});
	unlike(${ $load->{err} }, qr/error|aborted/i, 'no writer saw an error that is not retried');
}
$cluster->same_everywhere($_) for qw(items parts ticks);
is($cluster->sql($_, 'SELECT count(*) FROM items WHERE id = 10000'), '0', "$_: what was there before TRUNCATE is gone") for $cluster->names;
is($cluster->sql($_, 'SELECT coalesce(sum(apply_error_count), 0) FROM pg_stat_subscription_stats'), '0', "$_: replication never stopped")
  for $cluster->names;

# What a region has of what the following statements would do.
sub state_of
{
	my ($region) = @_;
	return $cluster->sql($region, q{
		SELECT (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0 AND NOT attisdropped)
			|| ' | ' || (SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 'items'::regclass)
			|| ' | ' || coalesce((SELECT string_agg(oid::regprocedure::text, ' ') FROM pg_proc WHERE proname = 'twice'), '')
			|| ' | ' || has_table_privilege('reader', 'items', 'SELECT')
			|| ' | ' || (to_regclass('plain') IS NOT NULL)
			|| ' | ' || (SELECT count(*) > 0 FROM items)
			|| ' | ' || (SELECT count(*) FROM pg_prepared_xacts)});
}

sub same_state
{
	my ($expected, $what) = @_;
	is(state_of($_), $expected, "$_: $what") for $cluster->living;
	return;
}

# Other utility statements: everywhere, or nowhere.
$cluster->sql($_, 'CREATE ROLE reader') for $cluster->names;
$cluster->sql('eu', 'SELECT homing.run_everywhere($$GRANT SELECT ON items TO reader; CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS \'SELECT 2 * $1\'$$)');
$cluster->converge;
my $state = 'id n note | items_pkey | twice(integer) | true | false | true | 0';
same_state($state, 'privileges and functions came');
$cluster->sql('ap', 'CREATE FUNCTION twice(text) RETURNS text LANGUAGE sql AS $$SELECT $1 || $1$$');
$cluster->fails_with('us', 'SELECT homing.run_everywhere($$REVOKE SELECT ON items FROM reader; CREATE FUNCTION twice(text) RETURNS text LANGUAGE sql AS \'SELECT $1\'$$)',
	'42723', 'what one region cannot do is not done', qr/while executing the statement at region "ap"|region "ap"/);
$cluster->fails_with('us', 'ALTER TABLE items ADD CHECK (twice(note) <> note)', '42883', 'nor is a change that only one region could make');
$cluster->sql('ap', 'DROP FUNCTION twice(text)');
same_state($state, 'nothing is left of it');

# A region that is down: nothing is half done, and the others go on.
$cluster->kill('ap');
for my $sql (
	'ALTER TABLE items ADD COLUMN never int',
	'TRUNCATE items CASCADE',
	'CREATE INDEX CONCURRENTLY never ON items (n)',
	'DROP TABLE items CASCADE',
	'BEGIN; ALTER TABLE items ADD COLUMN never int; COMMIT',
	'SELECT homing.run_everywhere($$REVOKE SELECT ON items FROM reader$$)')
{
	$cluster->fails_with($_, $sql, '08001', "$_: $sql", qr/region "ap"/) for qw(us eu);
}
same_state($state, 'nothing was done');
my %key = map { $_ => $cluster->sql('us', "SELECT min(id) FROM items WHERE homing.home_of('items', id) = '$_'") } qw(us eu);
$cluster->sql('eu', "UPDATE items SET n = -1 WHERE id = $key{us}");
$cluster->sql('us', "UPDATE items SET n = -1 WHERE id = $key{eu}");
pass('the others write');

# One that is lost is not waited for.
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->sql('eu', 'ALTER TABLE items ADD COLUMN later int DEFAULT 1');
$cluster->sql('us', 'CREATE INDEX CONCURRENTLY items_later ON items (later)');
$cluster->sql('us', 'INSERT INTO items (id) SELECT generate_series(20000, 20050)');
$cluster->sql('eu', 'SELECT homing.run_everywhere($$DROP FUNCTION twice(int)$$)');
$cluster->same_everywhere('items');
same_state('id n note later | items_later items_pkey |  | true | false | true | 0', 'the living changed');
$cluster->sql('us', 'TRUNCATE items, parts');
$cluster->converge;
same_state('id n note later | items_later items_pkey |  | true | false | false | 0', 'and were emptied');

$cluster->stop;
done_testing();
