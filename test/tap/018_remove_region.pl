# A living region leaves the cluster while it is written: its homes go to the others, nothing is lost.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)]);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)');
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 300)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->sql('us', q{CREATE TABLE settings (name text PRIMARY KEY, value text)});
$cluster->sql('us', q{SELECT homing.home_table('settings', 'name', placement => 'region', region => 'ap')});
$cluster->same_everywhere('accounts');
$cluster->fails_with('ap', q{SELECT homing.remove_region('ap')}, '22023', 'a region cannot remove itself');
$cluster->fails_with('us', q{SELECT homing.remove_region('nowhere')}, '22023', 'nor can one that does not exist be removed');

# A long writer keeps it, and it goes on serving.
my $of_ap = $cluster->sql('us', q{SELECT min(id) FROM accounts WHERE homing.home_of('accounts', id) = 'ap'});
my $writer = $cluster->node('ap')->background_psql('app');
$writer->query_safe("BEGIN; UPDATE accounts SET balance = 5 WHERE id = $of_ap");
$cluster->fails_with('us', q{SET homing.handover_timeout = '1s'; SELECT homing.remove_region('ap')}, '55P03', 'a long writer keeps it in');
$writer->query_safe('COMMIT');
$writer->quit;
$cluster->sql('ap', q{INSERT INTO settings VALUES ('colour', 'green')});

# Every region writes all the time.
my @load = map {
	my $out = '';
	[ IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '6', '-f', '-', '-h', $cluster->node($_)->host, '-p', $cluster->node($_)->port, 'app' ],
		'<', \"\\set id random(1, 300)\nUPDATE accounts SET balance = balance + 1 WHERE id = :id;\n", '>', \$out, '2>&1'), \$out ];
} qw(us eu);
my $answer = $cluster->sql('us', q{SELECT homing.remove_region('ap', 'the test is done with it')});
like($answer, qr/"survivors": \["us", "eu"\]/, 'it tells who stays');
my $done = 0;
for my $load (@load)
{
	$load->[0]->finish;
	like(${ $load->[1] }, qr/number of failed transactions: 0 /, 'no write of another region failed');
	$done += $1 if ${ $load->[1] } =~ /number of transactions actually processed: (\d+)/;
}
$cluster->{dead}{ap} = 1;
cmp_ok($done, '>', 100, 'there were writes');
$cluster->same_everywhere($_) for qw(accounts settings);
is($cluster->sql('us', 'SELECT sum(balance) FROM accounts'), $done + 5, 'each counts, once');
is($cluster->sql('us', q{SELECT count(*) FROM homing.homes WHERE owner = 'ap'}), '0', 'it has no homes');
is($cluster->sql('eu', q{SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM homing.regions}), 'ap lost, eu active, us active', 'others know');
for my $region (qw(us eu))
{
	$cluster->sql($region, "UPDATE accounts SET balance = 0 WHERE id = $of_ap");
	$cluster->poll($region, q{SELECT count(*) = 1 FROM pg_replication_slots});
	is($cluster->sql($region, 'SELECT count(*) FROM pg_subscription'), '1', "$region: one subscription is left");
}

is($cluster->sql('ap', 'SELECT count(*) FROM accounts'), '300', 'its database keeps the rows');
$cluster->sql('ap', "UPDATE accounts SET balance = -1 WHERE id = $of_ap");
is($cluster->sql('ap', 'SELECT count(*) FROM pg_replication_slots'), '0', 'it has no slot');
is($cluster->sql('ap', 'SELECT count(*) FROM pg_subscription'), '0', 'and no subscription');
isnt($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $of_ap"), '-1', 'what it writes is its own');

$cluster->sql('ap', 'TRUNCATE accounts, settings');
$cluster->join_region('ap', 'us');
delete $cluster->{dead}{ap};
$cluster->same_everywhere('accounts', 'it can join again');
$cluster->stop;
done_testing();
