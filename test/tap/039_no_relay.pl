# A region is lost, one survivor lacks the end of its stream, and nobody has kept it: the loss is refused, and says what can
# be done instead. What the region that is behind lacks then comes with its return (PROTOCOL §3 rows 17, 33).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0);
$cluster->form;
my %key = $cluster->accounts;
$cluster->same_everywhere('accounts');

# What eu has not received was kept at us, and is not any more.
$cluster->wan->command('drop', 'eu-ap');
$cluster->sql('ap', "UPDATE accounts SET balance = 100 WHERE id = $key{ap}");
my $end = $cluster->sql('ap', 'SELECT pg_current_wal_flush_lsn()');
$cluster->poll('ap', qq{SELECT confirmed_flush_lsn >= '$end' FROM pg_replication_slots JOIN homing.member m ON m.name = 'us'
	WHERE slot_name = homing._stream_name((SELECT region_id FROM homing.local_region), m.region_id)});
$cluster->sql('us', 'SELECT pg_drop_replication_slot(slot) FROM homing.tail_slot');
$cluster->poll('us', q{SELECT count(*) > 0 FROM homing.events WHERE kind = 'tail_slot_lost'});
$cluster->kill('ap');

$cluster->fails_with('us', q{SELECT homing.declare_lost('ap', force => true)}, '55000', 'the loss is refused',
	qr/region "us" cannot pass on what region "eu" lacks of region "ap".*declare region "eu" lost as well: it can join again/s);
is($cluster->sql($_, q{SELECT status FROM homing.regions WHERE name = 'ap'}), 'active', "$_: nothing has changed") for qw(us eu);
$cluster->sql('us', "UPDATE accounts SET balance = 2 WHERE id = $key{us}");
$cluster->sql('eu', "UPDATE accounts SET balance = 3 WHERE id = $key{eu}");
$cluster->same_everywhere('(SELECT * FROM accounts WHERE balance IN (2, 3))', 'the others go on');

# So both are declared lost, and come back.
$cluster->sql('us', q{SELECT homing.declare_lost(ARRAY['ap', 'eu'], force => true)});
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{ap}"), '100', 'no write is lost');
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
$cluster->wan->command('heal', 'eu-ap');
$cluster->start('ap');
for my $region (qw(eu ap))
{
	$cluster->{dead}{eu} = $cluster->{dead}{ap} = 1 if $region eq 'eu';
	$cluster->poll($region, 'SELECT fenced IS NOT NULL FROM homing.local_region');
	like($cluster->sql($region, 'SELECT homing.rejoin()'), qr/"orphaned_writes": 0/, "$region is back, and had nothing alone");
	delete $cluster->{dead}{$region};
	$cluster->_use_links;
	$cluster->same_everywhere('accounts', "$region is as the others");
	cmp_ok($cluster->sql('us', q{SELECT split_part(reason, ' ', 1)::int FROM homing.events WHERE kind = 'join_cluster' ORDER BY at DESC LIMIT 1}),
		'<', 50, '… and has taken little more than what it lacked');
}
$cluster->sql('eu', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
$cluster->same_everywhere('accounts', 'all write again');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}"), '102', 'on top of the last write');

$cluster->stop;
done_testing();
