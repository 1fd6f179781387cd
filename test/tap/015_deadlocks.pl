# Transactions that wait for each other at several regions: one of them, the youngest, fails with 40P01, soon; the
# others go on.
use strict;
use warnings;

use HomingCluster;
use Test::More;
use Time::HiRes qw(time);

my $timeout = 1.0;
my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 20, settings => "deadlock_timeout = 1s\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('counters', 'id')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('counters', id) = '$_'})
} $cluster->names;
$cluster->sql('us', "INSERT INTO counters VALUES ($key{us}, 0), ($key{eu}, 0), ($key{ap}, 0)");
$cluster->converge;
my $expected = 0;

sub session
{
	my ($region) = @_;
	my $session = $cluster->node($region)->background_psql('app', on_error_stop => 0);
	$session->query_safe('\set VERBOSITY verbose');
	return $session;
}

sub add { my ($where) = @_; return "UPDATE counters SET n = n + 1 WHERE id = $key{$where}"; }

# Sends a statement that will have to wait, and waits until it does.
sub send_waiting
{
	my ($session, $statement, $where) = @_;
	my $waiting = q{SELECT count(*) FROM pg_locks WHERE NOT granted};
	my $before = $cluster->sql($where, $waiting);
	$session->query_until(qr/begun/, "\\echo begun\n$statement;\n");
	$cluster->poll($where, "SELECT ($waiting) > $before");
	return;
}

sub errors_of
{
	my ($session) = @_;
	$session->query_until(qr/over/, "\\echo over\n");
	my $errors = $session->{stderr};
	$session->{stderr} = '';
	return $errors;
}

# Each session has written where the one before it will want to write: @$circle holds the region that it is
# in, where it writes first, and where it writes then. The last one closes the circle.
sub check_circle
{
	my ($what, @circle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @sessions = map { session($_->[0]) } @circle;
	for my $i (0 .. $#circle)
	{
		$sessions[$i]->query_safe('BEGIN');
		$sessions[$i]->query_safe(add($circle[$i][1]));
	}
	send_waiting($sessions[$_], add($circle[$_][2]), $circle[$_][2]) for 0 .. $#circle - 1;
	my $begin = time;
	$sessions[-1]->query_until(qr/begun/, "\\echo begun\n" . add($circle[-1][2]) . ";\n");
	my $youngest = errors_of($sessions[-1]);
	my $took = time - $begin;
	like($youngest, qr/ERROR:  40P01: deadlock detected/, "$what: the youngest transaction fails");
	like($youngest, qr/at other regions, wait for it/, "$what: and says why");
	cmp_ok($took, '<', 2 * $timeout + 0.5, sprintf("%s: after %.2f s", $what, $took));
	$sessions[-1]->query_safe('ROLLBACK');
	for my $session (reverse @sessions[ 0 .. $#sessions - 1 ])
	{
		is(errors_of($session), '', "$what: another one goes on");
		$session->query_safe('COMMIT');
	}
	$_->quit for @sessions;
	$expected += 2 * $#circle;
	is($cluster->sql('us', 'SELECT count(*) FROM homing.in_doubt'), 0, "$what: nothing is left in doubt");
	$cluster->converge;
	is($cluster->sql('us', 'SELECT sum(n) FROM counters'), $expected, "$what: and what they wrote is there");
	return;
}

check_circle('each waits in its own region', [ 'us', 'eu', 'us' ], [ 'eu', 'us', 'eu' ]);
check_circle('each waits at another region', [ 'us', 'eu', 'ap' ], [ 'us', 'ap', 'eu' ]);
check_circle('three regions', [ 'us', 'us', 'eu' ], [ 'eu', 'eu', 'ap' ], [ 'ap', 'ap', 'us' ]);
my $logged = 0;
$logged += () = PostgreSQL::Test::Utils::slurp_file($cluster->node($_)->logfile) =~ /deadlock over several regions detected/g for $cluster->names;
cmp_ok($logged, '>=', 3, 'each is logged with those who took part');

# An exception block catches it, and the transaction goes on.
my ($first, $second) = (session('us'), session('eu'));
$first->query_safe($_) for 'BEGIN', add('eu');
$second->query_safe($_) for 'BEGIN', add('us');
send_waiting($first, add('us'), 'us');
my $said = $second->query_until(qr/over/, "DO \$\$BEGIN " . add('eu') . "; EXCEPTION WHEN deadlock_detected THEN RAISE WARNING 'caught'; END\$\$;\n\\echo over\n");
like(errors_of($second), qr/WARNING:  \w+: caught/, 'PL/pgSQL catches it as deadlock_detected');
$second->query_safe('ROLLBACK');
is(errors_of($first), '', 'the other one goes on');
$first->query_safe('ROLLBACK');

# Whoever only waits is left alone, and a cancel is a cancel.
$first->query_safe($_) for 'BEGIN', add('eu');
send_waiting($second, add('eu'), 'eu');
my $since = $cluster->sql('eu', 'SELECT clock_timestamp()');
$cluster->poll('eu', "SELECT clock_timestamp() > '$since'::timestamptz + interval '3 s' AND EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
pass('a wait that is no circle lasts');
$cluster->sql('eu', q{SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted});
like(errors_of($second), qr/ERROR:  57014: canceling statement due to user request/, 'a cancel is reported as such');
$first->query_safe('ROLLBACK');
$_->quit for $first, $second;

$cluster->stop;
done_testing();
