# verify finds the rows of which a region missed a change, and nothing else while the table is written.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], one_server => 1);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)');
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 300)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->same_everywhere('accounts');
my @of_us = split /\n/, $cluster->sql('us', q{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = 'us' ORDER BY id LIMIT 3});

my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '4', '-f', '-', '-h', $cluster->node('us')->host, '-p', $cluster->node('us')->port, 'us' ],
	'<', \"\\set id random(1, 300)\nUPDATE accounts SET balance = balance + 1 WHERE id = :id;\n", '>', \my $out, '2>&1');
is($cluster->sql($_, q{SELECT * FROM homing.verify('accounts')}), '', "$_ finds nothing under load") for $cluster->names;
$load->finish;
$cluster->converge;

# eu misses three changes of us.
my $stream = $cluster->sql('eu', q{SELECT homing._stream_name(1::int2, 2::int2)});
$cluster->sql('eu', "ALTER SUBSCRIPTION $stream DISABLE");
$cluster->poll('eu', qq{SELECT count(*) = 0 FROM pg_stat_subscription WHERE subname = '$stream' AND pid IS NOT NULL});
$cluster->sql('us', "UPDATE accounts SET balance = -1 WHERE id = $of_us[0]");
$cluster->sql('us', "DELETE FROM accounts WHERE id = $of_us[1]");
my $end = $cluster->sql('us', 'SELECT pg_current_wal_flush_lsn()');
$cluster->sql('eu', "SELECT pg_replication_origin_advance('pg_' || oid, '$end') FROM pg_subscription WHERE subname = '$stream'");
$cluster->sql('eu', "ALTER SUBSCRIPTION $stream ENABLE");
$cluster->converge;
my $expected = qq(eu $of_us[0] different\neu $of_us[1] not at its home);
for my $region ($cluster->names)
{
	is($cluster->sql($region, q{SELECT at_region || ' ' || (key->>'id') || ' ' || difference FROM homing.verify('accounts')
		ORDER BY at_region, (key->>'id')::int}), $expected, "$region finds both");
}
is($cluster->sql('us', q{SELECT count(*) FROM homing.verify('accounts', 'ap')}), '0', 'ap has all');
is($cluster->sql('us', q{SELECT count(*) FROM homing.verify('accounts', 'eu')}), '2', 'eu has not');
$cluster->fails_with('us', q{SELECT homing.verify('accounts', 'nowhere')}, '22023', 'a region must exist');

# repair copies the keys from their home, and writes nothing that others receive
my $before = $cluster->fingerprint('us', 'accounts');
$cluster->fails_with('us', q{SELECT homing.repair('accounts', NULL::int)}, '22004', 'a key must be given');
is($cluster->sql('ap', "SELECT at_region || ' ' || key_repaired || ' ' || rows FROM homing.repair('accounts', $of_us[0], $of_us[1], $of_us[2])"),
	"eu $of_us[0] 1\neu $of_us[1] 0", 'repair tells what it made good');
is($cluster->sql($_, q{SELECT count(*) FROM homing.verify('accounts')}), '0', "$_ finds nothing any more") for $cluster->names;
$cluster->same_everywhere('accounts', 'all copies are the same after repair');
is($cluster->fingerprint('us', 'accounts'), $before, '… and as they were at the home');
$cluster->sql('ap', "UPDATE accounts SET balance = 7 WHERE id = $of_us[0]; INSERT INTO accounts VALUES ($of_us[1], 8)");
$cluster->same_everywhere('accounts', 'repaired rows are written on');

$cluster->stop;
done_testing();
