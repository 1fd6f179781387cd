# declare_lost without force: a majority votes, each voter when nothing that it promised to the region stands
# (PROTOCOL §3 rows 9, 34, 35, 36, 37; §4 rows 31, 32).
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2,
	settings => "homing.lease_duration = 2s\nhoming.connect_timeout = 1s\n");
$cluster->form;
my %key = $cluster->accounts;
$cluster->converge;

sub cut { my ($of) = @_; $cluster->wan->command('drop', $_) for $cluster->links($of); return; }
sub heal { my ($of) = @_; $cluster->wan->command('heal', $_) for $cluster->links($of); return; }
sub write_at { my ($region) = @_; return "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$region}"; }
sub epoch { my ($region) = @_; return $cluster->sql($region, 'SELECT epoch FROM homing.cluster_map'); }
my $serves = q{SELECT r.lease_left > interval '0' FROM homing.regions r JOIN homing.member m USING (name)
	JOIN homing.local_region l USING (region_id)};
$cluster->poll($_, $serves) for $cluster->names;

# --- what a voter refuses (PROTOCOL §4 rows 31 and 32) ------------------------------------------------------------
my $id = $cluster->sql('us', 'SELECT cluster_id FROM homing.local_region');
my $other = '00000000-0000-0000-0000-000000000000';
$cluster->fails_with('us', "SELECT homing._prepare('$other', 1, 1::int2)", '22023', 'another cluster may not ask a voter');
$cluster->fails_with('us', "SELECT homing._prepare('$id', 1, 99::int2)", '22023', 'nor who is no member');
$cluster->fails_with('us', "SELECT homing._prepare('$id', $_, 1::int2)", '22023', "nor with the ballot $_")
  for 0, -1, 1000001, 9223372036854775807;
for my $map ('{}', '[]', 'null', qq({"cluster": "$id", "epoch": 9, "members": []}), qq({"cluster": "$id", "epoch": "x", "members": [{"id": 1}]}),
	qq({"cluster": "$id", "epoch": 9, "members": [{"id": 70000, "name": "us", "status": "lost"}]}),
	qq({"cluster": "$id", "epoch": 9, "members": [{"id": 1, "name": "us", "status": "lost"}]}),
	qq({"cluster": "$other", "epoch": 9, "members": [{"id": 1, "name": "us", "status": "active"}]}))
{
	$cluster->fails_with('us', "SELECT homing._accept('$id', 1, 1::int2, '$map')", '22023', "a voter refuses the map $map");
}
$cluster->sql('us', 'CREATE ROLE clerk LOGIN');
$cluster->fails_with('us', "SET ROLE clerk; SELECT $_", '42501', "not everybody may call $_")
  for "homing._prepare('$id', 1, 1::int2)", "homing._accept('$id', 1, 1::int2, '{}')", "homing._renew_lease('$id', 1::int2, 1, 1000)",
	"homing._on_prepare(1, 1::int2)", "homing._withhold(1::int2, 1000)", "homing.declare_lost('ap')", 'homing.confirm_serving()';
$cluster->fails_with('us', "SELECT homing.$_", '22023', "not even the administrator may call $_")
  for '_withhold(0::int2, 1000)', '_withhold(2::int2, -1)', '_withhold(2::int2, 2147483647)', '_silent_for(-1::int2)', '_promise(0::int2, 1000)',
	'_promised_for(2::int2, -1)';
is($cluster->sql('us', 'SELECT promised_round FROM homing.acceptor'), '0', 'nothing of this left a trace');

# --- who goes by another rule ---------------------------------------------------------------------------------------
sub set_fencing
{
	my ($region, $fencing) = @_;
	$cluster->node($region)->safe_psql('postgres', "ALTER SYSTEM SET homing.fencing = $fencing");
	$cluster->node($region)->reload;
	return;
}
set_fencing('eu', 'operator');
$cluster->poll($_->[0], qq{SELECT count(*) = 1 FROM homing.events WHERE kind = 'fencing_differs' AND region = '$_->[1]'
	AND reason LIKE '%operator%'}) for [qw(us eu)], [qw(ap eu)], [qw(eu us)], [qw(eu ap)];
pass('every region tells that eu has another homing.fencing');
set_fencing('eu', 'auto');

# --- row 36: a minority declares nothing --------------------------------------------------------------------------
my $epoch = epoch('us');
cut('ap');
$cluster->fails_with('ap', q{SELECT homing.declare_lost(ARRAY['us', 'eu'])}, '55000', 'one of three is no majority', qr/1 of 3 voters/);
$cluster->fails_with('ap', q{SELECT homing.declare_lost('us')}, '08001', 'who cannot be reached must be declared too', qr/region "eu" cannot be reached/);
is(epoch('ap'), $epoch, 'a refused call changes nothing');
is($cluster->sql('ap', q{SELECT count(*) FROM pg_subscription WHERE NOT subenabled}), '0', 'and stops no subscription');
is($cluster->sql('ap', q{SELECT promised_round FROM homing.acceptor}), '0', 'and asks no voter');
heal('ap');
$cluster->poll('ap', $serves);

# --- row 35: two regions declare each other; row 37: the lost one is healthy, and reachable ------------------------
# It takes until the lease has ended, and nothing that was acknowledged before is lost.
my @calls;
for my $call ([ 'us', 'ap' ], [ 'ap', 'us' ])
{
	my ($at, $lost) = @$call;
	my %run = (at => $at, lost => $lost, out => '', err => '');
	$run{handle} = IPC::Run::start([ 'psql', '-XAt', '-d', $cluster->conninfo($at), '-c', "SELECT homing.declare_lost('$lost')" ],
		'>', \$run{out}, '2>', \$run{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	push @calls, \%run;
}
$_->{handle}->finish for @calls;
my ($won, @more) = grep { $_->{handle}->result == 0 } @calls;
ok($won && !@more, 'one of two that declare each other wins') or diag(explain([ map { $_->{err} } @calls ]));
my ($winner, $loser) = ($won->{at}, $won->{lost});
like($won->{out}, qr/"voted": \["\w+", "\w+"\]/, 'it says who voted');
$cluster->{dead}{$loser} = 1;
$cluster->poll($loser, 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->fails_with($loser, write_at($loser), '25006', 'the loser refuses writes');
is($cluster->sql($_, "SELECT status FROM homing.regions WHERE name = '$loser'"), 'lost', "$_ knows") for $winner, 'eu';
$cluster->sql($_, write_at($loser)) for $winner, 'eu';
pass('its homes are served');
$cluster->same_everywhere('accounts');

# --- row 34: once more, from both survivors -----------------------------------------------------------------------
my $after = epoch('eu');
$cluster->sql($_, "SELECT homing.declare_lost('$loser', force => true)") for $winner, 'eu';
is(epoch('eu'), $after, 'declaring it again changes nothing');

# --- it comes back ---------------------------------------------------------------------------------------------------
$cluster->sql($loser, 'SELECT homing.rejoin()');
delete $cluster->{dead}{$loser};
is($cluster->sql('eu', 'SELECT count(*) FROM homing.orphaned_writes'), '0', 'nothing it had committed is orphaned');
$cluster->same_everywhere('accounts');

# --- while a loss is being decided, nothing is given to or taken from the region -------------------------------------
$cluster->_use_links;
$cluster->poll($_, $serves) for $cluster->names;
my $declaring = PsqlSession->new($cluster->conninfo($winner));
$declaring->run(q{SET homing.debug_point = 'stop:vote-after-accept'});
my $log = -s $cluster->node($winner)->logfile;
$declaring->send("SELECT homing.declare_lost('$loser')");
sub stopped
{
	my $stopped = qr/process (\d+) stops at debug point vote-after-accept/;
	$cluster->node($winner)->wait_for_log($stopped, $log);
	my ($pid) = substr(slurp_file($cluster->node($winner)->logfile), $log) =~ $stopped;
	$log = -s $cluster->node($winner)->logfile;
	return $pid;
}
my $pid = stopped();
$cluster->fails_with('eu', "SELECT homing.hand_over('accounts', 'eu', '$loser')", '55000', 'no home goes to a region that is being lost',
	qr/region "$loser" is being declared lost/);
kill 'CONT', $pid;
kill 'CONT', stopped();
is($declaring->receive->{sqlstate}, '', 'the call that was stopped goes on');
$declaring->close;
$cluster->{dead}{$loser} = 1;
is($cluster->sql('eu', "SELECT status FROM homing.regions WHERE name = '$loser'"), 'lost', 'and it is lost');
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
