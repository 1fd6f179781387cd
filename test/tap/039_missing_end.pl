# A region is lost, one survivor lacks the end of its stream, and nobody has kept it. The others serve at once. That one
# serves when it has copied what differs from a region that lacks nothing, killed at each step of that (PROTOCOL §3 rows
# 17, 33).
use strict;
use warnings;

use HomingCluster;
use Carp;
use PostgreSQL::Test::Utils;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0, settings => "restart_after_crash = on\n");
$cluster->form;
my %key = $cluster->accounts;
$cluster->sql('us', 'CREATE TABLE entries (account int, n int, note text, PRIMARY KEY (account, n))');
$cluster->sql('us', q{SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'CREATE TABLE log (account int NOT NULL, line text); ALTER TABLE log REPLICA IDENTITY FULL');
$cluster->sql('us', q{SELECT homing.home_table('log', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'INSERT INTO entries SELECT id, n, md5(n::text) FROM accounts, generate_series(1, 500) n');
$cluster->sql('us', "INSERT INTO log SELECT id, 'twice' FROM accounts, generate_series(1, 2)");
$cluster->sql('us', 'CREATE TABLE parents (id int PRIMARY KEY, n int NOT NULL, UNIQUE (id, n))');
$cluster->sql('us', q{SELECT homing.home_table('parents', 'id')});
$cluster->sql('us', 'CREATE TABLE children (account int, n int, parent int REFERENCES parents, slot int, PRIMARY KEY (account, n), UNIQUE (account, slot))');
$cluster->sql('us', q{SELECT homing.home_table('children', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'INSERT INTO parents SELECT id, 0 FROM accounts');
$cluster->sql('us', 'INSERT INTO children SELECT id, n, NULL, n FROM accounts, generate_series(1, 2) n');
# Shapes of tables: generated columns; numbers that nobody updates; partitions; a key by an index; nothing but a key.
$cluster->sql('us', q{
	CREATE TABLE shapes (d int, "N x" int GENERATED ALWAYS AS (d * 2) STORED NOT NULL, s bigint GENERATED ALWAYS AS IDENTITY, i jsonb, h text[], PRIMARY KEY (d));
	CREATE TABLE parts (d int, o int, x numeric, PRIMARY KEY (d, o)) PARTITION BY LIST (o);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
	CREATE TABLE indexed (gone int, d int NOT NULL, r text NOT NULL, n int);
	ALTER TABLE indexed DROP COLUMN gone;
	CREATE UNIQUE INDEX indexed_key ON indexed (d, r);
	ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_key;
	CREATE TABLE only_key (d int, n int, PRIMARY KEY (d, n))});
$cluster->sql('us', "SELECT homing.home_table('$_', 'd', colocate_with => 'accounts')") for qw(shapes parts indexed only_key);
$cluster->sql('us', $_) for 'INSERT INTO shapes (d, i, h) SELECT id, \'{"a": 1}\', ARRAY[\'x\'] FROM accounts', 'INSERT INTO parts SELECT id, o, 1.0 FROM accounts, generate_series(1, 2) o',
	"INSERT INTO indexed SELECT id, 'r', 1 FROM accounts", 'INSERT INTO only_key SELECT id, n FROM accounts, generate_series(1, 2) n';
my @homed = qw(accounts entries log parents children shapes parts indexed only_key);
my @tables = (@homed, qw(homing.ownership homing.assignment homing.key_acceptance));
$cluster->same_everywhere($_) for @tables;

# What $region has of the stream of ap.
sub applied
{
	my ($region) = @_;
	return $cluster->sql($region, q{SELECT homing._applied_positions()->>(SELECT max(region_id)::text FROM homing.member WHERE name = 'ap')});
}

# us gets what ap writes, eu does not, and us keeps nothing of it.
sub lose_the_end
{
	my (@statements) = @_;
	$cluster->converge;
	$cluster->wan->command('drop', 'eu-ap');
	$cluster->sql('ap', $_) for @statements;
	my $end = $cluster->sql('ap', 'SELECT pg_current_wal_flush_lsn()');
	$cluster->poll('ap', qq{SELECT confirmed_flush_lsn >= '$end' FROM pg_replication_slots JOIN homing.member m ON m.name = 'us'
		WHERE slot_name = homing._stream_name((SELECT region_id FROM homing.local_region), m.region_id)});
	$cluster->sql('us', 'SELECT homing._drop_tail_slots()');
	return;
}

my $log = $cluster->node('eu')->logfile;
sub crashes { return scalar(() = slurp_file($log) =~ /was terminated by signal 9/g); }
# It dies when it comes there, again and again, until it is to die elsewhere.
sub eu_dies_at
{
	my ($point) = @_;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	while (($cluster->try_sql('eu', "ALTER DATABASE app SET homing.debug_point = '$point'"))[0] ne '')
	{
		croak "eu does not start" if $patience-- == 0;
	}
	return crashes();
}
sub await_crash
{
	my ($crashes, $what) = @_;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	select(undef, undef, undef, 0.1) while crashes() == $crashes && $patience-- > 0;
	isnt(crashes(), $crashes, $what);
	return;
}

sub eu_is_complete
{
	my ($what) = @_;
	$cluster->poll('eu', q{SELECT missing = '{}' AND copied IS NULL FROM homing.local_region});
	$cluster->same_everywhere($_, "$what: $_ is the same") for @tables;
	# As always: nothing is left, and eu keeps what it applies from now on.
	for my $region (qw(us eu))
	{
		$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_subscription WHERE subenabled});
		$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_subscription});
		$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_replication_slots});
	}
	return;
}

# --- what ap leaves: rows of every kind, a home given to eu, keys given to eu and to us -----------------------------------
my $given = $cluster->sql('us', qq{SELECT home FROM homing.homes WHERE owner = 'ap' ORDER BY home LIMIT 1});
my ($to_eu, $to_us, @of_ap) = split /\n/, $cluster->sql('us', q{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = 'ap' ORDER BY id});
my $at_eu = applied('eu');
lose_the_end(
	"UPDATE accounts SET balance = 100 WHERE id IN ($key{ap}, $of_ap[-1])",
	"DELETE FROM entries WHERE account = $key{ap} AND n <= 10",
	"INSERT INTO entries VALUES ($key{ap}, 501, 'new')",
	"DELETE FROM log WHERE account = $key{ap}",
	"INSERT INTO log SELECT $of_ap[-1], 'twice'",
	"UPDATE shapes SET i = '{}' WHERE d = $key{ap}",
	"DELETE FROM shapes WHERE d = $of_ap[1]",
	"INSERT INTO shapes (d, i) VALUES ($of_ap[1], '[1]')",
	"UPDATE parts SET x = 1.00 WHERE d = $key{ap} AND o = 1",
	"UPDATE parts SET x = 2 WHERE d = $key{ap} AND o = 2",
	"DELETE FROM parts WHERE d = $of_ap[1]",
	"UPDATE indexed SET n = 2 WHERE d = $key{ap}",
	"UPDATE indexed SET r = 'other' WHERE d = $of_ap[1]",
	"DELETE FROM only_key WHERE d = $key{ap} AND n = 1",
	"INSERT INTO only_key VALUES ($key{ap}, 3)",
	# Two rows change places, which no order of updates can do.
	"UPDATE children SET slot = 0 WHERE account = $key{ap} AND n = 1",
	"UPDATE children SET slot = 1 WHERE account = $key{ap} AND n = 2",
	"UPDATE children SET slot = 2 WHERE account = $key{ap} AND n = 1",
	"SELECT homing.assign_key('accounts', $to_us, 'us')",
	"UPDATE accounts SET balance = 3 WHERE id = $of_ap[0]");
is(applied('eu'), $at_eu, 'eu has nothing of that');
my $last = $cluster->sql('us', "SELECT balance FROM accounts WHERE id = $of_ap[0]");
# Nor of what us has forwarded to ap since, and of how that ended.
my $known = $cluster->sql('us', q{SELECT coalesce(array_agg(id), '{}') FROM homing.outcome});
$cluster->sql('us', "UPDATE accounts SET balance = 4 WHERE id = $of_ap[1]");
my $new = "FROM homing.outcome WHERE id <> ALL ('$known') AND homing._token_region(id) = (SELECT region_id FROM homing.member WHERE name = 'ap')";
$cluster->poll('us', "SELECT count(*) = 1 $new");
my $token = $cluster->sql('us', "SELECT id $new");
is($last, '3', 'us has');
# What eu had begun before commits although it is to serve nothing from then on, and is not overwritten.
my $before = PsqlSession->new($cluster->conninfo('eu'));
$before->run('BEGIN');
$before->run("UPDATE accounts SET balance = 7 WHERE id = $key{eu}");
$cluster->kill('ap');

my $at_last = eu_dies_at('missing-moved');
my ($state, $out, $err) = $cluster->try_sql('us', q{SELECT homing.declare_lost('ap', force => true)});
is($state, '', 'ap is declared lost');
like($out, qr/"behind": \["eu"\]/, '… with eu behind');
is($cluster->sql('us', "SELECT string_agg(DISTINCT homing.home_of('accounts', id), ',') FROM accounts WHERE id IN ($key{ap}, @{[ join ', ', $to_eu, $to_us, @of_ap ]})"),
	'us', 'us has all that was homed at ap');
is($cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap} RETURNING balance"), '101', 'us serves at once');
$cluster->fails_with('eu', "UPDATE accounts SET balance = 0 WHERE id = $of_ap[-1]", '25006', 'eu does not', qr/lacks the last changes of a lost one/);
$cluster->fails_with('eu', q{SELECT homing.repartition('accounts', '{"us": 1}')}, '25006', '… nor is it asked for more', qr/lacks the last changes of region "ap"/);
is($cluster->sql('eu', "SELECT balance FROM accounts WHERE id = $key{ap}"), '0', 'it can be read');
is($cluster->sql('eu', "SELECT homing.outcome('$token')"), 'unknown', 'it does not know how transactions at ap have ended');
is($cluster->sql('eu', q{SELECT fenced FROM homing.regions WHERE name = 'eu'}), 't', 'homing.regions shows it as fenced');
$before->run('COMMIT');
$before->close;
await_crash($at_last, 'killed when it has its copy, and before the streams go on');
eu_dies_at('none');
eu_is_complete('copied');
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{eu}"), '7', 'what eu had begun is there');
is($cluster->sql('eu', "SELECT homing.outcome('$token')"), 'committed', 'now it knows how they ended');
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $of_ap[-1]"), '100', 'and what only us had');
my $taken = $cluster->sql('eu', q{SELECT split_part(reason, ' ', 1) FROM homing.events WHERE kind = 'completed'});
cmp_ok($taken, '<', 600, "$taken rows came over");
is($cluster->sql('eu', "UPDATE accounts SET balance = balance + 1 WHERE id = $_ RETURNING homing.home_of('accounts', id) IS NOT NULL"), 't', "eu writes $_")
  for $key{eu}, $key{us}, $to_us, $to_eu, @of_ap;
$cluster->same_everywhere('accounts', 'all write again');
is($cluster->sql('us', "SELECT count(*) FROM homing.verify('$_')"), '0', "verify finds nothing in $_") for @homed;

# --- ap is back, and lost again in the middle of transactions over several regions; eu is killed at each step -------------
$cluster->wan->command('heal', 'eu-ap');
$cluster->start('ap');
$cluster->{dead}{ap} = 1;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
like($cluster->sql('ap', 'SELECT homing.rejoin(failback => true)'), qr/"orphaned_writes": 0/, 'ap is back, and had nothing alone');
delete $cluster->{dead}{ap};
$cluster->_use_links;
$cluster->same_everywhere($_, "ap has $_") for @tables;
for my $region ($cluster->names)
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM homing.tail_slot WHERE current AND taken IS NULL});
}
my $mine = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'ap'});
my $parent = $cluster->sql('us', q{SELECT min(id) FROM parents WHERE homing.home_of('parents', id) = 'ap'});
my ($first, $second, $third) = split /\n/, $cluster->sql('us', q{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = 'eu' ORDER BY id LIMIT 3});
# Keys of eu and ap whose rows are compared together.
my ($of_eu, $beside) = split /\|/, $cluster->sql('us', q{
	SELECT e, a FROM generate_series(1000, 4000) e JOIN generate_series(1000, 4000) a
		ON hashtextextended(a::text, 0) & 1023 = hashtextextended(e::text, 0) & 1023
	WHERE homing.home_of('log', e) = 'eu' AND homing.home_of('log', a) = 'ap' LIMIT 1});
$cluster->sql('us', "INSERT INTO log SELECT account, 'twice' FROM unnest(ARRAY[$of_eu, $beside]) account, generate_series(1, 2)");
$cluster->sql('us', 'UPDATE accounts SET balance = 1000');
$cluster->converge;
# Also what a user has prepared stays as it is.
$cluster->sql('eu', "BEGIN; UPDATE accounts SET balance = 5 WHERE id = $third; PREPARE TRANSACTION 'by hand'");
lose_the_end(
	"INSERT INTO entries SELECT $mine, n, 'again' FROM generate_series(1001, 3000) n",
	"INSERT INTO log VALUES ($beside, 'twice')",
	# Decided, but eu does not hear of it. Its part holds a row of log, and one of parents by the foreign key.
	"BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = $mine; UPDATE accounts SET balance = balance + 1 WHERE id = $first;"
	. "DELETE FROM log WHERE account = $of_eu; UPDATE children SET parent = $parent WHERE account = $first AND n = 1; COMMIT",
	"UPDATE parents SET n = 1 WHERE id = $parent");
is($cluster->sql('eu', 'SELECT count(*) FROM homing._parts'), '1', 'eu holds a part that is decided');
# Not decided: ap dies before.
is(($cluster->try_sql('ap', "SET homing.debug_point = 'atomic-before-decision'; BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = $mine;"
	. "UPDATE accounts SET balance = balance + 1 WHERE id = $second; COMMIT"))[0], 'psql exit code 2', 'ap dies before it has decided another one');
$cluster->kill('ap');
is($cluster->sql('eu', 'SELECT count(*) FROM homing._parts'), '2', 'of which eu has a part, too');

my $crashes = eu_dies_at('missing-paused');
like($cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)}), qr/"behind": \["eu"\]/, 'eu lacks the end again');
# From the last one on it has its copy, and is not killed again.
for my $next (qw(missing-copied missing-committed none))
{
	await_crash($crashes, "killed before $next");
	$crashes = eu_dies_at($next);
}
eu_is_complete('after all that');
$cluster->poll('eu', 'SELECT count(*) = 0 FROM homing._parts');
$cluster->sql('eu', "COMMIT PREPARED 'by hand'");
$cluster->same_everywhere($_, "with all parts ended: $_") for @homed;
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $third"), '5', 'what was prepared by hand is there');
is($cluster->sql('us', "SELECT (SELECT count(*) FROM log WHERE account = $of_eu), (SELECT count(*) FROM log WHERE account = $beside), (SELECT n FROM parents WHERE id = $parent)"),
	'0|3|1', 'and what the part held');
is($cluster->sql('eu', "SELECT string_agg(balance::text, ' ' ORDER BY id = $mine DESC, id = $first DESC) FROM accounts WHERE id IN ($mine, $first, $second)"),
	'999 1001 1000', 'what was decided is there, what was not is not');
is($cluster->sql('eu', "SELECT count(*) FROM entries WHERE note = 'again'"), '2000', 'and all that only us had');
$cluster->sql($_, 'UPDATE accounts SET balance = balance + 1') for qw(us eu);
$cluster->same_everywhere('accounts', 'both write again');
is($cluster->sql('us', "SELECT count(*) FROM homing.verify('$_')"), '0', "verify finds nothing in $_") for @homed;

# --- lost a third time, and the only one that has all is gone before eu has it ---------------------------------------------
$cluster->wan->command('heal', 'eu-ap');
$cluster->start('ap');
$cluster->{dead}{ap} = 1;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->sql('ap', 'SELECT homing.rejoin(failback => true)');
delete $cluster->{dead}{ap};
$cluster->_use_links;
$cluster->same_everywhere($_, "ap has $_ again") for @tables;
for my $region ($cluster->names)
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM homing.tail_slot WHERE current AND taken IS NULL});
}
$mine = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'ap'});
my $of_us = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'us'});
lose_the_end("UPDATE accounts SET balance = 4711 WHERE id = $mine");
$cluster->kill('ap');
$cluster->sql('eu', "ALTER DATABASE app SET homing.debug_point = 'stop:missing-paused'");
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
my $stopped;
my $until = 10 * $PostgreSQL::Test::Utils::timeout_default;
until (($stopped) = slurp_file($log) =~ /process (\d+) stops at debug point missing-paused/)
{
	croak 'eu did not begin to copy' if $until-- == 0;
	select(undef, undef, undef, 0.1);
}
$cluster->sql('us', "UPDATE accounts SET balance = 4712 WHERE id = $of_us");
$cluster->kill('us');
$cluster->fails_with('eu', q{SELECT homing.declare_lost('us')}, '25006', 'by itself eu does not declare us lost');
$cluster->sql('eu', 'ALTER DATABASE app RESET homing.debug_point');
my ($rc, $result, $warnings) = $cluster->try_sql('eu', q{SELECT homing.declare_lost('us', force => true)});
is($rc, '', 'by the word of the operator it does');
kill 'CONT', $stopped;
is($cluster->sql('eu', "UPDATE accounts SET balance = balance + 1 WHERE id IN ($of_us, $mine) RETURNING balance < 2000"), "t\nt", 'and writes all');
for my $region (qw(ap us))
{
	$cluster->wan->command('heal', $_) for $cluster->links($region);
	$cluster->start($region);
	$cluster->poll($region, 'SELECT fenced IS NOT NULL FROM homing.local_region');
}
like($cluster->sql($_, 'SELECT homing.rejoin()'), qr/"orphaned_writes": 1/, "$_ is back") for qw(ap us);
$cluster->_use_links;
$cluster->same_everywhere($_, "at last: $_") for @homed;
is($cluster->sql('ap', q{SELECT string_agg(new->>'balance', ' ' ORDER BY new->>'balance') FROM homing.orphan}), '4711 4712', 'nothing is lost unseen');

$cluster->stop;
done_testing();
