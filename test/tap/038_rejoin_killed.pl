# A lost region that comes back is killed at each step of that: the next call goes on, records what only it had once, and
# loses nothing (PROTOCOL §3 rows 11, 45).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0,
	settings => "homing.fencing = operator\nrestart_after_crash = on\n");
$cluster->form;
my %key = $cluster->accounts;
$cluster->sql('us', 'CREATE TABLE entries (account int, n int, PRIMARY KEY (account, n))');
$cluster->sql('us', q{SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
$cluster->same_everywhere('accounts');
my $entries = 1200;  # more than two batches

# ap writes what nobody receives, and is declared lost.
sub lose_ap
{
	my ($round) = @_;
	$cluster->converge;
	$cluster->wan->command('drop', "$_-ap") for qw(us eu);
	$cluster->sql('ap', "INSERT INTO entries SELECT $key{ap}, $round * $entries + n FROM generate_series(1, $entries) n");
	$cluster->sql('ap', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
	$cluster->kill('ap');
	$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
	$cluster->wan->command('heal', "$_-ap") for qw(us eu);
	$cluster->start('ap');
	$cluster->{dead}{ap} = 1;
	$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
	return;
}

sub killed_at
{
	my ($step, $call) = @_;
	my ($state) = $cluster->try_sql('ap', "SET homing.debug_point = '$step'; SELECT homing.$call");
	is($state, 'psql exit code 2', "$step: killed");
	$cluster->poll('ap', 'SELECT true');
	return;
}

sub is_back
{
	my ($round) = @_;
	delete $cluster->{dead}{ap};
	$cluster->_use_links;
	$cluster->same_everywhere($_, "round $round: $_ are the same") for qw(accounts entries homing.orphan);
	is($cluster->sql('eu', q{SELECT count(*) || ' ' || count(DISTINCT (key, new)) FILTER (WHERE op = 'insert') FROM homing.orphan}),
		($round * ($entries + 1)) . ' ' . ($round * $entries), "round $round: each orphaned write is recorded once");
	is($cluster->sql($_, q{SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM homing.regions}),
		'ap active, eu active, us active', "round $round: $_ has three regions") for $cluster->names;
	# Nothing is left of the attempts.
	for my $region ($cluster->names)
	{
		$cluster->poll($region, q{SELECT count(*) = 2 FROM pg_subscription});
		$cluster->poll($region, q{SELECT count(*) = 2 FROM pg_replication_slots WHERE slot_name ~ '^homing_[0-9a-f]{8}_[0-9]+_[0-9]+$'});
	}
	$cluster->sql('us', qq{SELECT homing.hand_over('accounts', owner, 'ap')
		FROM (SELECT DISTINCT owner FROM homing.homes WHERE owner <> 'ap' ORDER BY 1 LIMIT 1) o}) if $round == 1;
	$cluster->sql('ap', 'UPDATE accounts SET balance = balance + 1');
	$cluster->same_everywhere('accounts', "round $round: it writes again");
	return;
}

# --- until it has left: the same call again ---------------------------------------------------------------------------
lose_ap(1);
killed_at($_, 'rejoin()') for qw(rejoin-recording rejoin-recorded rejoin-left);

# --- it is no region any more: join_cluster, at each step -------------------------------------------------------------
$cluster->fails_with('ap', 'SELECT homing.rejoin()', '55000', 'it has left');
$cluster->fails_with('ap', 'UPDATE accounts SET balance = 0', '25006', 'its rows are kept, and not written', qr/a copy that a lost region has kept/);
$cluster->fails_with('ap', 'TRUNCATE entries', '25006', 'nor emptied');
my $conninfo = $cluster->sql('us', q{SELECT homing._region_conninfo('ap')});
my $join = sprintf q{join_cluster('ap', $c$%s$c$, via => '%s')}, $conninfo, $cluster->conninfo('us');
killed_at($_, $join) for qw(join-slots-made join-welcomed join-welcomed-by-all join-committed);
$cluster->sql('ap', "SELECT homing.$join");
is_back(1);

# --- the homes have not come back yet ---------------------------------------------------------------------------------
$key{ap} = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'ap'});
lose_ap(2);
killed_at('rejoin-joined', 'rejoin(failback => true)');
is_back(2);

$cluster->stop;
done_testing();
