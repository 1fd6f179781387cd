# A region that is away for long: the others do not fill their disks for it, say that it needs a copy, and get it back with
# its homes. (PROTOCOL §3 row 16.)
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)],
	settings => "homing.max_retained_wal = 2MB\nwal_retrieve_retry_interval = 100ms\n");
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
	INSERT INTO accounts SELECT generate_series(1, 1000);
	SELECT homing.home_table('accounts', 'id', homes => 12);
	CREATE TABLE first (id bigint PRIMARY KEY);
	SELECT homing.home_table('first', 'id', placement => 'first_write', homes => 6)});
$cluster->poll($_, q{SELECT count(*) = 2 FROM homing.tables WHERE state = 'active'}) for $cluster->names;
$cluster->sql('ap', 'INSERT INTO first SELECT generate_series(1, 50)');
$cluster->same_everywhere($_) for qw(accounts first);

sub homes
{
	my ($region) = @_;
	return $cluster->sql($region, q{SELECT string_agg(keyspace || ' ' || home, ', ' ORDER BY keyspace, home) FROM homing.homes WHERE owner = 'ap'});
}
my $homes = homes('us');
is($cluster->sql('us', q{SELECT string_agg(status, ' ' ORDER BY name) FROM homing.regions}), 'active active active', 'all are there');

$cluster->kill('ap');
# The rows of eu are eu's WAL, those of us are its own: both write.
$cluster->sql($_, q{CREATE TABLE local (t text); INSERT INTO local SELECT repeat(md5(i::text), 20) FROM generate_series(1, 10000) i}) for qw(us eu);
for my $region (qw(us eu))
{
	$cluster->poll($region, q{SELECT status = 'needs copy' FROM homing.regions WHERE name = 'ap'});
	is($cluster->sql($region, q{SELECT count(*) || ' ' || min(region) FROM homing.events WHERE kind = 'needs_copy'}), '1 ap', "$region gives ap up once, with an event");
	is($cluster->sql($region, q{SELECT count(*) FROM pg_replication_slots WHERE NOT active AND slot_name LIKE 'homing%\_3'}), '0', "$region keeps no WAL for it");
}
is($cluster->sql('us', q{SELECT string_agg(status, ' ' ORDER BY name) FROM homing.regions WHERE name <> 'ap'}), 'active active', 'the others go on');
my $served = $cluster->sql('us', q{SELECT string_agg(id::text, ',') FROM accounts WHERE homing.home_of('accounts', id) IN ('us', 'eu')});
$cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id IN ($served)") for qw(us eu);

$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->sql('us', 'UPDATE accounts SET balance = balance + 1');
$cluster->start('ap');
$cluster->{dead}{ap} = 1;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
my $answer = $cluster->sql('ap', 'SELECT homing.rejoin(failback => true)');
like($answer, qr/"homes_back": 6/, 'it takes its homes back');
delete $cluster->{dead}{ap};
for my $region ($cluster->names)
{
	$cluster->poll($region, q{SELECT count(*) = 6 FROM homing.homes WHERE owner = 'ap'});
	is(homes($region), $homes, "$region: the same ones that it had");
	$cluster->poll($region, q{SELECT count(*) = 3 FROM homing.regions WHERE status = 'active'});
}
$cluster->sql('ap', 'UPDATE accounts SET balance = balance + 1');
$cluster->poll('us', q{SELECT homing.home_of('first', 1) = 'ap'});
$cluster->same_everywhere('accounts', 'all are the same');
is($cluster->sql('us', 'SELECT string_agg(DISTINCT balance::text, \' \' ORDER BY balance::text) FROM accounts'), '2 4', 'no write is missing');

$cluster->stop;
done_testing();
