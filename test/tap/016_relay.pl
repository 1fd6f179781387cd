# A region is lost whose last changes only one survivor has: it passes them on to the others.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 0);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, note text)');
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 600)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{SELECT homing.set_heirs('ap', ARRAY['eu', 'us'])});
$cluster->same_everywhere('accounts');

sub keys_of
{
	my ($owner) = @_;
	return split /\n/, $cluster->sql('us', qq{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = '$owner' ORDER BY id});
}
my @of_ap = keys_of('ap');
my @of_us = keys_of('us');

# How far region $at has applied the stream of ap.
sub applied
{
	my ($at) = @_;
	return $cluster->sql($at, q{SELECT homing._applied_positions()->>(SELECT region_id::text FROM homing.member WHERE name = 'ap')});
}

# Each region keeps what it applies: from here on, it could pass it on. Who joined third finds that so at the others.
for my $region (qw(eu ap))
{
	is($cluster->sql($region, q{SELECT count(*) FROM homing.tail_slot t WHERE t.current AND t.taken IS NULL
		AND NOT EXISTS (SELECT FROM homing.member m, homing.local_region l WHERE m.region_id <> l.region_id AND NOT t.positions ? m.region_id::text)}),
		'1', "$region could pass on all from the beginning");
}
for my $region (qw(us eu ap))
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM homing.tail_slot WHERE current AND taken IS NULL});
}

# What all have is not kept for ever: with enough WAL, the slot is taken anew.
my $old_slot = $cluster->sql('us', 'SELECT restart_lsn FROM pg_replication_slots JOIN homing.tail_slot ON slot = slot_name WHERE current');
for (1 .. 6)
{
	$cluster->sql('us', "UPDATE accounts SET balance = balance WHERE id = $of_us[0]; SELECT pg_switch_wal()");
}
$cluster->converge;
$cluster->poll('us', qq{SELECT restart_lsn > '$old_slot' FROM pg_replication_slots JOIN homing.tail_slot ON slot = slot_name WHERE current});
$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name ~ '_tail_'});

# eu is cut off from ap, us is not. A home that ap gives to us in this time is written there at once.
$cluster->wan->command('drop', 'eu-ap');
my $before = applied('eu');
my $given = $cluster->sql('us', qq{SELECT home FROM homing.homes WHERE owner = 'ap' ORDER BY home LIMIT 1});
$cluster->sql('ap', qq{UPDATE accounts SET balance = balance + id WHERE id IN (@{[ join ', ', @of_ap ]})});
$cluster->sql('ap', qq{DELETE FROM accounts WHERE id IN ($of_ap[1], $of_ap[2])});
$cluster->sql('ap', qq{INSERT INTO accounts VALUES ($of_ap[1], 77, 'again')});
$cluster->sql('ap', qq{BEGIN; UPDATE accounts SET note = 'one' WHERE id = $of_ap[3]; SAVEPOINT s;
	UPDATE accounts SET note = repeat('two', 5000) WHERE id = $of_ap[3]; COMMIT});
$cluster->sql('ap', qq{SELECT homing.hand_over('accounts', 'ap', 'us', ARRAY[$given])});
$cluster->sql('us', q{UPDATE accounts SET note = 'written by us' WHERE homing.home_of('accounts', id) = 'us'});
my $end = $cluster->sql('ap', 'SELECT pg_current_wal_flush_lsn()');
$cluster->poll('ap', qq{SELECT confirmed_flush_lsn >= '$end' FROM pg_replication_slots JOIN homing.member m ON m.name = 'us'
	WHERE slot_name = homing._stream_name((SELECT region_id FROM homing.local_region), m.region_id)});
is(applied('eu'), $before, 'eu has none of it');
my $truth = $cluster->fingerprint('us', 'accounts');
isnt($cluster->fingerprint('eu', 'accounts'), $truth, 'and so the survivors differ');
$cluster->kill('ap');

# us has all, and passes it on before anybody serves.
my $declare = q{SELECT homing.declare_lost('ap', force => true, reason => 'the test killed it')};
my (undef, undef, $notices) = $cluster->try_sql('us', $declare);
like($notices, qr/region "eu" has received the last changes of region "ap" from region "us"/, 'it says what it does');
is($cluster->sql($_, q{SELECT status FROM homing.regions WHERE name = 'ap'}), 'lost', "$_: ap is lost") for qw(us eu);
is($cluster->fingerprint('us', 'accounts'), $truth, 'us has what it had');
$cluster->same_everywhere('accounts', 'eu has the same');
$cluster->same_everywhere('homing.ownership', 'and knows who owns what');
is($cluster->sql('eu', "SELECT homing.home_of('accounts', $of_ap[3])"), 'eu', 'eu is the heir');
$cluster->sql('eu', "UPDATE accounts SET balance = balance + 1 WHERE id = $of_ap[3]");
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $of_ap[3]");
$cluster->same_everywhere('accounts', 'the heir goes on from the last write');
is($cluster->sql('eu', "SELECT balance || ' ' || length(note) FROM accounts WHERE id = $of_ap[3]"), ($of_ap[3] + 2) . ' 15000', 'none is lost');
for my $region (qw(us eu))
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_replication_slots});
	is($cluster->sql($region, 'SELECT count(*) FROM pg_subscription'), '1', "$region: one subscription is left");
	$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_replication_origin});
}

$cluster->stop;
done_testing();
