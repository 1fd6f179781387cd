# Homes and keys change hands while every region writes them: nothing fails, nothing is lost, and a crash or a
# slow link at any step leaves one owner.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], settings => "wal_retrieve_retry_interval = 100ms\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id bigint PRIMARY KEY, hits int NOT NULL DEFAULT 0);
	INSERT INTO accounts SELECT i FROM generate_series(1, 300) i;
	SELECT homing.home_table('accounts', 'id', homes => 12);
	CREATE TABLE visits (id bigint, number bigint, note text, PRIMARY KEY (id, number));
	SELECT homing.home_table('visits', 'id', colocate_with => 'accounts')});
$cluster->poll($_, q{SELECT count(*) = 2 FROM homing.tables WHERE state = 'active'}) for $cluster->names;

# The load: adds 1 to one row at a time, in autocommit, from every region.
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
append_to_file($script, "\\set id random(1, 300)\nUPDATE accounts SET hits = hits + 1 WHERE id = :id;\n");
my $hot_script = PostgreSQL::Test::Utils::tempdir() . '/hot.sql';
append_to_file($hot_script, "UPDATE accounts SET hits = hits + 1 WHERE id = 7;\n");

sub begin_load
{
	my ($file, $seconds) = @_;
	my @load;
	for my $region ($cluster->names)
	{
		my ($out, $err) = ('', '');
		my $run = IPC::Run::start(
			[ 'pgbench', '-n', '-c', 2, '-T', $seconds, '-f', $file, '-h', '127.0.0.1', '-p', $cluster->node($region)->port, 'app' ],
			'>', \$out, '2>', \$err, IPC::Run::timeout(180));
		push @load, { region => $region, run => $run, out => \$out, err => \$err };
	}
	return @load;
}

# A test: no statement failed. Returns how many there were.
sub end_load
{
	my ($what, @load) = @_;
	my $done = 0;
	my @failures;
	for my $load (@load)
	{
		$load->{run}->finish;
		my ($processed) = ${ $load->{out} } =~ /actually processed: (\d+)/;
		my ($failed) = ${ $load->{out} } =~ /failed transactions: (\d+)/;
		$done += $processed // 0;
		push @failures, "$load->{region}: ${$load->{err}}" if !defined $processed || $failed || ${ $load->{err} } =~ /ERROR/;
	}
	is_deeply(\@failures, [], "$what: no write failed ($done writes)");
	return $done;
}

sub hits { return $cluster->sql('us', 'SELECT sum(hits) FROM accounts'); }

sub owners
{
	my ($region) = @_;
	return $cluster->sql($region, q{SELECT string_agg(owner, ' ' ORDER BY home) FROM homing.homes});
}

my $even = join ' ', ('us') x 4, ('eu') x 4, ('ap') x 4;
is(owners('us'), $even, 'homes are spread evenly at first');

# --- homes, under load
my @load = begin_load($script, 12);
my $moved = 0;
for my $round (1 .. 2)
{
	$moved += $cluster->sql('eu', "SELECT homing.hand_over('accounts', '$_->[0]', '$_->[1]')")
		for [ 'us', 'eu' ], [ 'eu', 'ap' ], [ 'ap', 'us' ];
}
my $writes = end_load('homes move', @load);
cmp_ok($moved, '>=', 40, "all homes moved through all regions ($moved moves)");
$cluster->same_everywhere('accounts');
is(hits(), $writes, 'no write was lost or done twice');
is(owners($_), join(' ', ('us') x 12), "$_ knows the owner of all homes") for $cluster->names;
is($cluster->sql($_, q{SELECT count(*) FROM homing.moves WHERE state <> 'done'}), '0', "all moves are done, says $_")
	for $cluster->names;

# --- by weight
is($cluster->sql('ap', q{SELECT count(*), count(DISTINCT to_region) FROM homing.plan_repartition('visits', '{"us": 2, "eu": 1, "ap": 1}')}),
	'6|2', 'the plan moves as few homes as it must');
is($cluster->sql('ap', q{SELECT homing.repartition('visits', '{"us": 2, "eu": 1, "ap": 1}')}), '6', 'so does the move');
is($cluster->sql('ap', q{SELECT string_agg(owner || count, ' ' ORDER BY owner) FROM (SELECT owner, count(*) FROM homing.homes GROUP BY 1) x}),
	'ap3 eu3 us6', 'the shares are as the weights');
is($cluster->sql('ap', q{SELECT homing.repartition('accounts', '{"us": 2, "eu": 1, "ap": 1}')}), '0', 'and nothing is left to do');
$cluster->fails_with('us', q{SELECT homing.repartition('accounts', '{"nowhere": 1}')}, '22023', 'weight of an unknown region');
$cluster->fails_with('us', q{SELECT homing.repartition('accounts', '{"us": -1, "eu": 2}')}, '22023', 'negative weight');
$cluster->fails_with('us', q{SELECT homing.repartition('accounts', '{"us": 0}')}, '22023', 'no weight at all');
$cluster->fails_with('us', q{SELECT homing.hand_over('accounts', 'us', 'us')}, '22023', 'to itself');
$cluster->fails_with('us', q{SELECT homing.hand_over('accounts', 'us', 'nowhere')}, '22023', 'to an unknown region');
$cluster->fails_with('us', q{SELECT homing.hand_over('accounts', 'us', 'eu', ARRAY[12])}, '22023', 'a home that does not exist');
$cluster->fails_with('us', q{SELECT homing.hand_over('pg_class', 'us', 'eu')}, '22023', 'a table that is not homed');

# --- one hot key, with rows in two tables
$cluster->sql('eu', q{INSERT INTO visits SELECT 7, i, 'first' FROM generate_series(1, 100) i});
my $before = $cluster->sql($cluster->sql('us', q{SELECT homing.home_of('accounts', 7)}), 'SELECT sum(hits) FROM accounts');
# HOT_SECONDS: how long; once a second it changes hands.
my $hot_seconds = $ENV{HOT_SECONDS} // 12;
my $hot_end = time() + $hot_seconds - 3;
@load = begin_load($hot_script, $hot_seconds);
my $trips = 0;
while (time() < $hot_end)
{
	for my $region ($cluster->names)
	{
		my ($state, undef, $err) = $cluster->try_sql('ap', "SELECT homing.assign_key('accounts', 7, '$region')");
		# The owner may have changed since this region heard of it.
		redo if $state eq '40001';
		is($state, '', "assign_key to $region") or diag($err);
		$trips++;
		select(undef, undef, undef, 1 - (Time::HiRes::time() - int(Time::HiRes::time())));  # to the next second
	}
}
$writes = end_load("a hot key moves $trips times", @load);
$cluster->same_everywhere('accounts');
$cluster->same_everywhere('visits');
is(hits() - $before, $writes, 'no write of the hot key was lost or done twice');
for my $region ($cluster->names)
{
	is($cluster->sql($region, q{SELECT homing.home_of('visits', 7)}), 'ap', "$region knows the last home of the key");
	is($cluster->sql($region, q{SELECT (SELECT count(*) FROM homing.assignment) || ' ' || (SELECT count(*) FROM homing.key_acceptance) || ' '
		|| (SELECT count(*) FROM homing.pending_key)}), '1 1 0', "$region keeps one row of it");
}

# --- PROTOCOL §3 row 59: keys and the homes under them move in turns; versions only rise, at every region
my $newest = q{SELECT 'key ' || encode(key, 'hex') || ' ' || max(version) FROM homing.assignment GROUP BY key
	UNION ALL SELECT 'home ' || home || ' ' || max(version) FROM homing.ownership GROUP BY home};
my (%version_at, @fallen);
my $mix_before = hits();
@load = begin_load($script, 10);
for my $step (1 .. 8)
{
	my $to = ($cluster->names)[ $step % 3 ];
	my $from = ($cluster->names)[ ($step + 1 + $step % 2) % 3 ];
	for my $id (7, 8 + $step % 2)
	{
		my ($state, undef, $err) = $cluster->try_sql('ap', "SELECT homing.assign_key('accounts', $id, '$to')");
		redo if $state eq '40001';
		is($state, '', "assign_key of $id to $to") or diag($err);
	}
	# One: a key can be assigned only to a region that owns a home.
	$cluster->sql('ap', "SELECT homing.hand_over('accounts', '$from', '$to', ARRAY(SELECT min(home) FROM homing.homes WHERE owner = '$from'))");
	for my $region ($cluster->names)
	{
		for my $line (split /\n/, $cluster->sql($region, $newest))
		{
			my ($what, $version) = $line =~ /^(.*) (\d+)$/;
			push @fallen, "$region: $what" if $version < ($version_at{$region}{$what} // 0);
			$version_at{$region}{$what} = $version;
		}
	}
}
$writes = end_load('keys and homes move in turns', @load);
is_deeply(\@fallen, [], 'no version falls');
$cluster->same_everywhere('accounts');
is(hits() - $mix_before, $writes, 'no write was lost or done twice');
$cluster->sql('ap', "SELECT homing.assign_key('accounts', 7, 'ap')");
$cluster->sql('ap', q{SELECT homing.repartition('accounts', '{"us": 2, "eu": 1, "ap": 1}')});
$cluster->converge;

# --- the barrier: ap hears from eu, the new owner, before it hears from us, the old one
# A key without rows.
sub key_of
{
	my ($region) = @_;
	return $cluster->sql($region, qq{SELECT min(i) FROM generate_series(1000, 2000) i
		WHERE homing.home_of('accounts', i) = '$region' AND NOT EXISTS (SELECT FROM accounts WHERE id = i)});
}
sub apply_worker
{
	my ($at, $from) = @_;
	return $cluster->sql($at, qq{SELECT pid FROM pg_stat_subscription, homing.local_region l, homing.member m
		WHERE m.name = '$from' AND subname = homing._stream_name(m.region_id, l.region_id) AND pid IS NOT NULL});
}
my $key = key_of('us');
$cluster->sql('us', "INSERT INTO accounts VALUES ($key, 0)");
$cluster->converge;
my $stopped = apply_worker('ap', 'us');
kill('STOP', $stopped);
$cluster->sql('us', "UPDATE accounts SET hits = 1 WHERE id = $key; INSERT INTO visits VALUES ($key, 1, 'us')");
is($cluster->sql('eu', "SELECT homing.hand_over('accounts', 'us', 'eu')"), '6', 'a region that lags does not hold up a hand-over between others');
$cluster->sql('eu', "UPDATE accounts SET hits = hits + 10 WHERE id = $key; UPDATE visits SET note = note || ' eu' WHERE id = $key");
is($cluster->sql('eu', "SELECT hits || ' ' || note FROM accounts JOIN visits USING (id) WHERE id = $key"), '11 us eu', 'the new owner writes on');
my $waiting = apply_worker('ap', 'eu');
$cluster->poll('ap', qq{SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $waiting});
is($cluster->sql('ap', "SELECT hits FROM accounts WHERE id = $key"), '0', 'ap applies nothing of the new owner before the old one');
kill('CONT', $stopped);
$cluster->same_everywhere('accounts', 'ap has caught up, in order');
$cluster->same_everywhere('visits');

# --- a transaction that began before its home came
$cluster->sql('eu', q{SELECT homing.hand_over('accounts', 'eu', 'ap', ARRAY(SELECT home FROM homing.homes WHERE owner = 'eu' LIMIT 1))});
my $at_ap = key_of('eu');
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $from = $cluster->sql('us', "SELECT homing.home_of('accounts', $at_ap)");
	my ($to) = grep { $_ ne $from } $cluster->names;
	my ($in, $out, $err) = ("BEGIN ISOLATION LEVEL $level; SELECT 'began', count(*) FROM accounts;\n", '', '');
	my $run = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=verbose', '-d', $cluster->conninfo($to) ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$run->pump until $out =~ /began/;
	$cluster->sql('us', "SELECT homing.hand_over('accounts', '$from', '$to')");
	$in .= "INSERT INTO accounts VALUES ($at_ap, 5);\n";
	$run->pump until $err =~ /ERROR/ || $out =~ /INSERT/;
	like($err, qr/ERROR:  40001/, "a $level transaction does not write a home that came after its snapshot");
	$in .= "\\q\n";
	$run->finish;
}

# --- a long transaction holds up its own home only
my $holder = 'us';
$cluster->sql('us', q{SELECT homing.repartition('accounts', '{"us": 1, "eu": 1, "ap": 1}')});
$key = key_of('us');
my ($in, $out, $err) = ("BEGIN; INSERT INTO accounts VALUES ($key, 1); SELECT 'wrote';\n", '', '');
my $writer = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('us') ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
$writer->pump until $out =~ /wrote/;
$cluster->fails_with('ap', q{SET homing.handover_timeout = '2s'; SELECT homing.hand_over('accounts', 'us', 'eu')}, '55P03',
	'a home that is being written stays', qr/could not hand over 1 of 4 homes/);
is($cluster->sql('us', q{SELECT count(*) FROM homing.homes WHERE owner = 'us'}), '1', 'the others have moved');
$in .= "COMMIT; SELECT 'done';\n";
$writer->pump until $out =~ /done/;
$in .= "\\q\n";
$writer->finish;
is($cluster->sql('ap', q{SELECT homing.hand_over('accounts', 'us', 'eu')}), '1', 'it moves when the transaction has ended');
$cluster->same_everywhere('accounts');

# --- the new owner crashes between release and acceptance
sub worker_pid
{
	my ($region) = @_;
	$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_homing worker'});
	return $cluster->sql($region, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_homing worker'});
}
$cluster->sql('us', q{SELECT homing.repartition('accounts', '{"us": 1, "eu": 1, "ap": 1}')});
$key = key_of('us');
kill('STOP', worker_pid('eu'));
my ($state, undef, $message) = $cluster->try_sql('us', q{SET homing.handover_timeout = '1s'; SELECT homing.hand_over('accounts', 'us', 'eu')});
is($state, '', 'a hand-over whose acceptance is late succeeds');
like($message, qr/WARNING.*4 homes are still on their way/, '… with a warning');
is($cluster->sql('us', q{SELECT count(*) FROM homing.moves WHERE state = 'in transit'}), '4', 'homing.moves shows them');
$cluster->kill('eu');
$cluster->start('eu');
$cluster->poll('eu', q{SELECT count(*) = 0 FROM homing.moves WHERE state = 'in transit'});
$cluster->sql('ap', "INSERT INTO accounts VALUES ($key, 1)");
is($cluster->sql('eu', "SELECT hits FROM accounts WHERE id = $key"), '1', 'it accepts the homes after the crash');
$cluster->same_everywhere('accounts');

# --- the old owner crashes right after the release, before it was sent to anybody
$cluster->sql('us', q{SELECT homing.repartition('accounts', '{"us": 1, "eu": 1, "ap": 1}')});
$key = key_of('us');
my @senders = split /\n/, $cluster->sql('us', q{SELECT pid FROM pg_stat_replication});
kill('STOP', @senders);
my $target_id = $cluster->sql('us', q{SELECT region_id FROM homing.member WHERE name = 'ap'});
my $space = $cluster->sql('us', q{SELECT keyspace_id FROM homing.keyspace});
$cluster->sql('us', qq{SELECT homing._release_homes($space, ARRAY(SELECT home FROM homing.homes WHERE owner = 'us'), ${target_id}::int2, true, 'test')});
is(owners('eu') =~ /us/ ? 1 : 0, 1, 'nobody has heard of the release');
$cluster->kill('us');
$cluster->start('us');
$cluster->poll('ap', q{SELECT count(*) = 4 FROM homing.moves WHERE state = 'done' AND from_region = 'us' AND to_region = 'ap' AND released_at > now() - interval '1 minute'});
$cluster->sql('us', "INSERT INTO accounts VALUES ($key + 100000, 1)");
$cluster->same_everywhere('accounts', 'the hand-over is completed when the old owner is back');

# --- the mover crashes while it waits: nothing has happened
$cluster->sql('us', q{SELECT homing.repartition('accounts', '{"us": 1, "eu": 1, "ap": 1}')});
$key = key_of('us') + 0;
($in, $out, $err) = ("BEGIN; INSERT INTO accounts VALUES ($key, 1) ON CONFLICT (id) DO UPDATE SET hits = 2; SELECT 'wrote';\n", '', '');
$writer = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('us') ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
$writer->pump until $out =~ /wrote/;
my ($mover_out, $mover_err) = ('', '');
my $mover = IPC::Run::start([ 'psql', '-X', '-c', q{SELECT homing.hand_over('accounts', 'us', 'eu')}, '-d', $cluster->conninfo('eu') ],
	'>', \$mover_out, '2>', \$mover_err, IPC::Run::timeout(120));
$cluster->poll('us', q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock'});
# Its writer goes on, and connects meanwhile to where the home is about to be.
my $connected = q{SELECT s.state FROM homing._sessions() s JOIN homing.member m USING (region_id)
	JOIN pg_stat_activity a ON a.pid = s.local_pid WHERE m.name = 'eu' AND a.xact_start IS NOT NULL};
for my $try (1 .. 200)
{
	last if $cluster->sql('us', $connected) eq 'idle';
	$in .= "UPDATE accounts SET hits = 2 WHERE id = $key; SELECT 'again $try';\n";
	$writer->pump until $out =~ /again $try\n/;
}
is($cluster->sql('us', $connected), 'idle', 'a session that writes a home on the move is connected to the new owner before it has moved');
$cluster->kill('us');
$mover->finish;
$writer->finish;
like($mover_err, qr/ERROR/, 'the hand-over fails with the old owner');
$cluster->start('us');
is($cluster->sql('us', "SELECT homing.home_of('accounts', $key)"), 'us', 'the home that was being written is where it was');
$cluster->converge;
is(owners('us'), owners('ap'), 'all agree on the owners');
is($cluster->sql('eu', q{SELECT count(*) FROM homing.moves WHERE state <> 'done'}), '0', 'nothing is half done');
$cluster->sql('ap', "INSERT INTO accounts VALUES ($key, 3) ON CONFLICT (id) DO UPDATE SET hits = 3");
$cluster->same_everywhere('accounts');

# --- the new owner is lost before it has accepted: its heir accepts in its place
$cluster->sql('us', q{SELECT homing.set_heirs('eu', ARRAY['ap'])});
$key = key_of('us');
$cluster->sql('us', "INSERT INTO accounts VALUES ($key, 1) ON CONFLICT (id) DO UPDATE SET hits = 1");
$cluster->converge;
kill('STOP', worker_pid('eu'));
$cluster->try_sql('us', q{SET homing.handover_timeout = '1s'; SELECT homing.hand_over('accounts', 'us', 'eu')});
$cluster->kill('eu');
$cluster->sql('us', q{SELECT homing.declare_lost('eu', force => true)});
$cluster->poll('us', qq{SELECT homing.home_of('accounts', $key) = 'ap'});
$cluster->sql('us', "UPDATE accounts SET hits = hits + 1 WHERE id = $key");
is($cluster->sql('ap', "SELECT hits FROM accounts WHERE id = $key"), '2', 'the heir writes on from the last value of the old owner');
$cluster->same_everywhere('accounts');
is($cluster->sql($_, q{SELECT count(*) FROM homing.moves WHERE state <> 'done'}), '0', "nothing is in transit, says $_") for $cluster->living;

$cluster->stop;
done_testing();
