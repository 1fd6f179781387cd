# With the streams to other regions in synchronous_standby_names nothing that was acknowledged is lost with its region.
# (PROTOCOL §3 rows 54, 55 and 57.)
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)], settings => "wal_retrieve_retry_interval = 100ms\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id bigint PRIMARY KEY);
	SELECT homing.home_table('accounts', 'id', placement => 'region', region => 'us')});
$cluster->poll($_, q{SELECT count(*) = 1 FROM homing.tables WHERE state = 'active'}) for $cluster->names;
my $stream = $cluster->sql('us', 'SELECT homing._stream_name(1::int2, 2::int2)');
is($cluster->sql('us', "SELECT count(*) FROM pg_stat_replication WHERE application_name = '$stream'"), '1', 'a stream is known by its name');
$cluster->sql('us', "ALTER SYSTEM SET synchronous_standby_names = '$stream'");
$cluster->sql('us', 'SELECT pg_reload_conf()');
$cluster->poll('us', "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = '$stream'");

# It may serve once it has heard of eu.
$cluster->sql('us', $_) for 'INSERT INTO accounts VALUES (0)', 'DELETE FROM accounts';

# --- row 57: every peer is down
$cluster->kill('eu');
$cluster->poll('us', 'SELECT count(*) = 0 FROM pg_stat_replication');
my $writer = IPC::Run::start([ 'psql', '-X', '-q', '-c', 'INSERT INTO accounts VALUES (-1)', '-d', $cluster->conninfo('us') ], '>', \my $out, '2>', \my $err, IPC::Run::timeout(120));
$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
is($cluster->sql('us', 'SELECT count(*) FROM accounts'), '0', 'row 57: a write waits for a peer, reads go on');

# --- row 54: whatever ends the wait, nothing is acknowledged that eu does not have. (statement_timeout does not end it.)
my %key = (cancel => -2, terminate => -3);
for my $way (sort keys %key)
{
	my $impatient = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-c', "INSERT INTO accounts VALUES ($key{$way}) RETURNING 'acknowledged'",
			'-d', $cluster->conninfo('us') ], '>', \my $told, '2>', \my $why, IPC::Run::timeout(120));
	$cluster->poll('us', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	$cluster->sql('us', "SELECT pg_${way}_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'acknowledged'");
	$impatient->finish;
	is($told, '', "row 54: no acknowledgement after a $way");
	like($why, qr/server closed the connection/, "row 54: … but a closed connection");
	is($cluster->sql('us', "SELECT count(*) FROM accounts WHERE id = $key{$way}"), '1', 'row 54: … though it is committed here');
}
$cluster->start('eu');
$writer->finish;
is("$out$err", '', 'row 57: it is acknowledged when a peer is back');
is($cluster->sql('eu', 'SELECT count(*) FROM accounts WHERE id = -1'), '1', 'row 57: … which has it');

# --- row 55: the home, and the peer that confirmed, go down right after
for my $round (1 .. 3)
{
	my $from = 100 * $round;
	$cluster->sql('us', join ' ', map { "INSERT INTO accounts VALUES ($_);" } $from .. $from + 19);
	$cluster->kill('eu');
	$cluster->kill('us');
	$cluster->start('eu');
	is($cluster->sql('eu', "SELECT count(*) FROM accounts WHERE id >= $from"), '20', "row 55: the peer has all that was acknowledged, round $round");
	if ($round < 3)
	{
		$cluster->start('us');
		$cluster->poll('us', "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '$stream' AND state = 'streaming'");
	}
}
$cluster->sql('eu', q{SELECT homing.declare_lost('us', force => true)});
$cluster->sql('eu', 'INSERT INTO accounts VALUES (1000)');
is($cluster->sql('eu', 'SELECT count(*) FROM accounts WHERE id >= -1'), '62', 'row 55: the heir goes on with all of it');
$cluster->stop;
done_testing();
