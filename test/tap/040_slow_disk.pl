# A disk that stalls: the region keeps its lease and its homes, acknowledges nothing and votes for nothing (PROTOCOL §3
# row 18). And one without room for what decoding puts aside: the stream is late, and that is all (row 69).
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use PsqlSession;
use Test::More;

my $lease = 2;  # s
my $cluster = do
{
	local $ENV{LD_PRELOAD} = $ENV{STALLING_DISK};
	HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0,
		settings => "fsync = on\nshared_buffers = 64MB\nhoming.lease_duration = ${lease}s\nhoming.connect_timeout = 1s\nlogical_decoding_work_mem = 64kB\n");
};
$cluster->form;
my %key = $cluster->accounts;
$cluster->sql('us', 'CREATE TABLE pages (id int PRIMARY KEY, n int NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('pages', 'id', placement => 'region', region => 'us')});
$cluster->same_everywhere('accounts');

my $lease_left = q{SELECT extract(epoch FROM r.lease_left) AS remaining FROM homing.regions r JOIN homing.member m USING (name)
	JOIN homing.local_region l USING (region_id)};
$cluster->poll($_, "SELECT remaining > 0 FROM ($lease_left) l") for $cluster->names;

# --- row 69 ------------------------------------------------------------------------------------------------------------
# Room for a file of the write-ahead log, but not for the changes that are in it.
$cluster->limit_files('us', 17 * 1024 * 1024);
$cluster->sql('us', 'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active');
$cluster->sql('us', 'INSERT INTO pages SELECT i, i FROM generate_series(1, 300000) i');
$cluster->node('us')->wait_for_log(qr/could not write to data file for XID \d+: /);
is($cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$_} RETURNING balance"), '1', "$_ serves while a stream stands still")
  for $cluster->names;
is($cluster->sql('eu', 'SELECT count(*) FROM pages'), '0', 'which it does');
$cluster->limit_files('us', 'unlimited');
$cluster->same_everywhere($_, "with room again, it brings $_") for qw(pages accounts);

# --- row 18 ------------------------------------------------------------------------------------------------------------
my $stalled = $cluster->node('us')->data_dir . '/stalled';
append_to_file($stalled, '');
my $writer = PsqlSession->new($cluster->conninfo('us'));
$writer->send("UPDATE accounts SET balance = balance + 100 WHERE id = $key{us} RETURNING 1");
$cluster->poll('us', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event IN ('WALSync', 'WALWrite')});

# Three leases long.
my ($last, $until) = (0, $cluster->sql('us', 'SELECT extract(epoch FROM clock_timestamp())') + 3 * $lease);
my ($went_back, $ran_out, $now) = (0, 0, 0);
while ($now < $until)
{
	($now, my $remaining) = split /\|/, $cluster->sql('us', "SELECT extract(epoch FROM clock_timestamp()), remaining FROM ($lease_left) l");
	$ran_out++ if $remaining <= 0;
	$went_back++ if $now + $remaining < $last - 0.05;  # by more than the time between two looks at the clock
	$last = $now + $remaining;
	$cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$_}") for qw(eu ap);
}
is($ran_out, 0, 'the lease of a region whose disk stalls is renewed');
is($went_back, 0, 'and never ends earlier than it did');
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{us}"), '1', 'its write is not there yet');
unlink $stalled or BAIL_OUT("$stalled: $!");
is($writer->receive->{sqlstate}, '', 'when the disk is back, the write is acknowledged');
$writer->close;
$cluster->same_everywhere('accounts', 'and all receive it');

# With ap gone, a majority needs the vote of us, which would have to be on its disk.
append_to_file($stalled, '');
$cluster->kill('ap');
my (undef, undef, $refused) = $cluster->try_sql('eu', q{SET statement_timeout = '5s'; SELECT homing.declare_lost('ap')});
isnt($refused, '', 'a loss is not declared');
is($cluster->sql('us', q{SELECT count(*) FROM homing.member WHERE name = 'ap' AND status = 'active'}), '1', 'us has not adopted anything');
isnt($cluster->sql('eu', q{SELECT status FROM homing.member WHERE name = 'ap'}), 'lost', 'nor is ap lost for eu');

unlink $stalled or BAIL_OUT("$stalled: $!");
# Perhaps by what was begun before.
$cluster->poll('eu', q{SELECT (homing.declare_lost('ap')->>'epoch') IS NOT NULL});
$cluster->poll('us', q{SELECT status = 'lost' FROM homing.regions WHERE name = 'ap'});
is($cluster->sql('eu', "SELECT balance FROM accounts WHERE id = $key{us}"), '101', 'the write has counted once');
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1000 WHERE id = $key{ap}");
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
