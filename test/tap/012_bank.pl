# Money moves between accounts of three regions while processes and servers are killed and links are cut. The
# total never changes; a transfer that was reported as done is there, one that failed is not, and whatever was
# left open is all or nothing.
#
# BANK_SECONDS sets how long (10), BANK_SEED what happens (by the clock).
use strict;
use warnings;

use BankLoad;
use HomingCluster;
use List::Util qw(sum0);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{BANK_SECONDS} // 10;
my $seed = $ENV{BANK_SEED} // time % 1_000_000;
note("BANK_SEED=$seed");
srand($seed);

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2, settings => <<'END');
restart_after_crash = on
homing.connect_timeout = 500ms
homing.outcome_timeout = 700ms
END
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
	CREATE TABLE entries (account int, transfer bigint, amount bigint NOT NULL, PRIMARY KEY (account, transfer))});
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, 60) id');
my %accounts;
push @{ $accounts{ $_->[1] } }, $_->[0]
  for map { [ split /\|/ ] } split /\n/, $cluster->sql('us', q{SELECT id, homing.home_of('accounts', id) FROM accounts});
is_deeply([ sort keys %accounts ], [qw(ap eu us)], 'accounts of three homes');
# For the clients: making tables takes as long as it takes.
for my $node (map { $cluster->node($_) } $cluster->names)
{
	$node->append_conf('postgresql.conf', "lock_timeout = 1s\nstatement_timeout = 5s\n");
	$node->reload;
}
$cluster->poll($_, "SELECT current_setting('statement_timeout') = '5s'") for $cluster->names;

my $load = BankLoad->start(
	clients => 8,
	conninfos => [ map { $cluster->conninfo($_) } $cluster->names ],
	accounts => \%accounts,
	seed => $seed,
	dir => PostgreSQL::Test::Utils::tempdir);

# --- faults -----------------------------------------------------------------------------------------------

my @regions = $cluster->names;
my %dead_until;    # servers
my %cut_until;     # links
my %faults;

sub pick { my (@list) = @_; return $list[ int(rand(@list)) ]; }

sub kill_server
{
	my ($region) = @_;
	return if $dead_until{$region};
	$cluster->kill($region);
	$dead_until{$region} = time + rand(1);
	return 1;
}

# A process that is in the middle of something, of ours, of a client or of the server's replication.
sub kill_process
{
	my ($region) = @_;
	return if $dead_until{$region};
	my ($state, $pids) = $cluster->try_sql($region, q{SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()
		AND backend_type IN ('client backend', 'walsender', 'logical replication worker', 'pg_homing worker')});
	my @pids = grep { /^\d+$/ } split /\n/, $pids;
	return if $state ne '' || !@pids;
	kill 'KILL', pick(@pids);
	return 1;
}

sub terminate_process
{
	my ($region) = @_;
	return if $dead_until{$region};
	my ($state) = $cluster->try_sql($region, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name LIKE 'pg_homing %' ORDER BY random() LIMIT 1});
	return $state eq '';
}

sub cut_link
{
	my ($how) = @_;
	my $from = pick(@regions);
	my $link = "$from-" . pick(grep { $_ ne $from } @regions);
	return if $cut_until{$link};
	$cluster->wan->command(@{$how}[0], $link, @{$how}[ 1 .. $#$how ]);
	$cut_until{$link} = time + 0.1 + rand(2);
	return 1;
}

my @faults = (
	[ 'kill a server', 1, sub { kill_server(pick(@regions)) } ],
	[ 'kill a process', 2, sub { kill_process(pick(@regions)) } ],
	[ 'terminate a session', 3, sub { terminate_process(pick(@regions)) } ],
	[ 'reset a link', 3, sub { cut_link(['reset']) } ],
	[ 'silence a link', 3, sub { cut_link([ 'drop', pick(qw(both forward back)) ]) } ]);
my @weighted = map { ($_) x $_->[1] } @faults;

sub mend
{
	my ($now) = @_;
	for my $region (grep { $dead_until{$_} <= $now } keys %dead_until)
	{
		$cluster->start($region);
		delete $dead_until{$region};
	}
	for my $link (grep { $cut_until{$_} <= $now } keys %cut_until)
	{
		# What hung for so long has given up: both ends learn of it, as of a router that comes back.
		$cluster->wan->command('heal', $link);
		delete $cut_until{$link};
	}
	return;
}

my $end = time + $seconds;
while (time < $end)
{
	my $fault = pick(@weighted);
	$faults{ $fault->[0] }++ if $fault->[2]->();
	sleep(0.3 + rand(0.7));
	mend(time);
}
mend(time + 3600);
$cluster->node($_)->poll_query_until('postgres', 'SELECT true') or die "$_ does not come back" for @regions;
$load->stop;
note("$faults{$_} times: $_") for sort keys %faults;

# --- what is left -----------------------------------------------------------------------------------------

$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for @regions;
pass('nothing is left prepared');
$cluster->same_everywhere($_) for qw(accounts entries);
is($cluster->sql('us', 'SELECT sum(balance) FROM accounts'), 60_000, 'the total is what it was');
is($cluster->sql('us', 'SELECT coalesce(sum(amount), 0) FROM entries'), 0, 'every entry has its counterpart');

my @transfers = $load->transfers;
my %form = map { $_->{id} => $_->{form} } @transfers;
my %entries = map { split /\|/ } split /\n/, $cluster->sql('us', 'SELECT transfer, count(*) FROM entries GROUP BY transfer');
my (%verdicts, @wrong, %states);
for my $transfer (@transfers)
{
	my $found = $entries{ $transfer->{id} } // 0;
	$verdicts{ $transfer->{verdict} }++;
	$states{ $transfer->{sqlstate} }++ if $transfer->{sqlstate} ne '';
	my $right = $transfer->{verdict} eq 'done' ? $found == 2 : $transfer->{verdict} eq 'failed' ? $found == 0 : $found == 0 || $found == 2;
	push @wrong, { %$transfer, entries => $found } unless $right;
}
note("$verdicts{$_} transfers $_") for sort keys %verdicts;
note('SQLSTATEs: ' . join(', ', map { "$_ $states{$_}" } sort keys %states));
is_deeply(\@wrong, [], 'each transfer ended as it was said to');
cmp_ok($verdicts{done} // 0, '>', 10 * $seconds, 'most went through');
my @strange = grep { !/^(?:08001|08006|08007|40001|40P01|55P03|57014|57P01|57P03|25006)$/ } keys %states;
is_deeply(\@strange, [], 'no failure of another kind');

# Whose outcome was unknown, it is known by now.
my @asked = grep { $_->{token} ne '' } @transfers;
my @disagree = grep {
	my $said = $cluster->sql('us', "SELECT homing.outcome('$_->{token}')");
	$said ne (($entries{ $_->{id} } // 0) > 0 ? 'committed' : 'aborted')
} @asked;
is_deeply(\@disagree, [], 'outcome() agrees with the data, for ' . @asked . ' transfers');

my $by_entries = q{SELECT a.id FROM accounts a LEFT JOIN (SELECT account, sum(amount) AS total FROM entries WHERE transfer = ANY ('{%s}') GROUP BY 1) e
	ON e.account = a.id WHERE a.balance <> 1000 + coalesce(e.total, 0)};
my $moves = join ',', grep { $form{$_} ne 'alone' } keys %form;
is($cluster->sql($_, sprintf($by_entries, $moves)), '', "balances and entries agree at $_") for @regions;

$cluster->stop;
done_testing();
