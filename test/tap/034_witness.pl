# Two regions and a witness, a voter without data: either region goes on alone with it, and neither without a majority
# (PROTOCOL §3 row 39).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)], witness => 'w', rtt_ms => 2,
	settings => "homing.lease_duration = 2s\nhoming.connect_timeout = 1s\n");
# It need not be able to replicate.
$cluster->node('w')->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 0\nmax_replication_slots = 0\n"
	. "max_prepared_transactions = 0\nmax_logical_replication_workers = 0\ntrack_commit_timestamp = off\n");
$cluster->node('w')->restart;

sub cut { my ($of) = @_; $cluster->wan->command('drop', $_) for $cluster->links($of); return; }
sub heal { my ($of) = @_; $cluster->wan->command('heal', $_) for $cluster->links($of); return; }
my $lease_left = q{SELECT r.lease_left > interval '0' FROM homing.regions r JOIN homing.member m USING (name)
	JOIN homing.local_region l ON l.region_id = m.region_id};
my $is_fenced = q{SELECT r.fenced FROM homing.regions r JOIN homing.member m USING (name) JOIN homing.local_region l ON l.region_id = m.region_id};

# --- it is made, or refused -----------------------------------------------------------------------------------------
my ($us, $w) = map { $cluster->conninfo($_) } qw(us w);
# With the keeper of its lease asleep, a region that was the whole cluster serves on when its first peer joins.
sub set_lease
{
	my ($duration) = @_;
	$cluster->node('us')->safe_psql('postgres', "ALTER SYSTEM SET homing.lease_duration = '$duration'");
	$cluster->node('us')->reload;
	$cluster->poll('us', "SELECT current_setting('homing.lease_duration') = '$duration'");
}
set_lease('5min');
$cluster->sql('us', "SELECT homing.create_cluster('us', '$us')");
$cluster->poll('us', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_homing lease keeper' AND wait_event = 'Extension'});
$cluster->join_region('eu', 'us');
is($cluster->sql('us', 'SELECT homing._lease_left() IS NULL'), 't', 'the first region serves, whether or not it has heard the second');
set_lease('2s');
$cluster->sql('us', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_homing lease keeper'});
$cluster->fails_with('w', "SELECT homing.create_witness('eu', '$w', via => '$us')", '42710', 'its name is its own', qr/region "eu" already exists/);
$cluster->fails_with('w', "SELECT homing.create_witness('W', '$w', via => '$us')", '22023', 'and a name');
$cluster->fails_with('w', "SELECT homing.create_witness('w', '$us', via => '$us')", '22023', 'its connection string leads to it');
$cluster->fails_with('eu', "SELECT homing.create_witness('w', '$us', via => '$us')", '55000', 'a region is no witness', qr/region "eu" of a cluster already/);
is($cluster->sql($_, q{SELECT count(*) FROM homing.witness}), '0', "$_: nothing is left of it") for qw(us eu w);
$cluster->create_witness('us');
# A voter that was just started has promised the longest lease that it ever did.
$cluster->sql($_, 'UPDATE homing.acceptor SET longest_lease = 2000') for qw(us eu);
my %key = $cluster->accounts;
sub write_at { my ($region) = @_; return "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$region}"; }

for my $at (qw(us eu w))
{
	is($cluster->sql($at, q{SELECT string_agg(name || ' ' || status || ' ' || (homes > 0), ', ' ORDER BY name) FROM homing.regions}),
		'eu active ' . ($at eq 'w' ? 'false' : 'true') . ', us active ' . ($at eq 'w' ? 'false' : 'true') . ', w witness false', "$at shows it");
}
is($cluster->sql('w', q{SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_subscription)
	+ (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM homing.tables)}), '0', 'it has no streams and no tables');
is($cluster->sql('us', q{SELECT count(*) FROM pg_replication_slots}), '1', 'nor has anybody one for it');
is($cluster->sql($_, q{SELECT count(*) FROM homing.homes WHERE 'w' = ANY (heirs) OR owner = 'w'}), '0', "$_: nor homes, nor is it an heir") for qw(us eu);
$cluster->fails_with('w', $_, '55000', "a witness refuses: $_", qr/witness "w"/)
  for q{SELECT homing.declare_lost('us')}, q{SELECT homing.set_heirs('us', '{eu}')}, q{SELECT homing.remove_region('us')},
	q{CREATE TABLE t (id int PRIMARY KEY); SELECT homing.home_table('t', 'id')};
$cluster->fails_with('us', q{SELECT homing.declare_lost('w')}, '22023', 'it cannot be lost', qr/is a witness/);
$cluster->fails_with('us', q{SELECT homing.set_heirs('us', '{w}')}, '22023', 'nor inherit');
$cluster->fails_with('us', q{SELECT homing.hand_over('accounts', 'us', 'w')}, '22023', 'nor be given homes');
$cluster->poll($_, $lease_left) for qw(us eu);
$cluster->sql('us', 'ALTER TABLE accounts ADD note text');
$cluster->sql('eu', write_at('us'));
$cluster->same_everywhere('accounts');

# --- the witness is away: both go on, and none of them alone ------------------------------------------------------
cut('w');
$cluster->poll($_, q{SELECT last_seen < clock_timestamp() - interval '3 s' FROM homing.regions WHERE name = 'w'}) for qw(us eu);
$cluster->sql($_, write_at($_)) for qw(us eu);
pass('without the witness both regions serve');
$cluster->wan->command('drop', $_) for qw(us-eu eu-us);
$cluster->poll($_, $is_fenced) for qw(us eu);
$cluster->fails_with($_, write_at($_), '25006', "$_ serves nothing alone") for qw(us eu);
$cluster->fails_with('eu', q{SELECT homing.declare_lost('us')}, '55000', 'and cannot take over', qr/1 of 3 voters/);
is($cluster->sql('eu', q{SELECT count(*) FROM homing.regions WHERE status = 'lost'}), '0', 'nothing is lost');

# --- only us reaches it: us goes on, eu does not ------------------------------------------------------------------
$cluster->wan->command('heal', $_) for qw(us-w w-us);
$cluster->poll('us', $lease_left);
$cluster->sql('us', write_at('us'));
is($cluster->sql('eu', $is_fenced), 't', 'eu stays fenced');
$cluster->fails_with('eu', q{SELECT homing.declare_lost('us')}, '55000', 'it has no majority', qr/1 of 3 voters/);
my $declared = $cluster->sql('us', q{SELECT homing.declare_lost('eu')});
like($declared, qr/"voted": \["us", "w"\]/, 'us and the witness declare eu lost');
$cluster->{dead}{eu} = 1;
$cluster->sql('us', write_at('eu'));
is($cluster->sql('w', q{SELECT status FROM homing.member WHERE name = 'eu'}), 'lost', 'the witness knows');

# One region is left, and needs nobody.
heal('eu');
$cluster->poll('eu', 'SELECT fenced IS NOT NULL FROM homing.local_region');
cut('w');
$cluster->sql('us', write_at('us'));
$cluster->node('us')->restart;
$cluster->sql('us', write_at('us'));
pass('the last region serves, also after a restart');

# --- eu comes back, with the witness as it was ---------------------------------------------------------------------
$cluster->fails_with('eu', 'SELECT homing.rejoin()', '08001', 'who joins must reach the witness', qr/region "w" cannot be reached/);
heal('w');
$cluster->sql('eu', sprintf("SELECT homing.join_cluster('eu', '%s', via => '%s')", $cluster->conninfo('eu'), $us));
delete $cluster->{dead}{eu};
$cluster->_use_links;
$cluster->poll('us', $lease_left);
$cluster->sql('us', q{SELECT homing.repartition('accounts', '{"us": 1, "eu": 1}')});
$cluster->same_everywhere('accounts');
%key = map { $_ => $cluster->sql('us', "SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = '$_'") } qw(us eu);
# A region is killed, and nobody needs to say so.
$cluster->kill('us');
$cluster->sql('eu', q{SELECT homing.declare_lost('us')});
$cluster->sql('eu', write_at('us'));
pass('and the same the other way round');
$cluster->start('us');
$cluster->poll('us', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->sql('us', 'SELECT homing.rejoin()');
$cluster->_use_links;

# --- it is removed --------------------------------------------------------------------------------------------------
my $epoch = $cluster->sql('us', 'SELECT epoch FROM homing.cluster_map');
$cluster->sql('us', q{SELECT homing.remove_region('w', 'no longer needed')});
is($cluster->sql($_, q{SELECT string_agg(name, ', ' ORDER BY name) FROM homing.regions}), 'eu, us', "$_: it is gone") for qw(us eu);
is($cluster->sql($_, q{SELECT count(*) FROM pg_foreign_server WHERE srvname = 'w'}), '0', "$_: and its server") for qw(us eu);
is($cluster->sql('w', 'SELECT count(*) FROM homing.local_region'), '0', 'its database is no witness any more');
$cluster->poll($_, q{SELECT bool_and(lease_left IS NULL) FROM homing.regions}) for qw(us eu);
$cluster->sql($_, write_at($_)) for qw(us eu);
$cluster->create_witness('eu');
cut('w');
my ($state, $out, $warning) = $cluster->try_sql('us', q{SELECT homing.remove_region('w')});
is($state, '', 'it can be removed when it cannot be reached');
like($warning, qr/could not be told to forget/, 'which is said');
heal('w');
$cluster->poll('w', q{SELECT fenced LIKE 'declared lost%' OR fenced LIKE 'removed%' FROM homing.local_region});
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
