# Money moves in all regions while one is lost and a survivor has to copy what nobody has kept for it: every transfer is
# there or not, whole, at both survivors, and what was reported as done by a survivor is there.
#
# BANK_SEED sets what the clients do (by the clock).
use strict;
use warnings;

use BankLoad;
use HomingCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{BANK_SEED} // time % 1_000_000;
note("BANK_SEED=$seed");

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2, settings => "homing.connect_timeout = 1s\nhoming.outcome_timeout = 1s\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
	CREATE TABLE entries (account int, transfer bigint, amount bigint NOT NULL, PRIMARY KEY (account, transfer))});
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, 60) id');
$cluster->converge;
my %accounts;
push @{ $accounts{ $_->[1] } }, $_->[0]
  for map { [ split /\|/ ] } split /\n/, $cluster->sql('us', q{SELECT id, homing.home_of('accounts', id) FROM accounts});
for my $region ($cluster->names)
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM homing.tail_slot WHERE current AND taken IS NULL});
	$cluster->node($region)->append_conf('postgresql.conf', "lock_timeout = 1s\nstatement_timeout = 5s\n");
	$cluster->node($region)->reload;
	$cluster->poll($region, "SELECT current_setting('statement_timeout') = '5s'");
}

# Between accounts of the survivors, by clients of all regions, and between those of ap alone: ap's part of a transfer over
# regions may be lost although it was decided.
my %common = (seed => $seed, conninfos => [ map { $cluster->conninfo($_) } $cluster->names ]);
my $theirs = BankLoad->start(%common, clients => 6, accounts => { us => $accounts{us}, eu => $accounts{eu} }, dir => PostgreSQL::Test::Utils::tempdir);
my $of_ap = BankLoad->start(%common, clients => 3, accounts => { ap => $accounts{ap} }, dir => PostgreSQL::Test::Utils::tempdir);

my $among_ap = 'account IN (' . join(',', @{ $accounts{ap} }) . ')';
# Until so many more transfers between accounts of ap, or others, are at us.
sub until_more
{
	my ($count, $which, $at) = @_;
	my $before = $cluster->sql($at, "SELECT count(*) FROM entries WHERE $which");
	$cluster->poll($at, "SELECT count(*) > $before + 2 * $count FROM entries WHERE $which");
	return;
}
until_more(100, 'true', 'us');
$cluster->wan->command('drop', 'eu-ap');
until_more(50, $among_ap, 'us');
# us writes a home that ap has given it: eu, which lacks that, applies nothing more of us either.
my $given = $cluster->sql('us', q{SELECT min(home) FROM homing.homes WHERE owner = 'ap'});
is($cluster->sql('us', "SELECT homing.hand_over('accounts', 'ap', 'us', ARRAY[$given])"), '1', 'ap has given a home away');
until_more(50, $among_ap, 'us');
$cluster->sql('us', 'SELECT homing._drop_tail_slots()');
until_more(50, $among_ap, 'us');
$cluster->kill('ap');
like($cluster->sql('us', q{SET statement_timeout = 0; SELECT homing.declare_lost('ap', force => true)}), qr/"behind": \["eu"\]/, 'ap is lost, eu is behind');
until_more(20, $among_ap, 'us');
pass('us goes on with the accounts of ap');
$cluster->poll('eu', q{SELECT missing = '{}' AND copied IS NULL FROM homing.local_region});
until_more(100, 'true', $_) for qw(eu us);
$_->stop for $theirs, $of_ap;

my @regions = qw(us eu);
$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for @regions;
pass('nothing is left prepared');
$cluster->same_everywhere($_) for qw(accounts entries homing.ownership);
is($cluster->sql($_, 'SELECT sum(balance) FROM accounts'), 60_000, "$_: the total is what it was") for @regions;
is($cluster->sql('us', 'SELECT count(*) FROM (SELECT FROM entries GROUP BY transfer, ' . "$among_ap HAVING sum(amount) <> 0) x"), 0, 'every entry has its counterpart');
for my $load ([ $theirs, "NOT $among_ap", 'theirs' ], [ $of_ap, $among_ap, 'of ap' ])
{
	my ($clients, $which, $name) = @$load;
	my %entries = map { split /\|/ } split /\n/, $cluster->sql('eu', "SELECT transfer, count(*) FROM entries WHERE $which GROUP BY transfer");
	my (@wrong, %verdicts, %states);
	for my $transfer ($clients->transfers)
	{
		my $found = $entries{ $transfer->{id} } // 0;
		# By turns, clients are of us, eu and ap. What ap alone had committed is not with the survivors.
		my $survives = $name eq 'theirs' && $transfer->{id} % $clients->{clients} % 3 != 2;
		my $right = $transfer->{verdict} eq 'failed' ? $found == 0 : $transfer->{verdict} eq 'done' && $survives ? $found == 2 : $found == 0 || $found == 2;
		push @wrong, { %$transfer, entries => $found } unless $right;
		$verdicts{ $transfer->{verdict} }++;
		$states{ $transfer->{sqlstate} }++ if $transfer->{sqlstate} ne '';
	}
	is_deeply(\@wrong, [], "$name: each transfer ended as it was said to") or diag(explain(\@wrong));
	note("$name: " . join(', ', map { "$verdicts{$_} $_" } sort keys %verdicts) . '; SQLSTATEs: ' . join(', ', map { "$_ $states{$_}" } sort keys %states));
	my @strange = grep { !/^(?:08001|08006|08007|40001|40P01|55P03|57014|57P01|57P03|25006)$/ } keys %states;
	is_deeply(\@strange, [], "$name: no failure of another kind");
}
is($cluster->sql('eu', "SET statement_timeout = 0; SELECT count(*) FROM homing.verify('$_')"), '0', "verify finds nothing in $_") for qw(accounts entries);

$cluster->stop;
done_testing();
