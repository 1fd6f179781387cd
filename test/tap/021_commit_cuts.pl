# The link falls silent or breaks at each step of a commit over regions, on either side (PROTOCOL §3 rows 47 and 51 by
# cut links, 49, and 52 for a participant): all or nothing, nothing stays prepared, and the client's answer agrees
# with the data, or was 08007 and its token tells the truth.
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2, settings => <<'END');
restart_after_crash = on
homing.connect_timeout = 500ms
homing.outcome_timeout = 700ms
END
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('accounts', id) = '$_'})
} $cluster->names;
$cluster->sql('us', "INSERT INTO accounts VALUES ($key{us}, 1000), ($key{eu}, 1000), ($key{ap}, 1000)");
$cluster->converge;

my @transfer = ("UPDATE accounts SET balance = balance - 3 WHERE id = $key{us}",
	"UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu}",
	"UPDATE accounts SET balance = balance + 2 WHERE id = $key{ap}");
my $done = 0;

# Errors go to a file, with their hints.
my $errors = PostgreSQL::Test::Utils::tempdir . '/errors';

sub begin_transfer
{
	my ($point) = @_;
	my $session = PsqlSession->new($cluster->conninfo('us'), errors => $errors);
	$session->run("SET homing.debug_point = 'stop:$point'") if defined $point;
	$session->run($_) for 'BEGIN', @transfer;
	return $session;
}

sub log_end { my ($region) = @_; return -s $cluster->node($region)->logfile; }

# Which process stops at the point, according to what the log of the region says from $log on.
sub stopped
{
	my ($region, $point, $log) = @_;
	my $stopped = qr/process (\d+) stops at debug point \Q$point\E/;
	$cluster->node($region)->wait_for_log($stopped, $log);
	my ($pid) = slurp_file($cluster->node($region)->logfile, $log) =~ $stopped;
	return $pid;
}

sub links
{
	my ($command) = @_;
	$cluster->wan->command($command, $_) for qw(us-eu eu-us);
	return;
}

# Into silence one may wait long: the client does not.
sub cancel_when_waiting
{
	my ($pid) = @_;
	$cluster->poll('us', "SELECT wait_event_type = 'Extension' OR state LIKE 'idle%' FROM pg_stat_activity WHERE pid = $pid");
	$cluster->sql('us', "SELECT pg_cancel_backend($pid)");
	return;
}

sub check_answer
{
	my ($what, $result, $committed) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $outcome = $committed ? 'committed' : 'aborted';
	if ($result->{sqlstate} eq '08007')
	{
		my ($token) = slurp_file($errors) =~ /.*homing\.outcome\('([0-9a-f-]{36})'\)/s;
		is($cluster->sql('us', "SELECT homing.outcome('$token')"), $outcome, "$what: 08007, and its token knows: $outcome");
		return;
	}
	is($result->{sqlstate} eq '' ? 'committed' : 'aborted', $outcome, "$what: the answer \"$result->{sqlstate}\" agrees");
	return;
}

sub check_transfer
{
	my ($what, $result, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for $cluster->living;
	$cluster->same_everywhere('accounts', "$what: the same everywhere");
	my @balances = split /\n/, $cluster->sql('us', "SELECT a.balance FROM unnest('{$key{us},$key{eu},$key{ap}}'::int[]) WITH ORDINALITY AS k(id, place) JOIN accounts a USING (id) ORDER BY k.place");
	my $committed = 1000 - $balances[0] == 3 * ($done + 1);
	$done++ if $committed;
	is("@balances", join(' ', 1000 - 3 * $done, 1000 + $done, 1000 + 2 * $done), "$what: all or nothing");
	check_answer($what, $result, $committed);
	is($committed ? 'committed' : 'aborted', $expected, "$what: $expected") if defined $expected;
	return;
}

# --- the coordinator is at a step, and loses eu -------------------------------------------------------------

my @steps = (
	[ 'atomic-before-prepare', 'aborted', 1 ],
	# Behind each of two; eu may be the first, and have answered.
	[ 'atomic-between-prepares', undef, 2 ],
	[ 'atomic-before-decision', 'committed', 1 ],
	[ 'atomic-after-decision', 'committed', 1 ],
	[ 'atomic-finish-sent', 'committed', 1 ]);
for my $how (qw(drop reset))
{
	for my $step (@steps)
	{
		my ($point, $expected, $times) = @$step;
		my $session = begin_transfer($point);
		my $log = log_end('us');
		$session->send('COMMIT');
		my $pid = stopped('us', $point, $log);
		links($how);
		for (2 .. $times)
		{
			$log = log_end('us');
			kill 'CONT', $pid;
			stopped('us', $point, $log);
		}
		kill 'CONT', $pid;
		cancel_when_waiting($pid) if $how eq 'drop' && ($expected // '') ne 'committed';
		my $result = $session->receive;
		links('heal');
		$session->close;
		check_transfer("$how at $point", $result, $expected);
	}
}

# --- a participant is at a step, and loses the coordinator -------------------------------------------------

for my $how (qw(drop reset))
{
	for my $point (qw(finish-decision-arrived second-phase-before-end second-phase-after-end))
	{
		my $eu = $cluster->node('eu');
		$eu->append_conf('postgresql.conf', "homing.debug_point = 'stop:$point'\n");
		$eu->reload;
		$cluster->poll('eu', "SELECT current_setting('homing.debug_point') = 'stop:$point'");
		my $log = log_end('eu');
		# The worker of eu ends a part whose coordinator does not say that it may.
		my $session = begin_transfer($point =~ /^second-phase/ ? 'atomic-after-decision' : undef);
		my $us_log = log_end('us');
		$session->send('COMMIT');
		my $coordinator = $point =~ /^second-phase/ ? stopped('us', 'atomic-after-decision', $us_log) : undef;
		my $pid = stopped('eu', $point, $log);
		links($how);
		$eu->append_conf('postgresql.conf', "homing.debug_point = ''\n");
		$eu->reload;
		kill 'CONT', $pid;
		kill 'CONT', $coordinator if defined $coordinator;
		my $result = $session->receive;
		links('heal');
		$session->close;
		check_transfer("$how at $point of the participant", $result, 'committed');
	}
}

# --- one statement by itself ----------------------------------------------------------------------------------

my $balance = "SELECT balance FROM accounts WHERE id = $key{eu}";
sub begin_statement
{
	my $session = PsqlSession->new($cluster->conninfo('us'), errors => $errors);
	$session->run(q{SET homing.debug_point = 'stop:forward-sent'});
	my $log = log_end('us');
	$session->send("UPDATE accounts SET balance = balance + 100 WHERE id = $key{eu}");
	return ($session, stopped('us', 'forward-sent', $log));
}
for my $how (qw(drop reset))
{
	my $before = $cluster->sql('eu', $balance);
	# The statement has to wait at eu until the link is cut.
	my $blocker = PsqlSession->new($cluster->conninfo('eu'));
	$blocker->run($_) for 'BEGIN', "$balance FOR UPDATE";
	my ($session, $pid) = begin_statement();
	$cluster->poll('eu', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'pg_homing%'});
	links($how);
	kill 'CONT', $pid;
	$blocker->run('COMMIT');
	$blocker->close;
	cancel_when_waiting($pid) if $how eq 'drop';
	my $result = $session->receive;
	links('heal');
	$session->close;
	is($result->{sqlstate}, '08007', "$how behind a statement: the answer is lost") or diag($result->{message});
	my ($token) = slurp_file($errors) =~ /.*homing\.outcome\('([0-9a-f-]{36})'\)/s;
	my $outcome = $cluster->sql('us', "SELECT homing.outcome('$token')");
	$cluster->same_everywhere('accounts');
	is($cluster->sql('eu', $balance), $before + ($outcome eq 'committed' ? 100 : 0), "$how behind a statement: its token knows: $outcome");
}

# Row 49: the forwarder dies after the statement has committed at its home, before its client has heard. Nobody
# repeats it, and who finds the token finds the answer.
my $before = $cluster->sql('eu', $balance);
my @known = split /\n/, $cluster->sql('eu', 'SELECT id FROM homing.outcome');
my ($session, $pid) = begin_statement();
$cluster->poll('eu', "SELECT ($balance) = $before + 100");
kill 'KILL', $pid;
kill 'CONT', $pid;
eval { $session->receive };
like($@, qr/ended during/, 'the forwarder is dead, its client has no answer');
$cluster->node('us')->poll_query_until('postgres', 'SELECT true') or die 'us does not come back';
$cluster->same_everywhere('accounts', 'what the dead forwarder had sent');
is($cluster->sql('eu', $balance), $before + 100, 'has happened once');
my %known = map { $_ => 1 } @known;
my @new = grep { !$known{$_} } split /\n/, $cluster->sql('eu', 'SELECT id FROM homing.outcome');
is(scalar(@new), 1, 'and left one outcome');
is($cluster->sql($_, "SELECT homing.outcome('$new[0]')"), 'committed', "which is known at $_") for $cluster->names;

# --- row 52: a participant is lost with its prepared parts --------------------------------------------------------

$cluster->sql('us', "UPDATE accounts SET balance = 1000");
$done = 0;
my %other = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('accounts', id) = '$_' AND id <> $key{$_}})
} qw(us eu);
$cluster->sql('us', "INSERT INTO accounts VALUES ($other{us}, 1000), ($other{eu}, 1000)");
$cluster->converge;
# Of this one nobody knows yet that it is committed.
my $undecided = begin_transfer('atomic-before-decision');
my $log = log_end('us');
$undecided->send('COMMIT');
my $before_decision = stopped('us', 'atomic-before-decision', $log);
# Of this one, us and ap do, but not eu.
$cluster->wan->command('drop', 'eu-us');
my $decided = PsqlSession->new($cluster->conninfo('us'));
$decided->run($_) for q{SET homing.debug_point = 'stop:atomic-after-decision'}, 'BEGIN',
  "UPDATE accounts SET balance = balance - 7 WHERE id = $other{us}", "UPDATE accounts SET balance = balance + 7 WHERE id = $other{eu}";
$log = log_end('us');
$decided->send('COMMIT');
my $after_decision = stopped('us', 'atomic-after-decision', $log);
is($cluster->sql('eu', 'SELECT count(*) FROM pg_prepared_xacts'), 2, 'eu has prepared its parts');
$cluster->kill('eu');
$cluster->wan->command('heal', 'eu-us');
my (undef, $loss, $warning) = $cluster->try_sql('ap', q{SELECT homing.declare_lost('eu', force => true)});
like($warning, qr/WARNING:  01000: parts of 1 committed transactions were lost with region "eu"/, 'declare_lost tells of the part that was lost with eu');
like($loss, qr/"lost_parts": 1\b/, 'also in its result');
kill 'CONT', $before_decision, $after_decision;
is($undecided->receive->{sqlstate}, '40001', 'what a lost region had prepared is not committed');
is($decided->receive->{sqlstate}, '', 'unless that was decided before');
$_->close for $undecided, $decided;
check_transfer('a participant is lost before the decision', { sqlstate => '40001' }, 'aborted');
for my $region (qw(us ap))
{
	$cluster->poll($region, q{SELECT region || ' ' || coordinator || ' ' || homing.outcome(transaction) FROM homing.lost_parts}, 'eu us committed');
	is($cluster->sql($region, "SELECT balance FROM accounts WHERE id IN ($other{us}, $other{eu}) ORDER BY id = $other{eu}"), "993\n1000",
		"$region has the rest of that transaction, and knows what it lacks");
}
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu}");
pass('the heir serves the row that was prepared');
$cluster->sql('us', "UPDATE accounts SET balance = balance - 1 WHERE id = $key{eu}");

# It returns with the parts that it had prepared, and asks.
$cluster->start('eu');
$cluster->poll('eu', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->poll('eu', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
$cluster->sql('eu', 'SELECT homing.rejoin()');
check_transfer('the participant has come back', { sqlstate => '40001' }, 'aborted');
is($cluster->sql('us', q{SELECT "table", operation, key->>'id', new->>'balance', verdict FROM homing.orphaned_writes}),
	"public.accounts|update|$other{eu}|1007|applies cleanly", 'the part that was decided is now an orphaned write');
$cluster->sql('us', 'SELECT homing.reapply(ARRAY(SELECT id FROM homing.orphaned_writes))');
$cluster->same_everywhere('accounts');
is($cluster->sql('us', "SELECT sum(balance) FROM accounts WHERE id IN ($other{us}, $other{eu})"), 2000, 'and when it is reapplied, nothing is missing');

$cluster->stop;
done_testing();
