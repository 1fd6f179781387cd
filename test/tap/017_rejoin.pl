# A lost region comes back: what only it had is recorded and reviewed, nothing is overwritten unseen.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0);
$cluster->form;
$cluster->sql('us', q{CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, note text, tags jsonb,
	at timestamptz NOT NULL DEFAULT now())});
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 600)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{SELECT homing.set_heirs('ap', ARRAY['eu', 'us'])});
# Keys whose text is another one in each region.
$cluster->sql('us', 'CREATE TABLE days (day date PRIMARY KEY, at timestamptz NOT NULL, span interval NOT NULL, price money NOT NULL, raw bytea NOT NULL)');
$cluster->sql('us', q{INSERT INTO days SELECT date '2025-01-01' + i, timestamptz '2025-01-01 00:00Z' + i * interval '7 h', interval '-1 day 1 h' * i, i, decode('5c00ff', 'hex') FROM generate_series(1, 300) i});
$cluster->sql('us', q{SELECT homing.home_table('days', 'day')});
my %display = (us => q{datestyle = 'SQL, DMY'}, eu => q{datestyle = 'German'}, ap => q{datestyle = 'SQL, MDY'});
for my $region ($cluster->names)
{
	$cluster->sql($region, "ALTER DATABASE app SET $_") for $display{$region}, q{timezone = 'Asia/Tokyo'}, q{intervalstyle = 'sql_standard'}, q{bytea_output = 'escape'};
}
$cluster->sql('eu', q{ALTER DATABASE app SET timezone = 'America/New_York'});
$cluster->same_everywhere('accounts');
$cluster->same_everywhere('days', 'the same days');
$cluster->fails_with('us', 'SELECT homing.rejoin()', '55000', 'a region that serves does not rejoin');

my @key = split /\n/, $cluster->sql('us', q{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = 'ap' ORDER BY id LIMIT 6});
my $free = $cluster->sql('us', q{SELECT min(i) FROM generate_series(1000, 2000) i WHERE homing.home_of('accounts', i) = 'ap'});
my $of_us = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'us'});

# A transaction that begins before ap is cut off, and ends after: it counts by its end. None of it gets out.
my $long = $cluster->node('ap')->background_psql('app');
$long->query_safe(qq{BEGIN; UPDATE accounts SET balance = 10, note = 'it''s "quoted"', tags = '{"a": [1, null]}' WHERE id = $key[0]});
$cluster->converge;
$cluster->wan->command('drop', "$_-ap") for qw(us eu);
$long->query_safe('COMMIT');
$long->quit;
$cluster->sql('ap', "UPDATE accounts SET balance = 20 WHERE id = $key[1]");
$cluster->sql('ap', "UPDATE accounts SET balance = 21, at = '2020-02-02 02:02:02.123456+02' WHERE id = $key[1]");
$cluster->sql('ap', "DELETE FROM accounts WHERE id = $key[2]");
$cluster->sql('ap', "INSERT INTO accounts (id, balance) VALUES ($free, 30)");
$cluster->sql('ap', "UPDATE accounts SET balance = 40 WHERE id = $key[3]");
$cluster->sql('ap', "UPDATE accounts SET balance = 50 WHERE id = $key[4]");
$cluster->sql('ap', "INSERT INTO accounts (id, balance) VALUES ($free, 31) ON CONFLICT (id) DO UPDATE SET balance = 32");
$cluster->kill('ap');

$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->wan->command('heal', "$_-ap") for qw(us eu);
# The heir goes on: one row is written anew, one just as ap had it.
$cluster->sql('us', "UPDATE accounts SET balance = 41 WHERE id = $key[3]");
$cluster->sql('us', "UPDATE accounts SET balance = 50 WHERE id = $key[4]");
$cluster->sql('us', q{UPDATE days SET at = at + interval '1 h', span = span * 2, price = price * 1000.5 WHERE day < date '2025-02-01'});
$cluster->sql('us', q{DELETE FROM days WHERE day > date '2025-10-20'});
$cluster->same_everywhere('accounts');
my $before = $cluster->fingerprint('us', 'accounts');

$cluster->start('ap');
$cluster->{dead}{ap} = 1;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
my $xid = $cluster->sql('ap', 'SELECT txid_current()');
my $answer = $cluster->sql('ap', 'SELECT homing.rejoin()');
like($answer, qr/"orphaned_writes": 8/, 'it tells how many writes only it had');
# Rows that are the same did not travel, but for those that share a bucket with one that differs.
my $age = $cluster->sql('ap', "SELECT txid_current() - $xid");
cmp_ok($cluster->sql('ap', "SELECT count(*) FROM accounts WHERE age(xmin) >= $age"), '>', 580, 'and leaves most rows as they are');
is($cluster->sql('ap', q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'homing._refuse_to_write_copy'::regproc}), '0', 'which are written again');
like($cluster->sql('us', q{SELECT reason FROM homing.events WHERE kind = 'join_cluster' ORDER BY at DESC LIMIT 1}), qr/^\d{1,3} rows came over$/,
	'the event tells how many came');
delete $cluster->{dead}{ap};
$cluster->_use_links;
$cluster->same_everywhere('accounts', 'the copies are the same');
$cluster->same_everywhere('days', 'the days too, however each region writes them');
is($cluster->fingerprint('ap', 'accounts'), $before, 'ap has what the others have, and nothing it wrote alone');
is($cluster->sql('ap', q{SELECT string_agg(name || ' ' || status, ', ' ORDER BY status, name) FROM homing.regions}),
	'ap active, eu active, us active', 'ap is a region of the cluster again');
is($cluster->sql('us', q{SELECT count(*) FROM homing.member WHERE name = 'ap' AND status = 'lost'}), '1', 'as a new incarnation');
is($cluster->sql('us', q{SELECT count(*) FROM homing.homes WHERE owner = 'ap'}), '0', 'its homes stay where they are');

$cluster->same_everywhere('homing.orphan', 'every region knows the orphaned writes');
for my $region (qw(us eu ap))
{
	is($cluster->sql($region, q{SELECT string_agg(operation || ' ' || (key->>'id') || ': ' || verdict, E'\n' ORDER BY id) FROM homing.orphaned_writes}),
		"update $key[0]: applies cleanly\nupdate $key[1]: applies cleanly\nupdate $key[1]: conflicts with the row as it is now\n"
		. "delete $key[2]: applies cleanly\ninsert $free: applies cleanly\nupdate $key[3]: conflicts with the row as it is now\n"
		. "update $key[4]: superseded\nupdate $free: conflicts with the row as it is now",
		"$region: verdicts");
}
is($cluster->sql('eu', q{SELECT count(DISTINCT transaction) || ' ' || count(*) FILTER (WHERE state = 'open' AND "table" = 'public.accounts') FROM homing.orphaned_writes}),
	'8 8', 'each with its transaction, all open');
$cluster->fails_with('us', 'SET ROLE pg_monitor; SELECT * FROM homing.orphaned_writes', '42501', 'they are not for everybody');

my @id = split /\n/, $cluster->sql('us', 'SELECT id FROM homing.orphaned_writes ORDER BY id');
is($cluster->sql('us', "SELECT homing.reapply($id[0], $id[1])"), '2', 'writes that apply cleanly are made again, at their home');
is($cluster->sql('eu', "SELECT homing.reapply(ARRAY[$id[3], $id[2], $id[4], $id[7]])"), '4', 'in order, from another region, those that build on each other too');
$cluster->converge;
is($cluster->sql('ap', "SELECT balance || ' ' || note || ' ' || (tags->'a'->>0) FROM accounts WHERE id = $key[0]"), q{10 it's "quoted" 1}, 'values are whole');
is($cluster->sql('ap', "SELECT balance || ' ' || (at = '2020-02-02 00:02:02.123456Z') FROM accounts WHERE id = $key[1]"), '21 true', 'the later one counts');
is($cluster->sql('ap', "SELECT count(*) FROM accounts WHERE id = $key[2]"), '0', 'the row is deleted');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $free"), '32', 'the row is inserted and updated');
$cluster->fails_with('us', "SELECT homing.reapply($id[5])", '55000', 'what conflicts is refused', qr/cannot reapply orphaned write/);
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key[3]"), '41', 'and the row left as it is');
is($cluster->sql('ap', "SELECT homing.discard($id[5], $id[6])"), '2', 'it can be discarded, also at the region that came back');
$cluster->fails_with('ap', "SELECT homing.reapply($id[5])", '55000', 'and then is decided', qr/was discarded already/);
$cluster->fails_with('us', 'SELECT homing.discard(7)', '22023', 'there is no such write');
$cluster->converge;
is($cluster->sql('us', 'SELECT string_agg(state, E\' \' ORDER BY id) FROM homing.orphaned_writes'),
	'reapplied reapplied reapplied reapplied reapplied discarded discarded reapplied', 'every region sees what was decided');

$cluster->sql('ap', "UPDATE accounts SET balance = 60 WHERE id = $of_us");
$cluster->sql('us', q{SELECT homing.hand_over('accounts', 'eu', 'ap')});
$cluster->sql('us', "UPDATE accounts SET balance = 70 WHERE id = $key[5]");
$cluster->same_everywhere('accounts', 'it forwards and serves as before');
$cluster->stop;
done_testing();
