# COPY and INSERT … SELECT of many rows take the same memory as few, in the session and at every home, and so do many
# statements. MEMORY_ROWS is the number of rows; `make soak` takes 10 million.
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use PsqlSession;
use Test::More;

plan skip_all => 'needs /proc' unless -r "/proc/$$/status";
my $rows = $ENV{MEMORY_ROWS} // 150_000;
my $limit = 64 * 1024;    # KiB over idle
# Few rows would hide what grows with them: more than 64 bytes for each are too many.
$limit = 16 * 1024 + int($rows * 64 / 1024) if 16 * 1024 + $rows * 64 / 1024 < $limit;
$PostgreSQL::Test::Utils::timeout_default = 180 + int($rows / 2000);

# Shared memory that a process touches counts as its own: there is little.
my $cluster = HomingCluster->new(regions => [qw(us eu ap)], settings => <<'END');
shared_buffers = 4MB
max_wal_size = 1GB
fsync = off
END
$cluster->form;
$cluster->sql('us', 'CREATE TABLE loaded (id int PRIMARY KEY, n bigint, filler text)');
$cluster->sql('us', q{SELECT homing.home_table('loaded', 'id')});

my $session = PsqlSession->new($cluster->conninfo('us'));
my $load = sub {
	my ($what, $first, $count) = @_;
	my $last = $first + $count - 1;
	return "COPY loaded FROM PROGRAM 'seq $first $last | sed \"s/.*/&\t&\tfiller of the row &/\"'" if $what eq 'COPY';
	return "INSERT INTO loaded SELECT i, i, 'filler of the row ' || i FROM (SELECT generate_series($first, $last) i) s";
};

# The most that a process has had in memory so far, in KiB.
sub peak
{
	my ($pid) = @_;
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $peak;
}

# What a session has after a load of few rows: its caches are filled.
$session->run($load->($_, $_ eq 'COPY' ? 1 : 2001, 2000)) for qw(COPY INSERT);
my $here = $session->value('SELECT pg_backend_pid()');
my %pid = ('the session' => $here, map { split /,/ } split /\n/,
	$session->value(q{SELECT 'its session at ' || region, remote_pid FROM homing.sessions WHERE local_pid = pg_backend_pid()}));
is(scalar(keys %pid), 3, 'the session and those at two other homes are watched');
my %idle = map { $_ => peak($pid{$_}) } keys %pid;

my $first = 4001;
for my $what ('COPY', 'INSERT')
{
	my $result = $session->run($load->($what, $first, $rows));
	is($result->{sqlstate}, '', "$what of $rows rows") or diag($result->{message});
	$first += $rows;
	for my $who (sort keys %pid)
	{
		my $grown = peak($pid{$who}) - $idle{$who};
		cmp_ok($grown, '<', $limit, "$what: $who took $grown KiB over idle");
	}
}
is($session->value('SELECT pg_backend_pid()'), $here, 'in the same session all the time');
$cluster->poll($_, 'SELECT count(*) = ' . (4000 + 2 * $rows) . ' FROM loaded') for $cluster->names;
pass('all rows are everywhere');
$session->close;

# 100,000 statements of one session, each in a transaction of its own. Here it is the memory of each process alone that
# counts: that it touches more and more of what is shared is no leak.
my $memory = q{SELECT string_agg(substring(pg_read_file('/proc/' || pid || '/status', 0, 5000) FROM 'RssAnon:\s+(\d+) kB'), ' ' ORDER BY n)
	FROM (SELECT 1, pg_backend_pid() UNION ALL SELECT 2, remote_pid FROM homing.sessions WHERE local_pid = pg_backend_pid() AND region = 'eu') AS s (n, pid);};
my @of_eu = split /\n/, $cluster->sql('us', q{SELECT id FROM loaded WHERE homing.home_of('loaded', id) = 'eu' ORDER BY id LIMIT 100});
my $statements = join '', map { "UPDATE loaded SET n = n + 1, filler = 'statement $_' WHERE id = $_;\n" } @of_eu;
my @alone = map { [ split / / ] } split /\n/, $cluster->sql('us', ($statements x 20) . $memory . ($statements x 1000) . $memory);
is(scalar(grep { /^\d+$/ } map { @$_ } @alone), 4, 'both sessions tell their memory, before and after');
for my $who (0, 1)
{
	my $what = ('the session', 'its session at eu')[$who] . ': 100,000 forwarded statements';
	cmp_ok($alone[1][$who] - $alone[0][$who], '<=', 512, "$what: $alone[1][$who] KiB after $alone[0][$who]");
}

# What PostgreSQL cannot send in one message is refused before it is sent, and the session goes on. That takes some
# gigabytes: MEMORY_HUGE=1.
SKIP:
{
	skip 'needs MEMORY_HUGE', 5 unless $ENV{MEMORY_HUGE};
	$cluster->sql('us', q{CREATE TABLE huge (id int PRIMARY KEY, one bytea, two bytea);
		SELECT homing.home_table('huge', 'id', placement => 'region', region => 'eu')});
	my $huge = PsqlSession->new($cluster->conninfo('us'));
	for my $case ([ 'one value', "convert_to(repeat('x', 540000000), 'UTF8'), NULL" ],
		[ 'several values', ("convert_to(repeat('x', 300000000), 'UTF8')") x 2 ])
	{
		my ($what, @values) = @$case;
		$huge->run(sprintf('PREPARE fill AS INSERT INTO huge VALUES (1, %s)', @values == 2 ? '$1, $2' : '$1, NULL'));
		my $result = $huge->run(sprintf('EXECUTE fill(%s)', @values == 2 ? join(', ', @values) : $values[0] =~ s/, NULL//r));
		is($result->{sqlstate}, '54000', "$what: too large is said to be") or diag($result->{message});
		$huge->run('DEALLOCATE fill');
	}
	is($huge->run("INSERT INTO huge VALUES (1, 'x', 'y')")->{sqlstate}, '', 'the session goes on');
	is($huge->run("INSERT INTO huge VALUES (2, convert_to(repeat('x', 200000000), 'UTF8'), NULL)")->{sqlstate}, '', 'large values are sent');
	$cluster->poll('us', 'SELECT octet_length(one) = 200000000 FROM huge WHERE id = 2');
	pass('and come back');
	$huge->close;
}

$cluster->stop;
done_testing();
