# The tables of a lost region between its leaving the cluster and its joining again: nobody writes them unseen, a reader is
# not in the way, and what is not homed any more is said.
use strict;
use warnings;

use HomingCluster;
use Test::More;

# No slot to spare: those that a returning region had count once.
my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0,
	settings => "homing.fencing = operator\nrestart_after_crash = on\nhoming.relay_retention = 64MB\nmax_replication_slots = 4\n");
$cluster->form;
my %key = $cluster->accounts;
$cluster->sql('us', q{CREATE TABLE readings (id int PRIMARY KEY, value int) PARTITION BY RANGE (id);
	CREATE TABLE readings_1 PARTITION OF readings FOR VALUES FROM (1) TO (1001);
	INSERT INTO readings SELECT i, i FROM generate_series(1, 1000) i;
	CREATE TABLE notes (id int PRIMARY KEY, note text);
	INSERT INTO notes SELECT i, 'old' FROM generate_series(1, 10) i;
	CREATE TABLE pages (id int PRIMARY KEY, page text NOT NULL)});
$cluster->sql('us', "SELECT homing.home_table('$_', 'id')") for qw(readings notes pages);
$cluster->same_everywhere($_) for qw(accounts readings notes);

# No second tail slot: passing something on takes one more.
$cluster->poll($_, 'SELECT count(*) = 1 AND bool_and(current AND taken IS NULL) FROM homing.tail_slot') for qw(us eu);

# While ap is away a table is not homed any more, and another one gets more rows than ap's WAL may keep for the others.
$cluster->kill('ap');
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->sql('us', q{SELECT homing.unhome_table('notes'); });
$cluster->sql('us', q{UPDATE notes SET note = 'new'});
$cluster->sql('us', 'UPDATE readings SET value = -value WHERE id <= 10');
$cluster->sql('us', q{INSERT INTO pages SELECT i, repeat('x', 1000) FROM generate_series(1, 90000) i});
$cluster->sql('us', "UPDATE accounts SET balance = 7 WHERE id = $key{ap}");

$cluster->start('ap');
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
my ($state) = $cluster->try_sql('ap', q{SET homing.debug_point = 'rejoin-left'; SELECT homing.rejoin()});
is($state, 'psql exit code 2', 'the region has left, and is not back yet');
$cluster->poll('ap', 'SELECT true');

my $hint = qr/To use the table without the cluster, as superuser: SELECT homing\._remove_guard\('public\.readings'\)/;
$cluster->fails_with('ap', 'UPDATE readings SET value = 0 WHERE id = 1', '25006', 'a copy is not written', $hint);
$cluster->fails_with('ap', 'UPDATE readings_1 SET value = 0 WHERE id = 1', '25006', 'nor is a partition of it', $hint);

# What a new partition got is not overwritten.
my $join = sprintf(q{SELECT homing.join_cluster('ap', '%s', via => '%s')},
	map { $cluster->sql('us', "SELECT replace(homing._region_conninfo('$_'), '''', '''''')") } qw(ap us));
$cluster->sql('ap', 'CREATE TABLE readings_2 PARTITION OF readings FOR VALUES FROM (1001) TO (2001); INSERT INTO readings_2 VALUES (1500, 1)');
$cluster->fails_with('ap', $join, '55000', 'rows that are no copy stop the join', qr/table "public\.readings_2" is not empty/);
is($cluster->sql('ap', 'SELECT count(*) FROM readings_2'), '1', 'and are still there');
$cluster->sql('ap', 'DROP TABLE readings_2');

# A reader that was there before, and stays.
my $reader = $cluster->node('ap')->background_psql('app');
$reader->query_safe('BEGIN; SELECT count(*) FROM accounts; SELECT count(*) FROM readings; SELECT count(*) FROM notes');
my ($error, undef, $said) = $cluster->try_sql('ap', $join);
is($error, '', 'a long reader does not keep the region from joining') or diag($said);
like($said, qr/WARNING:.*table "public\.notes" is not homed any more/, 'it tells what is not homed any more');
unlike($said, qr/table "(?!public\.notes)/, 'and of nothing else');
$reader->query_safe('COMMIT');
$reader->quit;
$cluster->_use_links;

$cluster->same_everywhere($_, "$_ are the same") for qw(accounts readings pages);
$cluster->sql('ap', 'UPDATE readings SET value = value + 1 WHERE id <= 100');
$cluster->same_everywhere('readings', 'all is written again');

is($cluster->sql('ap', 'SELECT DISTINCT note FROM notes'), 'old', 'a table that is not homed any more has the rows that ap had');
$cluster->fails_with('ap', q{UPDATE notes SET note = 'newer'}, '25006', 'which nobody takes for others', qr/_remove_guard\('public\.notes'\)/);
$cluster->sql('ap', q{SELECT homing._remove_guard('notes')});
$cluster->sql('ap', q{UPDATE notes SET note = 'newer'});
$cluster->converge;
is($cluster->sql('us', 'SELECT DISTINCT note FROM notes'), 'new', 'without the guard it is a table like any other');

# What ap applied in joining is more than it may keep for others, and yet it can pass on from its first day.
cmp_ok($cluster->sql('ap', 'SELECT pg_total_relation_size(\'pages\')'), '>', 64 * 1024 * 1024, 'joining wrote more than relay_retention');
$cluster->sql('ap', 'SELECT pg_switch_wal()');
$cluster->poll('ap', q{SELECT count(*) = 1 FROM homing.tail_slot t JOIN pg_replication_slots s ON s.slot_name = t.slot
	WHERE t.current AND t.taken IS NULL AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) < 64 * 1024 * 1024});
is($cluster->sql('ap', q{SELECT count(*) FROM homing.events WHERE kind ~ '^tail_slot'}), '0', 'and it never gave its slot up');

# Without room for a next one it is given up, and taken anew.
$cluster->poll('ap', 'SELECT count(*) = 1 AND bool_and(current AND taken IS NULL) FROM homing.tail_slot');
$cluster->sql('ap', q{SELECT pg_create_physical_replication_slot('spare')});
$cluster->sql('ap', q{SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000)) FROM generate_series(1, 80)});
$cluster->sql('ap', 'UPDATE accounts SET balance = 8 WHERE id = 1; CHECKPOINT');
$cluster->poll('ap', q{SELECT count(*) = 1 FROM homing.events WHERE kind = 'tail_slot_dropped'});
$cluster->poll('ap', q{SELECT count(*) = 1 FROM homing.tail_slot t JOIN pg_replication_slots s ON s.slot_name = t.slot
	WHERE t.current AND t.taken IS NULL AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn) < 64 * 1024 * 1024});
pass('no more is kept than relay_retention');

$cluster->stop;
done_testing();
