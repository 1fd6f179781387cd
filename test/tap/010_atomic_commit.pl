# A transaction that writes at several regions commits everywhere or nowhere, whatever dies at which step
# (PROTOCOL §3 rows 51 and 53, §4 row 29; with links cut in 021_commit_cuts).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], settings => "restart_after_crash = on\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance < 5000))');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('accounts', id) = '$_'})
} $cluster->names;
$cluster->sql('us', "INSERT INTO accounts VALUES ($key{us}, 1000), ($key{eu}, 1000), ($key{ap}, 1000)");

my $rows = 'SELECT id, balance FROM accounts ORDER BY id';
my $transfer = "BEGIN; UPDATE accounts SET balance = balance - 3 WHERE id = $key{us};"
  . "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};"
  . "UPDATE accounts SET balance = balance + 2 WHERE id = $key{ap}; COMMIT;";
my $done = 0;

# Every region has the transfer or none has it, and nothing is left prepared.
sub check_atomic
{
	my ($what, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for $cluster->living;
	$cluster->same_everywhere('accounts', "$what: the same everywhere");
	my ($region) = $cluster->living;
	is($cluster->sql($region, "SELECT sum(balance) FROM accounts"), 3000, "$what: nothing came or went");
	my $moved = 1000 - $cluster->sql($region, "SELECT balance FROM accounts WHERE id = $key{us}");
	ok($moved == 3 * $done || $moved == 3 * ($done + 1), "$what: all or nothing");
	my $committed = $moved == 3 * ($done + 1);
	is($committed ? 'committed' : 'aborted', $expected, "$what: $expected") if defined $expected;
	$done += $committed ? 1 : 0;
	return $committed;
}

sub await_region
{
	my ($region) = @_;
	$cluster->node($region)->poll_query_until('postgres', 'SELECT true') or die "$region does not come back";
	return;
}

$cluster->sql('us', $transfer);
check_atomic('without a fault', 'committed');

# One writer here and one elsewhere; two elsewhere and none here; a keyless statement.
for my $pair ([qw(us eu)], [qw(eu ap)])
{
	my ($from, $to) = @$pair;
	$cluster->sql('us', "BEGIN; UPDATE accounts SET balance = balance - 5 WHERE id = $key{$from};"
		. "UPDATE accounts SET balance = balance + 5 WHERE id = $key{$to}; COMMIT;");
	$cluster->sql('us', "BEGIN; UPDATE accounts SET balance = balance + 5 WHERE id = $key{$from};"
		. "UPDATE accounts SET balance = balance - 5 WHERE id = $key{$to}; COMMIT;");
	$cluster->same_everywhere('accounts', "between $from and $to");
}
$cluster->sql('us', 'UPDATE accounts SET balance = balance + 1');
$cluster->sql('us', 'UPDATE accounts SET balance = balance - 1');
check_atomic('keyless', 'aborted');    # the balances are what they were

# A failure at one region undoes the others, also in a subtransaction.
$cluster->fails_with('us', "BEGIN; UPDATE accounts SET balance = balance - 3 WHERE id = $key{us};"
	. "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};"
	. "UPDATE accounts SET balance = 9999 WHERE id = $key{ap}; COMMIT;", '23514', 'a constraint at one region');
check_atomic('after an error', 'aborted');
$cluster->sql('us', "BEGIN; UPDATE accounts SET balance = balance - 3 WHERE id = $key{us};"
	. "SAVEPOINT a; UPDATE accounts SET balance = 0 WHERE id = $key{eu}; ROLLBACK TO a;"
	. "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};"
	. "SAVEPOINT b; UPDATE accounts SET balance = balance + 2 WHERE id = $key{ap}; RELEASE b; COMMIT;");
check_atomic('with savepoints', 'committed');

# The coordinator's backend dies, and its server restarts.
my %expected = (
	'atomic-before-prepare' => 'aborted',
	'atomic-between-prepares' => 'aborted',
	'atomic-before-decision' => 'aborted',
	'atomic-after-decision' => 'committed',
	'atomic-finish-sent' => 'committed');
for my $point (sort keys %expected)
{
	my ($state) = $cluster->try_sql('us', "SET homing.debug_point = '$point'; $transfer");
	isnt($state, '', "the coordinator dies at $point");
	await_region('us');
	check_atomic("coordinator dies at $point", $expected{$point});
}

# A participant dies when the decision has arrived, and in its worker before and after it ends its part.
sub with_point
{
	my ($region, $point, $body) = @_;
	my $node = $cluster->node($region);
	$node->append_conf('postgresql.conf', "homing.debug_point = '$point'\n");
	$node->reload;
	$cluster->poll($region, "SELECT current_setting('homing.debug_point') = '$point'");
	$body->();
	# A worker would die again and again.
	$node->append_conf('postgresql.conf', "homing.debug_point = ''\n");
	$node->reload;
	await_region($region);
	return;
}
for my $region (qw(eu ap))
{
	with_point($region, 'finish-decision-arrived', sub {
		my $log = -s $cluster->node($region)->logfile;
		$cluster->sql('us', $transfer);
		$cluster->node($region)->wait_for_log(qr/was terminated by signal 9/, $log);
	});
	check_atomic("participant $region dies when the decision has arrived", 'committed');
}
for my $point (qw(second-phase-before-end second-phase-after-end))
{
	with_point('eu', $point, sub {
		my $log = -s $cluster->node('eu')->logfile;
		$cluster->try_sql('us', "SET homing.debug_point = 'atomic-after-decision'; $transfer");
		$cluster->node('eu')->wait_for_log(qr/was terminated by signal 9/, $log);
	});
	await_region('us');
	check_atomic("the worker of a participant dies at $point", 'committed');
}

# Whole servers die.
for my $region (qw(us eu))
{
	my ($state) = $cluster->try_sql('us', "SET homing.debug_point = 'atomic-before-decision'; $transfer");
	isnt($state, '', 'parts are left prepared');
	$cluster->kill($region);
	$cluster->start($region);
	await_region('us');
	check_atomic("server of $region dies with prepared parts about", 'aborted');
}

# The second phase can be waited for.
$cluster->sql('us', "SET homing.wait_second_phase = on; $transfer");
is($cluster->sql($_, 'SELECT count(*) FROM pg_prepared_xacts'), 0, "nothing is prepared at $_ when COMMIT returns")
  for qw(eu ap);
check_atomic('waiting for the second phase', 'committed');

# A part that is in doubt stays until somebody decides, and nobody else's hands are on it.
$cluster->node('eu')->append_conf('postgresql.conf', "homing.connect_timeout = 500ms\n");
$cluster->node('eu')->reload;
$cluster->try_sql('us', "SET homing.debug_point = 'atomic-before-decision'; $transfer");
$cluster->kill('us');
my $gid = $cluster->sql('eu', 'SELECT gid FROM homing.in_doubt');
like($gid, qr/^homing:[0-9a-f]{8}:1:\d+:\d+:\d+:\d+:[0-9a-f-]{36}:2\.\d$/, 'the part is in doubt');
is($cluster->sql('eu', 'SELECT coordinator, state FROM homing.in_doubt'), 'us|waiting for its coordinator', 'and says why');
$cluster->fails_with('eu', "COMMIT PREPARED '$gid'", '55000', 'it cannot be committed by hand', qr/over several regions/);
$cluster->fails_with('eu', "ROLLBACK PREPARED '$gid'", '55000', 'nor rolled back by hand', qr/over several regions/);
$cluster->fails_with('eu', q{SELECT homing.resolve('homing:nothing', 'abort')}, '42704', 'resolve knows its parts');
$cluster->fails_with('eu', "SELECT homing.resolve('$gid', 'maybe')", '22023', 'and its decisions');
$cluster->sql('eu', "SELECT homing.resolve('$gid', 'abort')");
$cluster->poll('eu', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
is($cluster->sql('eu', 'SELECT count(*) FROM homing.resolution'), 0, 'the resolution is carried out');
is($cluster->sql('eu', q{SELECT kind FROM homing.events ORDER BY at DESC LIMIT 1}), 'resolve', 'and recorded');
$cluster->start('us');
check_atomic('after a resolution', 'aborted');

# Somebody else's prepared transaction is left alone.
$cluster->sql('eu', "BEGIN; CREATE TABLE mine (a int); PREPARE TRANSACTION 'homing:notours'");
$cluster->sql('eu', "ROLLBACK PREPARED 'homing:notours'");
pass('a foreign name is not guarded');

# max_prepared_transactions is missed with the second writer, not at the end.
$cluster->node('ap')->append_conf('postgresql.conf', "max_prepared_transactions = 0\n");
$cluster->node('ap')->restart;
my ($state, $out, $err) = $cluster->try_sql('us', "BEGIN; UPDATE accounts SET balance = balance WHERE id = $key{ap};"
	. "SELECT 'first';UPDATE accounts SET balance = balance WHERE id = $key{us}; SELECT 'second'; COMMIT;");
is("$state $out", '55000 first', 'the second writer is refused') or diag($err);
like($err, qr/max_prepared_transactions is 0 there/, 'and says what is missing');
$cluster->sql('us', "UPDATE accounts SET balance = balance WHERE id = $key{ap}");
pass('one writer needs none');
$cluster->node('ap')->append_conf('postgresql.conf', "max_prepared_transactions = 50\n");
$cluster->node('ap')->restart;

# The coordinator is lost. What survives of its stream decides, the same at every survivor.
$cluster->try_sql('us', "SET homing.debug_point = 'atomic-before-decision'; $transfer");
$cluster->kill('us');
is($cluster->sql($_, 'SELECT count(*) FROM homing.in_doubt'), 1, "a part is in doubt at $_") for qw(eu ap);
$cluster->sql('eu', q{SELECT homing.declare_lost('us', force => true)});
check_atomic('the coordinator is lost before it decided', 'aborted');

$cluster->stop;
done_testing();
