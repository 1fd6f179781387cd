# A region that went back in time neither serves nor votes (PROTOCOL §3 rows 40 and 41); without leases, a restarted
# region is fenced until another one, or the operator, says that it may serve (DESIGN §8).
use strict;
use warnings;

use File::Path qw(rmtree);
use HomingCluster;
use PostgreSQL::Test::RecursiveCopy;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2,
	settings => "homing.lease_duration = 2s\nhoming.connect_timeout = 1s\n");
$cluster->form;
my %key = $cluster->accounts;
$cluster->converge;
sub write_at { my ($region) = @_; return "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$region}"; }

# A backup of ap, then writes there that the others receive, then the backup again in its place.
my $node = $cluster->node('ap');
my ($data, $backup) = ($node->data_dir, $node->basedir . '/as_it_was');
$node->stop;
PostgreSQL::Test::RecursiveCopy::copypath($data, $backup);
$node->start;
$cluster->sql('ap', write_at('ap')) for 1 .. 3;
$cluster->sql('ap', 'SELECT pg_switch_wal()');
$cluster->sql('ap', write_at('ap'));
$cluster->converge;
$node->stop;
rmtree($data);
PostgreSQL::Test::RecursiveCopy::copypath($backup, $data);
chmod(0700, $data) or die "$data: $!";
$node->start;
$cluster->poll('ap', q{SELECT fenced LIKE 'this region went back in time%' FROM homing.local_region});
$cluster->fails_with('ap', write_at('ap'), '25006', 'a region that was restored from a backup does not serve', qr/went back in time/);
my $id = $cluster->sql('us', 'SELECT cluster_id FROM homing.local_region');
$cluster->fails_with('ap', "SELECT homing._prepare('$id', 1, 1::int2)", '25006', 'nor vote', qr/fenced and does not vote/);
is($cluster->sql('ap', "SELECT homing._renew_lease('$id', 1::int2, (SELECT epoch FROM homing.cluster_map), 1000)"), '("the voter is fenced",)',
	'nor give leases');
$cluster->sql($_, write_at($_)) for qw(us eu);
pass('the others go on');
$cluster->{dead}{ap} = 1;
$cluster->sql('us', q{SELECT homing.declare_lost('ap')});
$cluster->sql('eu', write_at('ap'));
is($cluster->sql('eu', "SELECT balance FROM accounts WHERE id = $key{ap}"), '5', 'with all that it had sent before');
$cluster->same_everywhere('accounts');
$node->stop;

# Two are left, and leases are off.
$cluster->converge;
$cluster->wan->command('drop', $_) for 'us-eu', 'eu-us';
$cluster->node('us')->restart;
my ($state, undef, $message) = $cluster->try_sql('us', write_at('us'));
is($state, '25006', 'without leases, a restarted region serves nothing by itself');
like($message, qr/has not heard from enough other regions/, 'and says why');
$cluster->sql('us', q{SELECT homing.confirm_serving('eu is down for maintenance')});
$cluster->sql('us', write_at('us'));
is($cluster->sql('us', q{SELECT count(*) FROM homing.events WHERE kind = 'confirm_serving' AND reason LIKE 'eu is down%'}), '1',
	'the operator lets it serve, on record');
$cluster->wan->command('heal', $_) for 'us-eu', 'eu-us';
$cluster->node('eu')->restart;
$cluster->sql('eu', write_at('eu'));
pass('and one that reaches another region serves at once');
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
