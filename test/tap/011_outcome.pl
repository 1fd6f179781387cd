# The connection to the home is lost while a forwarded transaction commits: the sender learns how it ended, or
# says that it does not know and how to ask. Never is a statement run twice (PROTOCOL §3 rows 47 and 50).
use strict;
use warnings;

use HomingCluster;
use Test::More;
use Time::HiRes qw(time);

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 4, settings => "restart_after_crash = on\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('counters', 'id')});
my $key = $cluster->sql('us', q{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('counters', id) = 'eu'});
$cluster->sql('us', "INSERT INTO counters VALUES ($key, 0)");
my $value = "SELECT n FROM counters WHERE id = $key";
my $expected = 0;

sub await_eu
{
	$cluster->node('eu')->poll_query_until('postgres', 'SELECT true') or die 'eu does not come back';
	return;
}

# The forwarded statement as it runs at eu.
my $running = q{FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()
	AND backend_type = 'client backend' AND query LIKE '%UPDATE%pg_sleep%'};

# Starts a slow forwarded statement at us and waits until eu runs it.
sub begin_slow
{
	my ($session, $seconds) = @_;
	$session->query_until(qr/begun/, "\\echo begun\nUPDATE counters SET n = n + 1 WHERE id = $key AND pg_sleep($seconds) IS NOT NULL;\n");
	$cluster->poll('eu', "SELECT count(*) > 0 $running");
	return;
}

sub session
{
	my (@settings) = @_;
	my $session = $cluster->node('us')->background_psql('app', on_error_stop => 0);
	$session->query_safe($_) for '\set VERBOSITY verbose', @settings;
	return $session;
}

sub errors_of
{
	my ($session) = @_;
	$session->query_until(qr/over/, "\\echo over\n");
	my $errors = $session->{stderr};
	$session->{stderr} = '';
	return $errors;
}

sub check_value
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($cluster->sql('eu', $value), $expected, $what);
	return;
}

# Cancel reaches the home, and the transaction goes on from its savepoint.
my $session = session();
$session->query_safe('BEGIN');
$session->query_safe("UPDATE counters SET n = n + 1 WHERE id = $key");
my $pid = $session->query_safe('SELECT pg_backend_pid()');
is($cluster->sql('eu', "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_homing us $pid' AND state = 'idle in transaction'"),
	'1', 'the session at the home is named after its region and process');
$session->query_safe('SAVEPOINT a');
begin_slow($session, 60);
my $begin = time;
$cluster->sql('us', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE query LIKE 'UPDATE%pg_sleep%' AND pid <> pg_backend_pid()});
like(errors_of($session), qr/ERROR:  57014: canceling statement due to user request/, 'a cancel is reported as such');
cmp_ok(time - $begin, '<', 10, 'at once');
$cluster->poll('eu', "SELECT count(*) = 0 $running");
$session->query_safe('ROLLBACK TO a');
$session->query_safe('COMMIT');
$expected++;
check_value('what came before the savepoint is committed');

# The same for a statement by itself; a timeout is reported as one.
$session->query_safe(q{SET statement_timeout = '500ms'});
begin_slow($session, 60);
like(errors_of($session), qr/ERROR:  57014: canceling statement due to statement timeout/, 'a timeout is reported as such');
$session->query_safe('RESET statement_timeout');
check_value('nothing is committed');
$session->query_safe("UPDATE counters SET n = n + 1 WHERE id = $key");
$expected++;
check_value('the session goes on');

# Its backend at the home ends, in two ways.
for my $way ('terminated', 'killed')
{
	begin_slow($session, 60);
	if ($way eq 'killed')
	{
		my $pid = $cluster->sql('eu', "SELECT pid $running");
		kill 'KILL', $pid;
	}
	else
	{
		$cluster->sql('eu', "SELECT pg_terminate_backend(pid) $running");
	}
	like(errors_of($session), qr/ERROR:  40001: the transaction at region "eu" was not committed/,
		"backend $way: the statement has failed for good");
	await_eu();
	check_value("backend $way: nothing is committed");
	$session->query_safe("UPDATE counters SET n = n + 1 WHERE id = $key");
	$expected++;
}
check_value('the session goes on');

# It ends between the commit and the answer.
my $eu = $cluster->node('eu');
$eu->append_conf('postgresql.conf', "homing.debug_point = 'served-committed'\n");
$eu->reload;
$cluster->poll('eu', q{SELECT current_setting('homing.debug_point') = 'served-committed'});
for my $write ("UPDATE counters SET n = n + 1 WHERE id = $key;", "BEGIN; UPDATE counters SET n = n + 1 WHERE id = $key; COMMIT;")
{
	my $log = -s $eu->logfile;
	$session->query($write);
	is(errors_of($session), '', "a commit that the home died after is a success: $write");
	ok($eu->log_contains(qr/was terminated by signal 9/, $log), 'and the home had died');
	await_eu();
	$expected++;
	check_value('once');
}
$eu->append_conf('postgresql.conf', "homing.debug_point = ''\n");
$eu->reload;
$cluster->poll('eu', q{SELECT current_setting('homing.debug_point') = ''});

$session->quit;

# The link falls silent while the statement runs, and it comes back in time.
$session = session(q{SET homing.outcome_timeout = '20s'}, q{SET statement_timeout = '3s'});
begin_slow($session, 2);
$cluster->wan->command('drop', 'us-eu', 'back');
# It has committed before the answer is given up.
$cluster->poll('eu', "SELECT n = $expected + 1 FROM counters WHERE id = $key");
$cluster->wan->command('heal', 'us-eu');
$cluster->wan->command('reset', 'us-eu');
$cluster->wan->command('heal', 'us-eu');
is(errors_of($session), '', 'a commit whose answer is lost is a success');
$expected++;
check_value('and committed once');
$session->quit;

# The link stays cut: the outcome is unknown, and known later.
$session = session(q{SET homing.outcome_timeout = '1s'}, q{SET homing.connect_timeout = '500ms'});
begin_slow($session, 2);
$cluster->wan->command('reset', 'us-eu');
my $errors = errors_of($session);
like($errors, qr/ERROR:  08007: the outcome of the transaction at region "eu" is unknown/, 'an unknown outcome is said to be');
my ($token) = $errors =~ /homing\.outcome\('([0-9a-f-]{36})'\)/;
ok($token, 'with the token to ask with');
is($cluster->sql('us', "SET homing.connect_timeout = '500ms'; SET homing.outcome_timeout = '1s'; SELECT homing.outcome('$token')"),
	'unknown', 'it is still unknown while the link is cut');
$cluster->wan->command('heal', 'us-eu');
my $outcome = $cluster->sql('us', "SELECT homing.outcome('$token')");
like($outcome, qr/^(committed|aborted)$/, "later it is known: $outcome");
$expected++ if $outcome eq 'committed';
$cluster->poll('eu', "SELECT count(*) = 0 $running");
check_value('and agrees with the data');
is($cluster->sql($_, "SELECT homing.outcome('$token')"), $outcome, "the same at $_") for qw(us eu ap);
$cluster->kill('eu');
$cluster->start('eu');
is($cluster->sql('ap', "SELECT homing.outcome('$token')"), $outcome, 'and after a crash of the home');
check_value('still');
$session->quit;

$cluster->fails_with('us', "SELECT homing.outcome(gen_random_uuid())", '22023', 'another uuid is no token');

# The home is lost. What survives of it is known everywhere.
$cluster->converge;
$cluster->kill('eu');
$cluster->sql('us', q{SELECT homing.declare_lost('eu', force => true)});
is($cluster->sql($_, "SELECT homing.outcome('$token')"), $outcome, "$_ knows it although the home is lost") for qw(us ap);

$cluster->stop;
done_testing();
