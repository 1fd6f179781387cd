# Without leases: a region dies and is declared lost by the operator's word: its homes pass to heirs; when it comes back it fences itself.
use strict;
use warnings;

use HomingCluster;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], settings => "homing.fencing = operator\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)');
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 600)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('eu', q{SELECT homing.set_heirs('ap', ARRAY['eu', 'us'])});
$cluster->same_everywhere('accounts');

sub key_of
{
	my ($owner) = @_;
	return $cluster->sql('eu', qq{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = '$owner' ORDER BY id LIMIT 1});
}
my %key = map { $_ => key_of($_) } $cluster->names;
my $of_ap = $cluster->sql('eu', q{SELECT array_agg(id ORDER BY id) FROM accounts WHERE homing.home_of('accounts', id) = 'ap'});
my $of_us = $cluster->sql('eu', q{SELECT array_agg(id ORDER BY id) FROM accounts WHERE homing.home_of('accounts', id) = 'us'});
my $epoch = $cluster->sql('us', 'SELECT epoch FROM homing.cluster_map');

# The last words of ap reach everybody, then it dies.
$cluster->sql('ap', "UPDATE accounts SET balance = 7 WHERE id = $key{ap}");
$cluster->converge;
$cluster->kill('ap');

$cluster->fails_with('us', "UPDATE accounts SET balance = 8 WHERE id = $key{ap}", '08001', 'its homes cannot be written');
$cluster->sql('us', "UPDATE accounts SET balance = 8 WHERE id = $key{eu}");
$cluster->sql('eu', "UPDATE accounts SET balance = 8 WHERE id = $key{us}");
pass('other homes can');

$cluster->fails_with('us', q{SELECT homing.declare_lost('ap')}, '55000', 'without force there is no takeover');
$cluster->fails_with('us', q{SELECT homing.declare_lost('us', force => true)}, '22023', 'a region cannot declare itself lost');
$cluster->fails_with('us', q{SELECT homing.declare_lost('nowhere', force => true)}, '22023', 'nor one that does not exist');
is($cluster->sql('us', 'SELECT epoch FROM homing.cluster_map'), $epoch, 'a refused call changes nothing');

$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true, reason => 'the test killed it')});

for my $region (qw(us eu))
{
	cmp_ok($cluster->sql($region, 'SELECT epoch FROM homing.cluster_map'), '>', $epoch, "$region: the epoch rose");
	is($cluster->sql($region, q{SELECT status || ' ' || homes FROM homing.regions WHERE name = 'ap'}), 'lost 0', "$region: ap is lost");
	is($cluster->sql($region, qq{SELECT DISTINCT homing.home_of('accounts', id) FROM unnest('$of_ap'::int[]) id}), 'eu',
		"$region: the first heir has all its homes");
	is($cluster->sql($region, qq{SELECT DISTINCT homing.home_of('accounts', id) FROM unnest('$of_us'::int[]) id}), 'us',
		"$region: no other home moved");
	is($cluster->sql($region, q{SELECT count(*) FROM homing.events WHERE kind = 'declare_lost' AND region = 'ap'
		AND reason = 'the test killed it'}), '1', "$region: the event is recorded");
	$cluster->sql($region, "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
	is($cluster->sql($region, 'SELECT count(*) FROM pg_subscription'), '1', "$region: one subscription is left");
	is($cluster->sql($region, 'SELECT count(*) FROM pg_replication_slots'), '1', "$region: no slot holds WAL back for ap");
}
$cluster->same_everywhere('accounts');
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{ap}"), '9', 'the writes to its key follow its last one');
$cluster->sql('eu', q{SELECT homing.declare_lost('ap', force => true)});
is($cluster->sql('eu', q{SELECT count(*) FROM homing.events WHERE kind = 'declare_lost'}), '1', 'declaring twice is harmless');

# ap comes back and knows nothing: it hears the map of a higher epoch and fences itself.
$cluster->start('ap');
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->fails_with('ap', "UPDATE accounts SET balance = 0 WHERE id = $key{ap}", '25006', 'the lost region refuses writes to homes it had');
$cluster->fails_with('ap', "UPDATE accounts SET balance = 0 WHERE id = $key{us}", '25006', 'and to others');
$cluster->fails_with('ap', 'INSERT INTO accounts VALUES (100000)', '25006', 'and new rows');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}"), '7', 'reads go on, from before its loss');
is($cluster->sql('ap', q{SELECT count(*) FROM homing.regions WHERE name = 'ap' AND fenced}), '1', 'homing.regions shows it');
$cluster->node('ap')->restart;
$cluster->fails_with('ap', "UPDATE accounts SET balance = 0 WHERE id = $key{ap}", '25006', 'it stays fenced over a restart');
$cluster->node('ap')->stop;
$cluster->{dead}{ap} = 1;

# A second loss: what eu inherited goes on to us.
$cluster->sql('eu', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
$cluster->converge;
# A session has committed there what goes down with it: its reads say so, once (PROTOCOL §3 row 60).
my $survived = $cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{eu}");
my $stream = $cluster->sql('us', q{SELECT subname FROM pg_subscription});
$cluster->sql('us', "ALTER SUBSCRIPTION $stream DISABLE");
$cluster->poll('us', 'SELECT count(*) = 0 FROM pg_stat_subscription WHERE pid IS NOT NULL');
my $session = PsqlSession->new($cluster->conninfo('us'));
my $read = "SELECT balance FROM accounts WHERE id = $key{eu}";
is($session->run($_)->{sqlstate}, '', $_) for q{SET homing.read_timeout = '300ms'}, "UPDATE accounts SET balance = 50 WHERE id = $key{eu}";
is($session->run($read)->{sqlstate}, '55P03', 'what is committed at eu has not arrived');
$cluster->kill('eu');
$cluster->sql('us', q{SELECT homing.declare_lost('eu', force => true)});
my $told = $session->run($read);
is($told->{sqlstate}, '55000', 'and does not any more');
like($told->{message}, qr/committed at region "eu": it was lost with the region/, '… as the session is told');
is($session->value($read), $survived, 'then it reads what survived');
$session->close;
is($cluster->sql('us', q{SELECT DISTINCT homing.home_of('accounts', id) FROM accounts}), 'us', 'the last region has all homes');
$cluster->sql('us', 'INSERT INTO accounts VALUES (100001)');
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{ap}");
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{ap}"), '11', 'no write was lost on the way');
is($cluster->sql('us', 'SELECT count(*) FROM pg_replication_slots'), '0', 'no slot is left');

$cluster->stop;
done_testing();
