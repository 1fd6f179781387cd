# Connections to other regions: counted, shown, bounded, and closed when nothing uses them.
use strict;
use warnings;

use HomingCluster;
use PsqlSession;
use Test::More;
use Time::HiRes qw(time);

my $cluster = HomingCluster->new(regions => [qw(us eu ap)]);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL CHECK (n < 100))');
$cluster->sql('us', q{SELECT homing.home_table('counters', 'id')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('counters', id) = '$_'})
} $cluster->names;
my $other = $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id
	WHERE id <> $key{eu} AND homing.home_of('counters', id) = 'eu'});
$cluster->sql('us', "INSERT INTO counters VALUES ($key{us}, 0), ($key{eu}, 0), ($key{ap}, 0), ($other, 0)");

sub session { my ($region) = @_; return PsqlSession->new($cluster->conninfo($region)); }
sub add { my ($where) = @_; return "UPDATE counters SET n = n + 1 WHERE id = $key{$where}"; }
sub stat_of
{
	my ($columns, $region) = @_;
	return $cluster->sql('us', "SELECT $columns FROM homing.stat_forwarding WHERE region = '$region'");
}

# --- counters ---------------------------------------------------------------------------------------------

$cluster->sql('us', 'SELECT homing.stat_forwarding_reset()');
is(stat_of('statements, rows, commits, connections, execute_time', 'eu'), '0|0|0|0|0', 'the counters are zero');
my $session = session('us');
$session->run(add('eu')) for 1 .. 3;
is($session->value("SELECT n FROM counters WHERE id = $key{eu}"), '3', 'the session reads its writes');
is(stat_of('statements, rows, commits, connections', 'eu'), '3|3|3|1', 'statements by themselves are counted');
is(stat_of('execute_time > 0 AND connect_time > 0 AND commit_time = 0', 'eu'), 't', 'and timed');
cmp_ok(stat_of('read_waits', 'eu'), '>=', 1, 'a read waited');
$session->run($_) for 'BEGIN', add('eu'), add('eu'), 'COMMIT';
is(stat_of('statements, rows, commits, prepared', 'eu'), '5|5|4|0', 'one writer: its COMMIT decides');
is(stat_of('commit_time > 0', 'eu'), 't', 'which is timed');
$session->run($_) for 'BEGIN', add('eu'), add('ap'), 'COMMIT';
is(stat_of('prepared, decided, rolled_back, commits', 'eu'), '1|1|0|4', 'two writers: prepared and decided');
is(stat_of('prepared, decided, rolled_back, commits', 'ap'), '1|1|0|0', 'both of them');
is($session->run("UPDATE counters SET n = 1000 WHERE id = $key{eu}")->{sqlstate}, '23514', 'an error');
is(stat_of('constraint_errors, connection_errors, conflicts, cancels, other_errors', 'eu'), '1|0|0|0|0', 'is counted by its class');
is($cluster->sql('eu', q{SELECT count(*) FROM homing.stat_forwarding WHERE statements > 0}), '0', 'the home counts nothing');

my $before = stat_of('statements, rows, commits, connections, prepared, decided, constraint_errors, execute_time, since', 'eu');
$session->close;
$cluster->node('us')->restart;
is(stat_of('statements, rows, commits, connections, prepared, decided, constraint_errors, execute_time, since', 'eu'),
	$before, 'a restart keeps the counters');
$cluster->kill('us');
$cluster->start('us');
is($cluster->sql('us', 'SELECT count(*) FROM homing.stat_forwarding'), '0', 'a crash does not');
$cluster->node('eu')->stop;
$cluster->fails_with('us', add('eu'), '08001', 'a home that is down');
is(stat_of('connection_errors, connections', 'eu'), '1|0', 'is counted as an error of the connection');
$cluster->node('eu')->start;

# --- homing.sessions --------------------------------------------------------------------------------------

$session = session('us');
$session->run(add('eu'));
my $pid = $session->value('SELECT pg_backend_pid()');
my $shown = "SELECT region, state, transaction_age IS NULL FROM homing.sessions WHERE local_pid = $pid";
is($cluster->sql('us', $shown), 'eu|idle|t', 'an idle session is shown');
my $remote = $cluster->sql('us', "SELECT remote_pid FROM homing.sessions WHERE local_pid = $pid");
is($cluster->sql('eu', "SELECT application_name FROM pg_stat_activity WHERE pid = $remote"), "pg_homing us $pid",
	'with the process at the other region');
$session->run($_) for 'BEGIN', add('eu');
is($cluster->sql('us', $shown), 'eu|idle in transaction|f', 'and that it has a transaction open');
$session->run('ROLLBACK');
is($cluster->sql('us', $shown), 'eu|idle|t', 'until it ends');
$session->close;
$cluster->poll('us', "SELECT count(*) = 0 FROM homing.sessions WHERE local_pid = $pid");
pass('it goes with its session');

# --- the idle timeout -------------------------------------------------------------------------------------

my $ours = q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg_homing us %'};
$session = session('us');
$session->run($_) for q{SET homing.connection_idle_timeout = '300ms'}, add('eu');
$cluster->poll('eu', "$ours", '0');
pass('an idle connection is closed, although its session does nothing');
is($cluster->sql('us', 'SELECT count(*) FROM homing.sessions'), '0', 'and gone from the view');
is($session->run(add('eu'))->{sqlstate}, '', 'the next statement connects again');
$session->run($_) for 'BEGIN', add('eu');
$session->run(q{SELECT pg_sleep(1)});
is($session->run('COMMIT')->{sqlstate}, '', 'a transaction that takes longer goes on');
$session->close;

# --- the limit --------------------------------------------------------------------------------------------

$cluster->node('us')->append_conf('postgresql.conf', "homing.max_connections_per_region = 2\n");
$cluster->node('us')->reload;
$cluster->poll('us', q{SELECT current_setting('homing.max_connections_per_region') = '2'});

my @sessions = map { session('us') } 1 .. 5;
for my $round (1 .. 3)
{
	is(join(',', map { $_->run(add('eu'))->{sqlstate} } @sessions), ',,,,', "round $round: five sessions share two connections");
	cmp_ok($cluster->sql('eu', $ours), '<=', 2, "round $round: there are no more");
}

$_->run("SET homing.connect_timeout = '700ms'") for @sessions;
for my $holder (@sessions[ 0, 1 ])
{
	$holder->run('BEGIN');
	is($holder->run("SELECT n FROM counters WHERE id = $key{eu} FOR SHARE")->{sqlstate}, '', 'a transaction holds a connection');
}
my $begin = time;
my $result = $sessions[2]->run(add('eu'));
is($result->{sqlstate}, '53300', 'the third finds no room');
cmp_ok(time - $begin, '>', 0.6, 'having waited');
cmp_ok(time - $begin, '<', 10, 'for a bounded time');
like($result->{message}, qr/too many connections to region "eu"/, 'and says so');
is($sessions[2]->run(add('ap'))->{sqlstate}, '', 'another region has room');

# A waiter gets what a transaction gives back.
my $waiter = $cluster->node('us')->background_psql('app', on_error_stop => 0);
$waiter->query_safe(q{SET homing.connect_timeout = '60s'});
$waiter->query_until(qr/begun/, "\\echo begun\nUPDATE counters SET n = n + 1 WHERE id = $other;\n\\echo over\n");
$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'UPDATE counters SET n = n + 1 WHERE%'
	AND state = 'active' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()});
pass('a waiter waits with a wait event');
is($sessions[1]->run('COMMIT')->{sqlstate}, '', 'a transaction ends');
$waiter->query_until(qr/over/, "\n");
is($cluster->sql('eu', "SELECT n FROM counters WHERE id = $other"), '1', 'and the waiter goes on');
$waiter->quit;
$sessions[0]->run('COMMIT');

# A session that idles in its transaction for too long ends as it would without other regions, and its part with it.
my $part = q{SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND application_name LIKE 'pg_homing us %'};
my $unchanged = $cluster->sql('eu', "SELECT n FROM counters WHERE id = $key{eu}");
$sessions[3]->run($_) for q{SET idle_in_transaction_session_timeout = '1s'}, 'BEGIN', add('eu');
is($cluster->sql('eu', $part), '1', 'a transaction is open at the home');
$cluster->poll('eu', "SELECT ($part) = 0");
eval { $sessions[3]->run('COMMIT') };
isnt($@, '', 'idle_in_transaction_session_timeout has ended the session');
is($cluster->sql('eu', "SELECT n FROM counters WHERE id = $key{eu}"), $unchanged, 'and what it had done at the home');
$_->close for @sessions;

$cluster->poll('us', 'SELECT count(*) = 0 FROM homing.sessions');
pass('nothing is left');
$cluster->same_everywhere('counters');

$cluster->stop;
done_testing();
