# A key belongs to the region that first writes it: one round trip once per key, one winner of every race, and the
# claim and its first row share their fate. (PROTOCOL §3 row 58; row 59 is in 010_hand_over.pl.)
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], settings => "wal_retrieve_retry_interval = 100ms\nmax_prepared_transactions = 20\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE profiles (id bigint PRIMARY KEY, hits int NOT NULL DEFAULT 0, writer text);
	INSERT INTO profiles SELECT i FROM generate_series(100001, 100100) i;
	SELECT homing.home_table('profiles', 'id', placement => 'first_write', homes => 12);
	CREATE TABLE visits (id bigint, number bigint, PRIMARY KEY (id, number));
	SELECT homing.home_table('visits', 'id', colocate_with => 'profiles')});
$cluster->poll($_, q{SELECT count(*) = 2 FROM homing.tables WHERE state = 'active'}) for $cluster->names;
is($cluster->sql('ap', q{SELECT DISTINCT placement FROM homing.tables}), 'first_write', 'homing.tables shows the placement');

# Numbers whose hash home is at a region and that nobody has written, from a range of the caller's.
my $next = 1;
sub fresh_keys
{
	my ($region, $count) = @_;
	my $from = $next;
	$next += 60 * $count;
	my @keys = split /\n/, $cluster->sql('us', qq{SELECT i FROM generate_series($from, $next - 1) i
		WHERE homing.home_of('profiles', i) = '$region' LIMIT $count});
	is(scalar(@keys), $count, "there are keys at $region") if @keys != $count;
	return @keys;
}
sub home_of { my ($region, $key) = @_; return $cluster->sql($region, "SELECT homing.home_of('profiles', $key)"); }
sub known_everywhere
{
	my ($key, $owner) = @_;
	$cluster->poll($_, "SELECT homing.home_of('profiles', $key) = '$owner'") for $cluster->names;
	return;
}
sub round_trips
{
	my ($region) = @_;
	return $cluster->sql($region, 'SELECT coalesce(sum(statements), 0) FROM homing.stat_forwarding');
}

# --- one key
my ($here, $there, $gone) = (fresh_keys('us', 1), fresh_keys('eu', 2));
$cluster->sql('us', "INSERT INTO profiles VALUES ($here, 1)");
known_everywhere($here, 'us');
$cluster->sql('us', "INSERT INTO profiles VALUES ($there, 1)");
known_everywhere($there, 'us');
like($cluster->sql('us', "EXPLAIN (COSTS OFF) UPDATE profiles SET hits = 2 WHERE id = $there"), qr/Home: us/, 'a claimed key is local at its claimant');
$cluster->sql('us', "INSERT INTO visits VALUES ($there, 1)");
like($cluster->sql('ap', "EXPLAIN (COSTS OFF) UPDATE visits SET number = 2 WHERE id = $there"), qr/Home: us/, '… in co-located tables too');
$cluster->sql('ap', "UPDATE profiles SET hits = hits + 1 WHERE id IN ($here, $there)");
is(home_of('ap', $there), 'us', 'a second writer does not get it');
$cluster->sql('ap', 'UPDATE profiles SET hits = 1 WHERE id = 100001');
known_everywhere(100001, 'ap');
$cluster->sql('us', 'DELETE FROM profiles WHERE id = 100002');
is($cluster->sql('us', q{SELECT count(*) FROM homing.assignment WHERE key = homing._key_bytes('profiles', 100002)}), '0', 'DELETE claims nothing');
$cluster->fails_with('us', "BEGIN; INSERT INTO profiles VALUES ($gone, 1); SELECT 1/0; COMMIT", '22012', 'a transaction fails');
$cluster->sql('ap', "INSERT INTO profiles VALUES ($gone, 2)");
known_everywhere($gone, 'ap');
is($cluster->sql('ap', "SELECT hits FROM profiles WHERE id = $gone"), '2', 'a claim ends with its transaction');

# --- one session writes its new key again, at once: in the transaction, and after it
{
	my @keys = fresh_keys('eu', 20);
	my $script = join "\n", map { "BEGIN; INSERT INTO profiles VALUES ($_, 1); INSERT INTO visits VALUES ($_, 1); UPDATE profiles SET hits = hits + 1 WHERE id = $_; COMMIT;
		BEGIN; UPDATE profiles SET hits = hits + 1 WHERE id = $_; SAVEPOINT s; DELETE FROM visits WHERE id = $_; ROLLBACK TO s; COMMIT;" } @keys;
	my ($state, undef, $err) = $cluster->try_sql('us', $script);
	is($state, '', 'a session writes a key that it has claimed a moment ago') or diag($err);
	my $list = join ',', @keys;
	is($cluster->sql('us', "SELECT count(*), sum(hits), (SELECT count(*) FROM visits WHERE id IN ($list)) FROM profiles WHERE id IN ($list)"), '20|60|20', '… all of it');
	known_everywhere($_, 'us') for @keys;
	@keys = (fresh_keys('eu', 1), fresh_keys('ap', 1), fresh_keys('us', 1));
	$cluster->sql('us', "BEGIN; " . join('', map { "INSERT INTO profiles VALUES ($_, 1);" } @keys) . " COMMIT");
	known_everywhere($_, 'us') for @keys;
	is($cluster->sql('us', q{SELECT count(*) FROM pg_prepared_xacts}), '0', 'claims at several regions commit together');
	$_ = join(',', @keys);
	$cluster->poll('us', "SELECT count(*) = 3 FROM profiles WHERE id IN ($_)");
}

# --- keys that others decide about, assigned beforehand
my ($assigned) = fresh_keys('us', 1);
$cluster->sql('us', "SELECT homing.assign_key('profiles', $assigned, 'us')");
known_everywhere($assigned, 'us');
$cluster->sql('eu', "INSERT INTO profiles VALUES ($assigned, 1)");
is(home_of('eu', $assigned), 'us', 'a key that was assigned where it was is not claimed');

# --- many at once: by rows of VALUES, by a query, by COPY
sub owned
{
	my ($region, $from, $to) = @_;
	return $cluster->sql($region, qq{SELECT string_agg(home || ' ' || count, ', ' ORDER BY home) FROM (SELECT homing.home_of('profiles', i) AS home, count(*)
		FROM generate_series($from, $to) i GROUP BY 1) x});
}
my $values = join ',', map { "($_, 1)" } 200001 .. 200300;
my $before = round_trips('us');
$cluster->sql('us', "INSERT INTO profiles VALUES $values");
cmp_ok(round_trips('us') - $before, '<=', 2, 'VALUES goes to each region once');
$cluster->poll('ap', q{SELECT count(*) = 300 FROM generate_series(200001, 200300) i WHERE homing.home_of('profiles', i) = 'us'});
$before = round_trips('eu');
$cluster->sql('eu', q{INSERT INTO profiles SELECT i, 1 FROM generate_series(210001, 213000) i});
cmp_ok(round_trips('eu') - $before, '<=', 8, 'a query goes out in batches');
$cluster->poll('us', q{SELECT count(*) = 3000 FROM generate_series(210001, 213000) i WHERE homing.home_of('profiles', i) = 'eu'});
my $file = PostgreSQL::Test::Utils::tempdir() . '/rows';
append_to_file($file, join '', map { "$_\t1\n" } 220001 .. 222000);
$before = round_trips('ap');
$cluster->sql('ap', "\\copy profiles (id, hits) FROM '$file'");
cmp_ok(round_trips('ap') - $before, '<=', 4, 'COPY goes out in a stream');
$cluster->poll('eu', q{SELECT count(*) = 2000 FROM generate_series(220001, 222000) i WHERE homing.home_of('profiles', i) = 'ap'});
$cluster->same_everywhere('profiles', 'all rows of bulk first writes are everywhere');
# What is accepted may be listed until the log is pruned.
$cluster->poll($_, q{SELECT count(*) = 0 FROM homing.pending_key p
	WHERE NOT EXISTS (SELECT FROM homing.key_acceptance k WHERE k.keyspace_id = p.keyspace_id AND k.key = p.key AND k.version = p.version)}) for $cluster->names;

# --- races: every region writes the same new keys at once, under load (PROTOCOL §3 row 58)
# FIRST_WRITE_KEYS: how many.
my $last_key = 300000 + ($ENV{FIRST_WRITE_KEYS} // 2000);
my $script = PostgreSQL::Test::Utils::tempdir() . '/race.sql';
append_to_file($script, "\\set id random(300001, $last_key)\n"
	. "INSERT INTO profiles AS p (id, hits, writer) VALUES (:id, 1, :writer) ON CONFLICT (id) DO UPDATE SET hits = p.hits + 1;\n");
my $seconds = $ENV{FIRST_WRITE_SECONDS} // 8;
my @load;
for my $region ($cluster->names)
{
	my ($out, $err) = ('', '');
	push @load, { region => $region, out => \$out, err => \$err, run => IPC::Run::start(
		[ 'pgbench', '-n', '-c', 2, '-T', $seconds, '-D', "writer='$region'", '-f', $script, '-h', '127.0.0.1', '-p', $cluster->node($region)->port, 'app' ],
		'>', \$out, '2>', \$err, IPC::Run::timeout($seconds + 120)) };
}
# One of them is moved and the homes of another move meanwhile.
$cluster->sql('us', q{SELECT homing.hand_over('profiles', 'us', 'eu', ARRAY(SELECT home FROM homing.homes WHERE owner = 'us' ORDER BY home LIMIT 2))});
$cluster->sql('us', q{SELECT homing.hand_over('profiles', 'eu', 'us', ARRAY(SELECT home FROM homing.homes WHERE owner = 'eu' ORDER BY home LIMIT 2))});
my $writes = 0;
for my $load (@load)
{
	$load->{run}->finish;
	my ($done) = ${ $load->{out} } =~ /actually processed: (\d+)/;
	ok(defined $done && ${ $load->{err} } !~ /ERROR/, "no write of $load->{region} failed in the race") or diag(${ $load->{err} });
	$writes += $done // 0;
}
$cluster->same_everywhere('profiles', 'all regions have the same winners');
is($cluster->sql('us', "SELECT sum(hits) FROM profiles WHERE id BETWEEN 300001 AND $last_key"), $writes, "no write was lost or done twice ($writes writes)");
cmp_ok($cluster->sql('us', "SELECT count(DISTINCT writer) FROM profiles WHERE id BETWEEN 300001 AND $last_key"), '==', 3, 'every region won some');
for my $region ($cluster->names)
{
	# CLAIM-1: one claim of a key; a row of it is where the claim says.
	is($cluster->sql($region, q{SELECT count(*) FROM (SELECT FROM homing.assignment GROUP BY keyspace_id, key HAVING count(*) > 1) x}), '0', "one claim of a key at $region");
	is($cluster->sql($region, qq{SELECT count(*) FROM profiles p WHERE id BETWEEN 300001 AND $last_key
		AND NOT EXISTS (SELECT FROM homing.assignment a WHERE a.key = homing._key_bytes('profiles', p.id))}), '0', "every written key is claimed at $region");
}

# --- many writers of the same batch in different orders
{
	my @runs;
	for my $region ($cluster->names)
	{
		my ($out, $err) = ('', '');
		my $order = $region eq 'us' ? 'i' : $region eq 'eu' ? '-i' : 'i % 7, i';
		push @runs, [ $region, \$err, IPC::Run::start([ 'psql', '-X', '-q', '-d', $cluster->conninfo($region), '-v', 'VERBOSITY=verbose', '-c',
			"INSERT INTO profiles SELECT i, 1, '$region' FROM generate_series(400001, 401500) i ORDER BY $order ON CONFLICT (id) DO NOTHING" ],
			'>', \$out, '2>', \$err, IPC::Run::timeout(120)) ];
	}
	for my $run (@runs)
	{
		$run->[2]->finish;
		ok(${ $run->[1] } eq '' || ${ $run->[1] } =~ /ERROR:  (40001|40P01)/, "a bulk first write of $run->[0] succeeds, or may be tried again") or diag(${ $run->[1] });
	}
	$cluster->same_everywhere('profiles', 'racing bulk first writes leave the same rows everywhere');
	# The last parts may still wait for their decision to arrive.
	$cluster->poll('us', 'SELECT count(*) = 1500 FROM profiles WHERE id BETWEEN 400001 AND 401500');
}

# --- a writer that claims nothing keeps the key open until it has ended
{
	my ($key) = fresh_keys('us', 1);
	my ($in, $out, $err) = ("BEGIN; DELETE FROM profiles WHERE id = $key; SELECT 'deleted';\n", '', '');
	my $holder = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('us') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$holder->pump until $out =~ /deleted/;
	$cluster->fails_with('eu', "SET statement_timeout = '1s'; INSERT INTO profiles VALUES ($key, 1)", '57014', 'a claim waits for a writer that has kept the key open');
	$in .= "COMMIT; SELECT 'ended';\n";
	$holder->pump until $out =~ /ended/;
	$in .= "\\q\n";
	$holder->finish;
	$cluster->sql('eu', "INSERT INTO profiles VALUES ($key, 1)");
	known_everywhere($key, 'eu');
}

# --- a key that another session has claimed, and whose claim has not arrived here yet, in a transaction block
{
	my ($key, $other) = fresh_keys('eu', 2);
	$cluster->sql('eu', "INSERT INTO profiles VALUES ($other, 1)");
	known_everywhere($other, 'eu');
	my ($in, $out, $err) = ("BEGIN; LOCK TABLE homing.assignment IN SHARE ROW EXCLUSIVE MODE; SELECT 'locked';\n", '', '');
	my $holder = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('us') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$holder->pump until $out =~ /locked/;
	$cluster->sql('us', "SET synchronous_commit = local; INSERT INTO profiles VALUES ($key, 1)");
	my ($wrote, $failed) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('us'), '-v', 'ON_ERROR_STOP=1', '-c', "BEGIN",
			'-c', "UPDATE profiles SET hits = 10 WHERE id = $other", '-c', "INSERT INTO visits VALUES ($key, 1) RETURNING 'written'", '-c', 'COMMIT' ],
		'>', \$wrote, '2>', \$failed, IPC::Run::timeout(60));
	$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^INSERT INTO visits' AND wait_event_type = 'Extension'});
	$in .= "COMMIT;\n\\q\n";
	$holder->finish;
	$writer->finish;
	is("$wrote$failed", "written\n", 'a key that another session claimed a moment ago is written in a transaction block');
	known_everywhere($key, 'us');
	$cluster->same_everywhere('visits', '… everywhere');
	is($cluster->sql('us', "SELECT hits FROM profiles WHERE id = $other"), '10', '… and what the block wrote before is kept');
}

# --- the same among several rows, that go to several regions
{
	my ($key, $second) = fresh_keys('eu', 2);
	my ($mine) = fresh_keys('us', 1);
	my ($in, $out, $err) = ("BEGIN; LOCK TABLE homing.assignment IN SHARE ROW EXCLUSIVE MODE; SELECT 'locked';\n", '', '');
	my $holder = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('ap') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$holder->pump until $out =~ /locked/;
	$cluster->sql('us', "INSERT INTO profiles VALUES ($key, 1)");
	my ($wrote, $failed) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $cluster->conninfo('ap'), '-v', 'ON_ERROR_STOP=1',
			'-c', "INSERT INTO visits VALUES ($key, 1), ($mine, 2), ($second, 3) RETURNING number" ],
		'>', \$wrote, '2>', \$failed, IPC::Run::timeout(60));
	$cluster->poll('ap', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^INSERT INTO visits' AND wait_event_type = 'Extension'});
	$in .= "COMMIT;\n\\q\n";
	$holder->finish;
	$writer->finish;
	is("$wrote$failed", "1\n2\n3\n", 'a key that another region claimed a moment ago is written with others');
	known_everywhere($key, 'us');
	known_everywhere($_, 'ap') for $mine, $second;
	$cluster->same_everywhere('visits', '… everywhere');
}

# --- moves and losses
my ($moving) = fresh_keys('us', 1);
$cluster->sql('ap', "INSERT INTO profiles VALUES ($moving, 1)");
known_everywhere($moving, 'ap');
for my $to (qw(eu us ap eu))
{
	my ($state, undef, $err);
	do { ($state, undef, $err) = $cluster->try_sql('us', "SELECT homing.assign_key('profiles', $moving, '$to')") } while $state eq '40001';
	is($state, '', "a claimed key is assigned to $to") or diag($err);
	$cluster->sql('us', "UPDATE profiles SET hits = hits + 1 WHERE id = $moving");
}
known_everywhere($moving, 'eu');
is($cluster->sql('us', "SELECT hits FROM profiles WHERE id = $moving"), '5', 'each owner wrote on from the last');
$cluster->converge;
$cluster->kill('ap');
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
my $dead = $cluster->sql('us', q{SELECT count(*) FROM generate_series(220001, 222000) i WHERE homing.home_of('profiles', i) = 'ap'});
is($dead, '0', 'claimed keys of a lost region pass to its heirs with their homes');
$cluster->sql('us', 'UPDATE profiles SET hits = hits + 1 WHERE id BETWEEN 220001 AND 222000');
$cluster->sql('eu', q{INSERT INTO profiles SELECT i, 1 FROM generate_series(500001, 500300) i});
$cluster->poll('us', q{SELECT count(*) = 300 FROM generate_series(500001, 500300) i WHERE homing.home_of('profiles', i) = 'eu'});
$cluster->same_everywhere('profiles', 'survivors are the same');

$cluster->stop;
done_testing();
