# Whoever writes at any region reads it back here at once: with homing.read_consistency = session, and = home.
# Meanwhile others write, and the regions are some way apart (PROTOCOL §3 row 60; after a loss: 002_lost).
#
# READS_ROUNDS sets how often for each of the two (250); make soak does it 10,000 times.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PsqlSession;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{READS_ROUNDS} // 250;
# A busy machine may keep a lease from being renewed for seconds: no matter here.
my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 6, settings => "homing.lease_duration = 60s\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL);
	CREATE TABLE notes (id int PRIMARY KEY, text text);
	SELECT homing.home_table('counters', 'id')});
$cluster->sql('us', 'INSERT INTO counters SELECT id, 0 FROM generate_series(1, 200) id');
$cluster->converge;
my %keys;
push @{ $keys{ $_->[1] } }, $_->[0]
  for map { [ split /\|/ ] } split /\n/, $cluster->sql('us', q{SELECT id, homing.home_of('counters', id) FROM counters WHERE id <= 100});
my @regions = $cluster->names;

# --- what a read at home is -------------------------------------------------------------------------------

my $reader = PsqlSession->new($cluster->conninfo('us'));
$reader->run('SET homing.read_consistency = home');
for my $region (@regions)
{
	my $key = $keys{$region}[0];
	# Written at its home, so that nothing tells this session of it, and held back on the way here.
	$cluster->wan->command('drop', "us-$region") if $region ne 'us';
	$cluster->sql($region, "UPDATE counters SET n = 5 WHERE id = $key");
	is($cluster->sql('us', "SET homing.read_consistency = eventual; SELECT n FROM counters WHERE id = $key"), $region eq 'us' ? 5 : 0,
		"what is here of $region");
	$cluster->wan->command('heal', "us-$region") if $region ne 'us';
	is($reader->value("SELECT n FROM counters WHERE id = $key"), 5, "a row of $region is read there");
	is($reader->value("SELECT sum(n) FROM counters WHERE id IN ($key, $keys{$region}[1])"), 5, 'and several');
}
my ($us, $eu, $ap) = map { $keys{$_}[0] } qw(us eu ap);
is($reader->run('SELECT sum(n) FROM counters')->{sqlstate}, '0A000', 'without keys it is refused');
is($reader->run("SELECT n FROM counters WHERE id IN ($us, $eu)")->{sqlstate}, '0A000', 'with keys of several regions, too');
is($reader->run('COPY counters TO STDOUT')->{sqlstate}, '0A000', 'so is COPY');
is($reader->run("INSERT INTO notes SELECT id, n FROM counters WHERE id = $eu")->{sqlstate}, '0A000', 'and a write here that reads rows');
is($reader->run("SELECT n FROM counters JOIN notes USING (id) WHERE counters.id = $eu")->{sqlstate}, '0A000', 'and a join with what only this region has');
is($reader->value("SELECT n FROM counters LEFT JOIN notes USING (id) WHERE counters.id = $us"), 5, 'unless the rows are at home here');
is($reader->value("SELECT n FROM counters WHERE id = $eu FOR UPDATE"), 5, 'a row is locked at its home');
my $plan = join "\n", @{ $reader->run("EXPLAIN (COSTS OFF) SELECT n FROM counters WHERE id = $eu")->{rows} };
like($plan, qr/Custom Scan \(Homed Read\).*Home: eu/s, 'EXPLAIN says where');
$reader->run($_) for 'BEGIN', "UPDATE counters SET n = n + 1 WHERE id = $eu";
is($reader->value("SELECT n FROM counters WHERE id = $eu"), 6, 'a transaction sees its own write');
is($reader->value("SELECT n FROM counters WHERE id = $ap"), 5, 'and another home');
$reader->run('ROLLBACK');
$reader->run($_) for 'BEGIN ISOLATION LEVEL REPEATABLE READ', "SELECT n FROM counters WHERE id = $eu";
$cluster->sql('eu', "UPDATE counters SET n = n + 1 WHERE id = $eu");
is($reader->value("SELECT n FROM counters WHERE id = $eu"), 5, 'REPEATABLE READ keeps one snapshot of a region');
$reader->run('COMMIT');
is($reader->value("SELECT n FROM counters WHERE id = $eu"), 6, 'until it ends');
$cluster->sql('us', "SELECT homing.assign_key('counters', $eu, 'ap')");
$cluster->poll('ap', "SELECT homing.home_of('counters', $eu)", 'ap');
$cluster->sql('ap', "UPDATE counters SET n = 50 WHERE id = $eu");
is($reader->value("SELECT n FROM counters WHERE id = $eu"), 50, 'a key that has moved is read at its new home');
$reader->close;

# --- what a token tells of --------------------------------------------------------------------------------

# The session has seen at us what it wrote at eu. At ap it has not arrived.
my $writer = PsqlSession->new($cluster->conninfo('us'));
$cluster->wan->command('drop', 'ap-eu');
my $n = 100;
for my $write ([ "UPDATE counters SET n = %d WHERE id = $keys{eu}[2]" ],
	[ 'BEGIN', "UPDATE counters SET n = %d WHERE id = $keys{eu}[2]", "UPDATE counters SET n = n + 1 WHERE id = $keys{us}[2]", 'COMMIT' ])
{
	my $what = @$write == 1 ? 'a statement' : 'a transaction of two regions';
	$n++;
	$writer->run(/%d/ ? sprintf($_, $n) : $_) for @$write;
	is($writer->value("SELECT n FROM counters WHERE id = $keys{eu}[2]"), $n, "$what: the session sees it");
	my ($told) = $writer->value('SELECT homing.causal_token()') =~ /([^"]+)/;
	is($cluster->sql('ap', "SELECT homing.wait_for('$told', '100 ms')"), 'f', "$what: another region does not yet");
	$cluster->wan->command('heal', 'ap-eu');
	is($cluster->sql('ap', "SELECT homing.wait_for('$told', '30 s'); SELECT n FROM counters WHERE id = $keys{eu}[2]"), "t\n$n", "$what: it waits for it");
	$cluster->wan->command('drop', 'ap-eu');
}
# A write at ap that reads a row of eu there waits for it as well, and reads nothing old.
$cluster->sql('ap', q{ALTER DATABASE app SET homing.read_timeout = '200ms'});
my $copier = PsqlSession->new($cluster->conninfo('us'));
$copier->run("SET homing.read_timeout = '200ms'");
$copier->run("UPDATE counters SET n = 200 WHERE id = $keys{eu}[3]");
my $copy = "UPDATE counters SET n = (SELECT n FROM counters WHERE id = $keys{eu}[3]) WHERE id = $keys{ap}[3] RETURNING n";
my @blocks = ([], ['BEGIN'], ['BEGIN ISOLATION LEVEL REPEATABLE READ']);
for my $block (@blocks)
{
	$copier->run($_) for @$block;
	like($copier->run($copy)->{message}, qr/could not read what the session has committed/, "@$block: not without it");
	$copier->run('ROLLBACK') if @$block;
}
$cluster->wan->command('heal', 'ap-eu');
$cluster->converge;
for my $block (@blocks)
{
	$copier->run($_) for @$block;
	is($copier->run($copy)->{rows}[0], 200, "@$block: when it has arrived");
	$copier->run('COMMIT') if @$block;
}
$copier->close;
$cluster->sql('ap', q{ALTER DATABASE app RESET homing.read_timeout});
$writer->close;

# --- the checker ------------------------------------------------------------------------------------------

# Streams have something else to carry.
my $script = PostgreSQL::Test::Utils::tempdir . '/load.sql';
append_to_file($script, "\\set id random(101, 200)\nUPDATE counters SET n = n + 1 WHERE id = :id;\n");
my @load = map {
	IPC::Run::start([ 'pgbench', '-n', '-h', $cluster->node($_)->host, '-p', $cluster->node($_)->port, '-c', '2', '-T', '3600', '-R', '200', '-f', $script, 'app' ],
		'>', File::Spec->devnull, '2>', File::Spec->devnull)
} @regions;

srand(4711);
my %sessions = map { $_ => PsqlSession->new($cluster->conninfo($_)) } @regions;
my %stale;
for my $mode (qw(session home))
{
	$_->run("SET homing.read_consistency = $mode") for values %sessions;
	my ($checks, $errors) = (0, 0);
	for my $round (1 .. $rounds)
	{
		my ($here, $home) = map { $regions[ int(rand(@regions)) ] } 1, 2;
		my $key = $keys{$home}[ int(rand(@{ $keys{$home} })) ];
		my $session = $sessions{$here};
		my $other = $keys{ $regions[ int(rand(@regions)) ] }[1];
		# By itself, in a block, and with a second writer.
		my @write = ("UPDATE counters SET n = n + 1 WHERE id = $key RETURNING n");
		@write = ('BEGIN', @write, 'COMMIT') if $round % 3 == 1;
		@write = ('BEGIN', "UPDATE counters SET n = n + 1 WHERE id = $other", @write, 'COMMIT') if $round % 3 == 2;
		my $written;
		for my $statement (@write)
		{
			my $result = $session->run($statement);
			$errors++ if $result->{sqlstate} ne '';
			($written) = grep { /^\d+$/ } @{ $result->{rows} } if $statement =~ /RETURNING/;
		}
		my $read = $session->value("SELECT n FROM counters WHERE id = $key");
		$checks++;
		push @{ $stale{$mode} }, "$here wrote $written of key $key at $home and read $read" if $read ne $written;
		# Another session, at another region, that is told of it.
		next if $round % 10;
		my $there = $regions[ int(rand(@regions)) ];
		my ($token) = $session->value('SELECT homing.causal_token()') =~ /([^"]+)/;    # CSV
		my $answer = $sessions{$there}->run("SELECT homing.wait_for('$token', '30 s')");
		my $reached = $answer->{rows}[0] // "$answer->{sqlstate} $answer->{message} for token $token";
		$read = $sessions{$there}->value("SELECT n FROM counters WHERE id = $key");
		push @{ $stale{$mode} }, "$there was told of $written of key $key and read $read ($reached)" if $reached ne 't' || $read < $written;
	}
	is($errors, 0, "$mode: every write is done");
	is(scalar(@{ $stale{$mode} // [] }), 0, "$mode: no stale read in $checks") or diag(explain($stale{$mode}));
}
$_->close for values %sessions;
for my $load (@load)
{
	$load->signal('TERM');
	IPC::Run::finish($load);
}
$cluster->same_everywhere('counters');

$cluster->stop;
done_testing();
