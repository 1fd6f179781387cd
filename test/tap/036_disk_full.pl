# A disk that is full, at the home and at another region (PROTOCOL §3 rows 14 and 15). A limit on the size of files stands
# for it: a table that reaches it, or a new file of the write-ahead log, cannot be written.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)],
	settings => "homing.fencing = operator\nwal_retrieve_retry_interval = 200ms\nmax_slot_wal_keep_size = 64MB\nrestart_after_crash = off\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE pages (id int PRIMARY KEY, filler text NOT NULL)');
$cluster->sql('us', 'ALTER TABLE pages ALTER filler SET STORAGE PLAIN');
$cluster->sql('us', q{SELECT homing.home_table('pages', 'id', placement => 'region', region => 'us')});
$cluster->poll('eu', q{SELECT count(*) = 1 FROM homing.tables WHERE state = 'active'});
my $filler = q{SELECT i, repeat('x', 3900) FROM generate_series};

my $megabyte = 1024 * 1024;

# --- row 15: the other region cannot apply -------------------------------------------------------------------------
$cluster->limit_files('eu', 17 * $megabyte);
$cluster->sql('eu', q{SELECT pg_terminate_backend(pid) FROM pg_stat_subscription WHERE pid IS NOT NULL});
$cluster->sql('us', "INSERT INTO pages $filler(1, 5000) i");
$cluster->node('eu')->wait_for_log(qr/could not extend file .*File too large/);
$cluster->sql('us', "INSERT INTO pages $filler(5001, 10000) i");
$cluster->poll('us', q{SELECT count(*) = 1 FROM homing.events WHERE kind = 'retained_wal' AND region = 'eu'});
pass('us tells that it keeps more than half of what it may for eu');
is($cluster->sql('us', q{SELECT wal_status IN ('reserved', 'extended') FROM pg_replication_slots WHERE slot_name = homing._stream_name(1::int2, 2::int2)}),
	't', 'and keeps it');
is($cluster->sql('eu', 'SELECT count(*) FROM pages'), '0', 'eu has nothing of what it could not apply');
is($cluster->sql('eu', q{UPDATE pages SET filler = 'y' WHERE id = 1 RETURNING id}), '1', 'it forwards writes all the same');
$cluster->limit_files('eu', 'unlimited');
$cluster->same_everywhere('pages', 'with room again, it has everything');
is($cluster->sql('us', q{SELECT count(*) FROM homing.events WHERE kind = 'retained_wal'}), '1', 'that was told once');

# --- row 14: the home cannot write -----------------------------------------------------------------------------------
my $table_size = $cluster->sql('us', q{SELECT pg_relation_size('pages')});
$cluster->limit_files('us', $table_size);
for my $at (qw(us eu))
{
	# The sessions that eu had there know of no limit.
	my ($state, undef, $message) = $cluster->try_sql($at, "INSERT INTO pages $filler(20001, 20100) i");
	isnt($state, '', "$at: a row for which there is no room is refused");
	like($message, qr/could not extend file/, "$at: with what the home says");
}
is($cluster->sql('us', 'SELECT count(*) FROM pages WHERE id > 20000'), '0', 'nothing of it is there');
is($cluster->sql('us', q{UPDATE pages SET filler = 'z' WHERE id = 2 RETURNING id}), '2', 'what has room is written');

# No further file of the write-ahead log: the server cannot go on.
$cluster->limit_files('us', 4 * $megabyte);
my @acknowledged;
for my $id (30001 .. 30100)
{
	my ($state) = $cluster->try_sql($id % 2 ? 'us' : 'eu', "INSERT INTO pages VALUES ($id, 'written')");
	last if $state ne '';
	push @acknowledged, $id;
	($state) = $cluster->try_sql('us', q{SELECT pg_switch_wal()});
	last if $state ne '';
}
cmp_ok(scalar(@acknowledged), '<', 100, 'the home stops');
$cluster->node('us')->wait_for_log(qr/PANIC: .*No space left|PANIC: .*File too large|could not write to file "pg_wal/);
my ($state) = $cluster->try_sql('eu', q{INSERT INTO pages VALUES (40000, 'not written')});
like($state, qr/^08/, 'a write of its homes fails, and is not acknowledged');
$cluster->node('us')->stop('immediate', fail_ok => 1);
unlink $cluster->node('us')->data_dir . '/postmaster.pid';
$cluster->node('us')->start;
is($cluster->sql('us', 'SELECT count(*) FROM pages WHERE id IN (' . join(',', 0, @acknowledged) . ')'), scalar(@acknowledged),
	'with room again, everything is there that was acknowledged');
$cluster->poll('eu', q{SELECT last_seen > clock_timestamp() - interval '2 s' FROM homing.regions WHERE name = 'us'});
$cluster->sql('eu', q{INSERT INTO pages VALUES (50000, 'written again')});
$cluster->same_everywhere('pages');

$cluster->stop;
done_testing();
