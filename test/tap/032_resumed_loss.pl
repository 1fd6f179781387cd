# Who declares a loss dies, at each step; a survivor's worker finishes it, or the next call (PROTOCOL §3 rows 2, 34;
# DESIGN §8). And losses that nobody has to declare (row 13, a few cuts).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2,
	settings => "homing.lease_duration = 2s\nhoming.connect_timeout = 1s\nrestart_after_crash = on\n");
$cluster->form;
my %key = $cluster->accounts;
my $key = $key{ap};
my $serves = q{SELECT r.lease_left > interval '0' FROM homing.regions r JOIN homing.member m USING (name)
	JOIN homing.local_region l USING (region_id)};

for my $step (qw(vote-before-accept vote-after-accept))
{
	$cluster->poll($_, $serves) for $cluster->names;
	$cluster->converge;
	$cluster->wan->command('drop', $_) for $cluster->links('ap');
	my ($state) = $cluster->try_sql('us', "SET homing.debug_point = '$step'; SELECT homing.declare_lost('ap')");
	isnt($state, '', "$step: the session that declares it is killed");
	# Every process of us had to start again. What a majority has voted for goes on by itself; before, it takes a call.
	$cluster->poll('us', 'SELECT true');
	if ($step eq 'vote-after-accept')
	{
		$cluster->poll('eu', q{SELECT status = 'lost' FROM homing.regions WHERE name = 'ap'});
		pass("$step: the others finish it by themselves");
	}
	else
	{
		is($cluster->sql('eu', q{SELECT status FROM homing.regions WHERE name = 'ap'}), 'active', "$step: nothing is decided");
		$cluster->sql('eu', q{SELECT homing.declare_lost('ap')});
	}
	$cluster->{dead}{ap} = 1;
	$cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id = $key") for qw(eu us);
	pass("$step: its homes are served");
	$cluster->same_everywhere('accounts');
	$cluster->wan->command('heal', $_) for $cluster->links('ap');
	$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
	$cluster->sql('ap', 'SELECT homing.rejoin()');
	delete $cluster->{dead}{ap};
	$cluster->_use_links;
	$cluster->sql('eu', q{SELECT homing.hand_over('accounts', from_region => r, to_region => 'ap') FROM unnest(ARRAY['us', 'eu']) r});
}
$cluster->same_everywhere('accounts');

# --- losses that nobody declares ----------------------------------------------------------------------------------
for my $region ($cluster->names)
{
	$cluster->node($region)->safe_psql('postgres', q{ALTER SYSTEM SET homing.auto_declare_lost = '4s'});
	$cluster->node($region)->reload;
}
$cluster->poll($_, $serves) for $cluster->names;
# One link is down, or comes and goes: the others still hear of both.
for my $turn (1 .. 3)
{
	$cluster->wan->command('drop', $_) for 'us-ap', 'ap-us';
	$cluster->poll('us', q{SELECT homing._silent_for((SELECT max(region_id) FROM homing.member WHERE name = 'ap')) > 5000}) if $turn == 3;
	is($cluster->sql($_, q{SELECT count(*) FROM homing.regions WHERE status <> 'active'}), '0', "turn $turn: $_ keeps all") for qw(us eu);
	$cluster->wan->command('heal', $_) for 'us-ap', 'ap-us';
}
# All its links come and go, each time for less than homing.auto_declare_lost: the map does not change.
my $epoch = $cluster->sql('us', 'SELECT epoch FROM homing.cluster_map');
my $silent = q{SELECT homing._silent_for((SELECT max(region_id) FROM homing.member WHERE name = 'ap'))};
for my $turn (1 .. 5)
{
	$cluster->wan->command('drop', $_) for $cluster->links('ap');
	$cluster->poll($_, "$silent > 1500") for qw(us eu);
	$cluster->wan->command('heal', $_) for $cluster->links('ap');
	$cluster->poll($_, "$silent < 500") for qw(us eu);
}
is($cluster->sql($_, 'SELECT epoch FROM homing.cluster_map'), $epoch, "$_: links that come and go change nothing") for $cluster->names;
$cluster->poll($_, $serves) for $cluster->names;
$cluster->sql($_, 'UPDATE accounts SET balance = balance + 1') for $cluster->names;
$cluster->same_everywhere('accounts');
$cluster->wan->command('drop', $_) for $cluster->links('ap');
$cluster->poll($_, q{SELECT status = 'lost' FROM homing.regions WHERE name = 'ap'}) for qw(us eu);
$cluster->{dead}{ap} = 1;
is($cluster->sql('us', q{SELECT count(*) FROM homing.events WHERE kind = 'declare_lost' AND reason LIKE 'a majority has not heard%'}), '1',
	'who is gone for all is declared lost, once');
$cluster->sql('us', 'UPDATE accounts SET balance = balance + 1');
pass('and the homes are served');
# Two are left: no majority without the other, and leases are off.
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
