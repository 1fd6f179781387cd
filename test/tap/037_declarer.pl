# The declarer: a loss is declared over sessions that are open already, and by the caller itself when that fails, whatever
# becomes of the declarer and its sessions (PROTOCOL §3 rows 4, 34, 70).
use strict;
use warnings;

use HomingCluster;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2,
	settings => "homing.fencing = operator\nhoming.connect_timeout = 1s\n");
$cluster->form;
my %key = $cluster->accounts;
my $key = $key{ap};
$cluster->same_everywhere('accounts');

# The sessions of declarers at eu, once there is one of each living region.
sub kept
{
	my $of = q{FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query LIKE '%_rehearse_loss%'};
	$cluster->poll('eu', "SELECT count(*) = " . scalar($cluster->living) . " $of");
	return $cluster->sql('eu', "SELECT array_agg(pid) $of");
}

sub lose_ap
{
	$cluster->converge;
	$cluster->kill('ap');
	return;
}

sub is_lost
{
	my ($what) = @_;
	is($cluster->sql($_, q{SELECT status FROM homing.regions WHERE name = 'ap'}), 'lost', "$what: $_ knows") for qw(us eu);
	$cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id = $key") for qw(us eu);
	$cluster->same_everywhere('accounts');
	$cluster->start('ap');
	$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
	$cluster->sql('ap', 'SELECT homing.rejoin(failback => true)');
	$cluster->_use_links;
	$cluster->poll('us', "SELECT homing.home_of('accounts', $key) = 'ap'");
	$cluster->same_everywhere('accounts');
	return;
}

# A call of declare_lost that waits for a change at eu.
sub waiting_call
{
	my $kept = kept();
	my $change = PsqlSession->new($cluster->conninfo('eu'));
	$change->run($_) for 'BEGIN', 'SELECT homing._lock_change()';
	my $call = PsqlSession->new($cluster->conninfo('us'));
	my $pid = $call->value('SELECT pg_backend_pid()');
	$call->send(q{SELECT homing.declare_lost('ap', force => true, reason => 'gone')});
	my $waits = q{FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%_hold_change%'};
	$cluster->poll('eu', "SELECT count(*) = 1 $waits");
	is($cluster->sql('eu', "SELECT pid = ANY ('$kept') $waits"), 't', 'the steps are done in a session that was open before');
	return ($change, $call, $pid);
}

# --- who called is cancelled --------------------------------------------------------------------------------------------
lose_ap();
my ($change, $call, $pid) = waiting_call();
my $stream = q{SELECT subenabled FROM pg_subscription, homing.member m, homing.local_region l
	WHERE subname = homing._stream_name(m.region_id, l.region_id) AND m.name = 'ap' AND m.status = 'active'};
$cluster->poll('us', $stream, 'f');
$cluster->sql('us', "SELECT pg_cancel_backend($pid)");
is($call->receive->{sqlstate}, '57014', 'a call that is cancelled ends');
$change->run('ROLLBACK');
$cluster->poll($_, $stream) for qw(us eu);
pass('and what it had stopped goes on');
is($cluster->sql('us', q{SELECT count(*) FROM homing.events WHERE kind = 'declare_lost'}), '0', 'nothing is lost');
$_->close for $change, $call;

# --- the declarer ends --------------------------------------------------------------------------------------------------
($change, $call) = waiting_call();
$cluster->sql('us', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_homing declarer'});
$cluster->poll('us', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_homing declarer'});
$change->run('ROLLBACK');
is($call->receive->{sqlstate}, '', 'who called goes on without the declarer');
$_->close for $change, $call;
is($cluster->sql('us', q{SELECT count(*) || ' ' || min(actor) || ' ' || min(reason) FROM homing.events WHERE kind = 'declare_lost'}),
	$cluster->sql('us', q{SELECT '1 ' || session_user || ' gone'}), 'the loss is recorded once, as that of who called');
is_lost('no declarer');

# --- its session is dead ------------------------------------------------------------------------------------------------
my $kept = kept();
lose_ap();
$cluster->sql('eu', "SELECT pg_terminate_backend(pid) FROM unnest('$kept'::int[]) pid");
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
is_lost('closed session');

# --- its session says nothing -------------------------------------------------------------------------------------------
kept();
lose_ap();
$cluster->wan->command('drop', $_) for 'us-eu', 'eu-us';
$cluster->fails_with('us', q{SELECT homing.declare_lost('ap', force => true)}, '08001', 'a survivor that is silent cannot be left out',
	qr/region "eu" cannot be reached/);
is($cluster->sql('us', $stream), 't', 'nothing is stopped in vain');
$cluster->wan->command('heal', $_) for 'us-eu', 'eu-us';
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
is_lost('silent session');

# --- it does not come to it ---------------------------------------------------------------------------------------------
kept();
lose_ap();
my $declarer = $cluster->sql('us', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_homing declarer'});
kill 'STOP', $declarer;
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
kill 'CONT', $declarer;
is_lost('stopped declarer');
kept();

$cluster->stop;
done_testing();
