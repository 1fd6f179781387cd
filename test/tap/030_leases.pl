# Leases: a region serves only while a majority of the regions answers it (PROTOCOL §3 rows 2, 5, 9, 10, 13, 66).
#
# A WAN of its own between every two regions, so that a region can be cut off from the others while its clients
# still reach it.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2,
	settings => "homing.lease_duration = 2s\nhoming.connect_timeout = 1s\n");
$cluster->form;
my %key = $cluster->accounts;

sub cut { my ($how, $of, @more) = @_; $cluster->wan->command($how, $_, @more) for $cluster->links($of); return; }
sub heal { my ($of) = @_; $cluster->wan->command('heal', $_) for $cluster->links($of); return; }

sub write_at
{
	my ($region) = @_;
	return "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$region}";
}
my $is_fenced = q{SELECT r.fenced FROM homing.regions r JOIN homing.member m USING (name) JOIN homing.local_region l USING (region_id)};
my $lease_left = q{SELECT r.lease_left > interval '0' FROM homing.regions r JOIN homing.member m USING (name)
	JOIN homing.local_region l USING (region_id)};

$cluster->poll($_, $lease_left) for $cluster->names;
for my $region ($cluster->names)
{
	$cluster->sql($region, write_at($region));
	is($cluster->sql($region, $is_fenced), 'f', "$region holds a lease and serves");
}

# Rows 9 and 10: who is cut off, in whatever way, stops; the majority goes on.
for my $way ([ 'drop' ], [ 'reset' ], [ 'drop', 'back' ])
{
	my $name = join ' ', @$way;
	# Written while the lease still stands, to be committed when it does not.
	my $open = PsqlSession->new($cluster->conninfo('ap'));
	$open->run('BEGIN');
	is($open->run(write_at('ap'))->{sqlstate}, '', "$name: a write before the cut");
	cut($way->[0], 'ap', @{$way}[ 1 .. $#$way ]);
	$cluster->poll('ap', $is_fenced);
	is($open->run('COMMIT')->{sqlstate}, '25006', "$name: a transaction that was open cannot commit");
	$open->close;
	$cluster->fails_with('ap', write_at('ap'), '25006', "$name: who is cut off serves no more", qr/holds no lease/);
	is($cluster->sql('ap', "SELECT count(*) FROM accounts"), '60', "$name: reads go on");
	$cluster->sql($_, write_at($_)) for qw(us eu);
	is($cluster->sql($_, $is_fenced), 'f', "$name: $_ goes on") for qw(us eu);
	heal('ap');
	$cluster->poll('ap', $lease_left);
	$cluster->sql('ap', write_at('ap'));
	pass("$name: and it serves again afterwards");
}

# Row 13: a link that flaps costs nobody the lease, as long as the majority stays connected.
for (1 .. 4)
{
	$cluster->wan->command($_ % 2 ? 'reset' : 'drop', 'ap-us');
	$cluster->sql($_, write_at($_)) for qw(us eu ap);
	$cluster->wan->command('heal', 'ap-us');
}
is($cluster->sql('us', q{SELECT count(*) FROM homing.regions WHERE status <> 'active'}), '0', 'a flapping link changes nothing');

# Row 5: the lease runs out between the commit record and the answer. A standby that never confirms holds the
# commit in that place.
$cluster->node('ap')->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$cluster->node('ap')->reload;
$cluster->poll('ap', q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
my $before = $cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}");
my ($out, $lost) = ('', '');
my $committing = IPC::Run::start([ 'psql', '-X', '-d', $cluster->conninfo('ap'), '-c', write_at('ap') ],
	'>', \$out, '2>', \$lost, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$cluster->poll('ap', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'UPDATE%')});
cut('drop', 'ap');
$cluster->poll('ap', $is_fenced);
$cluster->node('ap')->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$cluster->node('ap')->reload;
$committing->finish;
unlike($out, qr/UPDATE 1/, 'no success is reported');
like($lost, qr/server closed the connection|connection to server was lost/, 'the acknowledgement is withheld');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}"), $before + 1, 'though the commit stands');
heal('ap');
$cluster->poll('ap', $lease_left);

# Rows 2 and 66: after a restart a region has no lease, until a majority answers.
cut('drop', 'ap');
$cluster->node('ap')->restart;
my ($state, undef, $message) = $cluster->try_sql('ap', write_at('ap'));
is($state, '25006', 'a restarted region serves nothing by itself');
like($message, qr/has not heard from enough other regions since its server started/, 'and says why');
heal('ap');
$cluster->poll('ap', $lease_left);
$cluster->kill($_) for $cluster->names;
$cluster->start($_) for $cluster->names;
$cluster->sql($_, write_at($_)) for $cluster->names;
pass('all restarted at once, all serve again, and who writes at once waits for it');
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
