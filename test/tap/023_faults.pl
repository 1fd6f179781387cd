# Faults of replication, locks and copies, each after PROTOCOL §3: the rows are named. FAULT_KILLS: how many kills of row 3.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)],
	settings => "wal_retrieve_retry_interval = 100ms\nwal_sender_timeout = 3s\nwal_receiver_timeout = 3s\nrestart_after_crash = on\n"
	  . "max_locks_per_transaction = 16\nhoming.probe_interval = 200ms\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id bigint PRIMARY KEY, hits bigint NOT NULL DEFAULT 0);
	INSERT INTO accounts SELECT i FROM generate_series(1, 600) i;
	SELECT homing.home_table('accounts', 'id', homes => 12);
	CREATE TABLE first (id bigint PRIMARY KEY);
	SELECT homing.home_table('first', 'id', placement => 'first_write', homes => 3)});
$cluster->poll($_, q{SELECT count(*) = 2 FROM homing.tables WHERE state = 'active'}) for $cluster->names;

sub keys_of
{
	my ($region, $count) = @_;
	return split /\n/, $cluster->sql('us', "SELECT id FROM accounts WHERE homing.home_of('accounts', id) = '$region' ORDER BY id LIMIT $count");
}
sub pids { my ($region, $condition) = @_; return split /\n/, $cluster->sql($region, "SELECT pid FROM pg_stat_activity WHERE $condition"); }
sub apply_worker
{
	my ($at, $from) = @_;
	my $query = qq{FROM pg_stat_subscription, homing.local_region l, homing.member m
		WHERE m.name = '$from' AND subname = homing._stream_name(m.region_id, l.region_id) AND pid IS NOT NULL};
	$cluster->poll($at, "SELECT count(*) = 1 $query");
	return $cluster->sql($at, "SELECT pid $query");
}
# A psql that has a transaction open; ended by end_session.
sub open_session
{
	my ($region, $sql) = @_;
	my %session = (in => "$sql; SELECT 'ready';\n", out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo($region) ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err}, IPC::Run::timeout(60));
	$session{run}->pump until $session{out} =~ /ready/ || $session{err} =~ /ERROR/;
	is($session{err}, '', 'the session is ready');
	return \%session;
}
sub end_session { my ($session, $sql) = @_; $session->{in} .= "$sql;\n\\q\n"; $session->{run}->finish; return; }

my ($of_us) = keys_of('us', 1);
my ($of_eu) = keys_of('eu', 1);
my $move_refused = q{SET homing.handover_timeout = '1s'; SELECT homing.hand_over('accounts', 'us', 'eu', ARRAY(
	SELECT homing._key_home(t.keyspace_id, homing._key_bytes('accounts', %s::bigint)) FROM homing.homed_table t WHERE t.relid = 'accounts'::regclass))};

# --- row 26: a savepoint takes the lock of the home with it, and the next write takes it anew
my $session = open_session('us', "BEGIN; SAVEPOINT s; UPDATE accounts SET hits = 1 WHERE id = $of_us; ROLLBACK TO s; UPDATE accounts SET hits = 2 WHERE id = $of_us");
$cluster->fails_with('ap', sprintf($move_refused, $of_us), '55P03', 'row 26: a home that was locked, released and locked stays');
end_session($session, 'COMMIT');

# --- row 27: exception blocks, COPY over all homes
$session = open_session('us', "BEGIN; DO \$\$ BEGIN BEGIN UPDATE accounts SET hits = 3 WHERE id = $of_us; RAISE 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END;
	UPDATE accounts SET hits = 4 WHERE id = $of_us; END \$\$");
$cluster->fails_with('ap', sprintf($move_refused, $of_us), '55P03', 'row 27: an exception block does not lose the lock');
end_session($session, 'COMMIT');
is($cluster->sql('us', "SELECT hits FROM accounts WHERE id = $of_us"), '4', 'row 27: what the block undid is undone');
my $file = PostgreSQL::Test::Utils::tempdir() . '/rows';
append_to_file($file, join '', map { "$_\t0\n" } 10001 .. 30000);
$session = open_session('us', "BEGIN;\n\\copy accounts FROM '$file'\nSELECT 1");
$cluster->fails_with('ap', sprintf($move_refused, $of_us), '55P03', 'row 27: COPY over all homes holds them all');
end_session($session, 'COMMIT');
$cluster->same_everywhere('accounts', 'row 27: COPY of 20,000 rows over all regions');

# --- row 28: session_replication_role hides triggers, not the home
my ($state) = $cluster->try_sql('us', "SET session_replication_role = replica; UPDATE accounts SET hits = 77 WHERE id = $of_eu");
is($state, '', 'row 28: a write with session_replication_role = replica goes to its home');
is($cluster->sql('eu', "SELECT hits FROM accounts WHERE id = $of_eu"), '77', 'row 28: … and is there');
$cluster->same_everywhere('accounts', 'row 28: no copy was written by itself');

# --- row 4: an apply worker stands still
my $stopped = apply_worker('eu', 'us');
kill('STOP', $stopped);
$cluster->fails_with('eu', "SET homing.read_timeout = '500ms'; UPDATE accounts SET hits = 5 WHERE id = $of_us; SELECT hits FROM accounts WHERE id = $of_us", '55P03',
	'row 4: a session that waits for its own write gives up in time');
$cluster->fails_with('ap', sprintf($move_refused, $of_us), '55000', 'row 4: a region that lags is given no home');
kill('CONT', $stopped);
$cluster->same_everywhere('accounts', 'row 4: it catches up');

# --- row 22: a barrier that lasts longer than wal_sender_timeout
$stopped = apply_worker('ap', 'us');
kill('STOP', $stopped);
$cluster->sql('us', "UPDATE accounts SET hits = 100 WHERE id = $of_us");
my $log_start = -s $cluster->node('ap')->logfile;
is($cluster->sql('eu', sprintf($move_refused, $of_us)), '1', 'row 22: a home moves between others');
$cluster->sql('eu', "UPDATE accounts SET hits = hits + 1 WHERE id = $of_us");
$cluster->node('ap')->wait_for_log(qr/changes of region "us" up to .* must be applied here first.*?changes of region "us" up to .* must be applied here first/s, $log_start);
is($cluster->sql('ap', "SELECT hits FROM accounts WHERE id = $of_us"), '5', 'row 22: nothing of the new owner is applied meanwhile');
kill('CONT', $stopped);
$cluster->same_everywhere('accounts', 'row 22: it reconnects and converges');
is($cluster->sql('ap', "SELECT hits FROM accounts WHERE id = $of_us"), '101', 'row 22: in order');

# --- row 61: a column that one region lacks
$cluster->sql('eu', 'SET homing.local_ddl = on; ALTER TABLE first RENAME id TO other');
$log_start = -s $cluster->node('eu')->logfile;
$cluster->sql('us', 'INSERT INTO first VALUES (-1)') if $cluster->sql('us', q{SELECT homing.home_of('first', -1)}) eq 'us';
$cluster->sql('us', 'INSERT INTO first SELECT i FROM generate_series(-20, -2) i WHERE homing.home_of(\'first\', i) = \'us\'');
$cluster->node('eu')->wait_for_log(qr/ERROR: .*missing replicated column/, $log_start);
$cluster->sql('eu', 'SET homing.local_ddl = on; ALTER TABLE first RENAME other TO id');
$cluster->same_everywhere('first', 'row 61: the stream goes on when the column is there');

# --- row 62: a forged row in a copy
my $forged = $cluster->sql('us', q{SELECT min(i) FROM generate_series(50000, 51000) i WHERE homing.home_of('accounts', i) = 'us'});
$cluster->sql('eu', qq{SELECT homing._write_copy('accounts', 'INSERT INTO accounts VALUES ($forged, 13)', '[]')});
is($cluster->sql('us', "SELECT count(*) FROM accounts WHERE id = $forged"), '0', 'row 62: a forged row does not travel');
$log_start = -s $cluster->node('eu')->logfile;
$cluster->sql('us', "INSERT INTO accounts VALUES ($forged, 14)");
$cluster->node('eu')->wait_for_log(qr/ERROR: .*duplicate key value/, $log_start);
cmp_ok($cluster->sql('eu', 'SELECT sum(apply_error_count) FROM pg_stat_subscription_stats'), '>', 0, 'row 62: the error is counted');
$cluster->sql('eu', qq{SELECT homing._write_copy('accounts', 'DELETE FROM accounts WHERE id = $forged', '[]')});
$cluster->same_everywhere('accounts', 'row 62: nothing was skipped');

# --- row 67: the lock table is full
my ($full, undef, $message) = $cluster->try_sql('us', q{DO $$ BEGIN FOR i IN 100000 .. 104000 LOOP INSERT INTO first VALUES (i); END LOOP; END $$});
is($full, '', 'row 67: a transaction with thousands of first writes does not need a lock for each') or diag($message);
$cluster->fails_with('us', q{DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM pg_advisory_xact_lock_shared(i); UPDATE accounts SET hits = hits WHERE id = 1 + i % 600; END LOOP; END $$},
	'53200', 'row 67: a full lock table is an error, and no more');
# The client that began it is gone: the workers end its parts.
$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for $cluster->names;
$cluster->same_everywhere($_, 'row 67: the regions go on') for qw(first accounts);
is($cluster->sql('ap', 'SELECT count(*) FROM first WHERE id >= 100000'), '4001', 'row 67: all first writes are there');

# --- rows 3 and 70: replication is killed and terminated again and again
my $sum = $cluster->sql('us', 'SELECT sum(hits) FROM accounts');
my $kills = $ENV{FAULT_KILLS} // 4;
for my $round (1 .. $kills)
{
	$cluster->sql('us', 'UPDATE accounts SET hits = hits + 1 WHERE id <= 100');
	my $at = $round % 2 ? 'us' : 'eu';
	my @victims = pids($at, $round % 2 ? "backend_type = 'walsender'" : "backend_type = 'logical replication worker'");
	kill('KILL', $victims[0]) if @victims;
	# The server restarts its processes.
	$cluster->node($at)->poll_query_until('app', 'SELECT true');
	$cluster->poll('us', 'SELECT true');
	$cluster->poll($_, 'SELECT count(*) = 2 FROM pg_stat_subscription s JOIN pg_subscription p ON p.oid = s.subid WHERE s.pid IS NOT NULL') for qw(us eu ap);
}
$cluster->same_everywhere('accounts', "row 3: no gap after $kills kills");
is($cluster->sql('ap', 'SELECT sum(hits) FROM accounts'), $sum + 100 * $kills, 'row 3: nothing lost, nothing twice');
my $objects = q{SELECT (SELECT count(*) FROM pg_subscription) || ' ' || (SELECT count(*) FROM pg_replication_origin)};
my %before = map { $_ => $cluster->sql($_, $objects) } $cluster->names;
for my $round (1 .. 10)
{
	for my $region ($cluster->names)
	{
		$cluster->sql($region, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type IN ('pg_homing worker', 'pg_homing launcher', 'walsender', 'logical replication worker')});
	}
	$cluster->sql('us', 'UPDATE accounts SET hits = hits + 1 WHERE id <= 10') if $round % 5 == 0;
}
$cluster->poll($_, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_homing worker'}) for $cluster->names;
$cluster->same_everywhere('accounts', 'row 70: the regions converge after a storm');
for my $region ($cluster->names)
{
	is($cluster->sql($region, $objects), $before{$region}, "row 70: no subscription or origin was left or lost at $region");
	$cluster->poll($region, q{SELECT count(*) = 2 FROM pg_replication_slots s CROSS JOIN homing.local_region l WHERE s.active AND s.slot_name LIKE 'homing%\_' || l.region_id || '\__'});
}

# --- row 66: all regions lose power at once
$cluster->sql($_, "INSERT INTO accounts SELECT 60000 + region_id, 1 FROM homing.local_region") for $cluster->names;
$cluster->kill($_) for $cluster->names;
$cluster->start($_) for $cluster->names;
$cluster->same_everywhere('accounts', 'row 66: the regions come back');
is($cluster->sql('us', 'SELECT count(*) FROM accounts WHERE id BETWEEN 60001 AND 60003'), '3', 'row 66: acknowledged writes are there');
is($cluster->sql($_, q{SELECT string_agg(owner, ' ' ORDER BY keyspace, home) FROM homing.homes}), $cluster->sql('us', q{SELECT string_agg(owner, ' ' ORDER BY keyspace, home) FROM homing.homes}),
	"row 66: $_ knows the same owners") for $cluster->names;
$cluster->sql($_, 'UPDATE accounts SET hits = hits + 1 WHERE id <= 30') for $cluster->names;
$cluster->same_everywhere('accounts', 'row 66: and they write on');

$cluster->stop;
done_testing();
