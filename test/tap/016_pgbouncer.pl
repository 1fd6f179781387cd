# Clients come through PgBouncer, whose transaction mode gives each of their transactions to whichever session is
# free: transactions over regions are whole all the same, and the sessions' connections to other regions are shared.
use strict;
use warnings;

use BankLoad;
use HomingCluster;
use PostgreSQL::Test::Utils;
use PsqlSession;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 4, settings => "lock_timeout = 2s\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
	CREATE TABLE entries (account int, transfer bigint, amount bigint NOT NULL, PRIMARY KEY (account, transfer))});
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
$cluster->sql('us', 'INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, 60) id');
$cluster->converge;
my %accounts;
push @{ $accounts{ $_->[1] } }, $_->[0]
  for map { [ split /\|/ ] } split /\n/, $cluster->sql('us', q{SELECT id, homing.home_of('accounts', id) FROM accounts});

# --- PgBouncer --------------------------------------------------------------------------------------------

my $directory = PostgreSQL::Test::Utils::tempdir;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = $cluster->sql('us', 'SELECT current_user');
my $databases = join "\n", map { "$_ = " . $cluster->conninfo($_) . " user=$user" } $cluster->names;
append_to_file("$directory/pgbouncer.ini", <<"END");
[databases]
$databases
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits, options
logfile = $directory/pgbouncer.log
END
my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
die 'pgbouncer is not installed' unless defined $program;
my $pid = fork() // die "fork: $!";
if ($pid == 0)
{
	open(STDERR, '>', "$directory/pgbouncer.err");
	exec($program, '-q', "$directory/pgbouncer.ini") or POSIX::_exit(127);
}
END
{
	local $?;
	if (defined $pid && $pid != 0)
	{
		kill 'TERM', $pid;
		waitpid($pid, 0);
	}
}
sub through { my ($region) = @_; return "host=127.0.0.1 port=$port dbname=$region user=$user"; }
my $left = 100;
until ($cluster->node('us')->psql('us', 'SELECT 1', connstr => through('us'), stdout => \my $out, stderr => \my $err) == 0)
{
	die 'pgbouncer does not answer: ' . slurp_file("$directory/pgbouncer.log") if --$left == 0;
	sleep(0.1);
}

# --- transfers --------------------------------------------------------------------------------------------

my $load = BankLoad->start(
	clients => 8,
	conninfos => [ map { through($_) } $cluster->names ],
	accounts => \%accounts,
	seed => 4711,
	dir => $directory);
# The pool's two sessions have one connection to each other region.
for (1 .. 20)
{
	sleep(0.2);
	my $most = $cluster->sql('us', q{SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM homing.sessions GROUP BY region) counts});
	cmp_ok($most, '<=', 2, 'as many connections to a region as the pool has sessions') if $most > 2 || $_ == 20;
}
$load->stop;
$cluster->poll($_, 'SELECT count(*) = 0 FROM pg_prepared_xacts') for $cluster->names;
$cluster->same_everywhere($_) for qw(accounts entries);
is($cluster->sql('us', 'SELECT sum(balance) FROM accounts'), 60_000, 'the total is what it was');
my %entries = map { split /\|/ } split /\n/, $cluster->sql('us', 'SELECT transfer, count(*) FROM entries GROUP BY transfer');
my @transfers = $load->transfers;
my @wrong = grep { ($entries{ $_->{id} } // 0) != ($_->{verdict} eq 'done' ? 2 : 0) } @transfers;
is_deeply(\@wrong, [], 'each transfer ended as it was said to');
my $done = grep { $_->{verdict} eq 'done' } @transfers;
cmp_ok($done, '>', 50, "many went through: $done of " . @transfers);
my @failed = grep { $_->{verdict} ne 'done' && $_->{sqlstate} !~ /^(?:40P01|55P03)$/ } @transfers;
is_deeply(\@failed, [], 'none failed but for the locks of others');

# --- reads ------------------------------------------------------------------------------------------------

# What was committed is remembered by the session that did it, and the next transaction may get the other one. A read at
# the home needs no memory.
my @clients = map { PsqlSession->new(through('us')) } 1 .. 3;
my @stale;
for my $round (1 .. 100)
{
	my $key = $accounts{eu}[ $round % @{ $accounts{eu} } ];
	# Others keep sessions of the pool busy, so that it changes which one is free.
	my ($writer, $other) = @clients[ $round % 3, ($round + 1) % 3 ];
	$writer->run("UPDATE accounts SET balance = $round WHERE id = $key");
	$other->run($_) for 'BEGIN', 'SELECT 1';
	$writer->run($_) for 'BEGIN', 'SET LOCAL homing.read_consistency = home';
	my $read = $writer->value("SELECT balance FROM accounts WHERE id = $key");
	push @stale, "wrote $round and read $read" if $read ne $round;
	$writer->run('COMMIT');
	$other->run('COMMIT');
}
is_deeply(\@stale, [], 'who reads at home reads what was written, through whichever session');
$_->close for @clients;

$cluster->stop;
done_testing();
