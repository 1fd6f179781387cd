# Three servers become one cluster; each region writes everywhere; all become identical.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)]);
my $schema = q{
	CREATE TABLE customers (id bigint PRIMARY KEY, plan text NOT NULL DEFAULT 'free', visits int NOT NULL DEFAULT 0);
	CREATE TABLE orders (customer_id bigint, order_id int, total numeric(10,2) NOT NULL CHECK (total >= 0),
		PRIMARY KEY (customer_id, order_id));
	CREATE TABLE settings (name text PRIMARY KEY, value text);
};

# us has rows when it founds the cluster, eu joins empty, ap already has the same empty tables.
$cluster->sql('us', $schema);
$cluster->sql('us', 'INSERT INTO customers SELECT i FROM generate_series(1, 300) i');
$cluster->sql('us', q{SELECT homing.create_cluster('us', '} . $cluster->conninfo('us') . q{')});
$cluster->sql('us', q{SELECT homing.home_table('customers', 'id')});
$cluster->join_region('eu', 'us');
$cluster->sql('ap', $schema);
$cluster->join_region('ap', 'eu');
$cluster->sql('us', q{SELECT homing.home_table('orders', 'customer_id', colocate_with => 'customers')});
$cluster->sql('us', q{SELECT homing.home_table('settings', 'name', placement => 'region', region => 'ap')});

for my $region ($cluster->names)
{
	is($cluster->sql($region, q{SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM homing.regions}),
		'ap active, eu active, us active', "$region knows all regions");
	is($cluster->sql($region, q{SELECT string_agg(table_name || ' ' || state, ', ' ORDER BY table_name::text)
		FROM homing.tables}),
		'customers active, orders active, settings active', "$region knows all tables");
	is($cluster->sql($region, q{SELECT homing.home_of('settings', 'theme')}), 'ap', "$region knows the home of a setting");
}
is($cluster->sql('eu', 'SELECT count(*) FROM customers'), '300', 'rows were brought to the region that joined');

# customers were homed when us was alone: it owns all their homes.
$cluster->sql('us', q{SELECT homing.assign_key('customers', 1001::bigint, 'us')});
$cluster->converge;
is($cluster->sql('ap', q{SELECT homing.home_of('customers', 1001::bigint)}), 'us', 'an assigned key has its home');

# A table homed by three regions is spread over all of them.
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, writer text)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
is($cluster->sql('eu', q{SELECT count(DISTINCT homing.home_of('accounts', i)) FROM generate_series(1, 200) i}),
	'3', 'homes are spread over three regions');

# Every region inserts its own third of the keys, whatever their homes: two thirds are forwarded.
my $offset = 0;
for my $region ($cluster->names)
{
	$cluster->sql($region, join('', map { "INSERT INTO accounts VALUES ($_, 0, '$region');\n" }
		map { 3 * $_ + $offset } 0 .. 59));
	$offset++;
}
$cluster->same_everywhere('accounts');
is($cluster->sql('ap', 'SELECT count(*) FROM accounts'), '180', 'no insert was lost');

# All regions update all keys at the same time; each update counts once.
my @handles;
for my $region ($cluster->names)
{
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$region.sql";
	append_to_file($file, join('', map { "UPDATE accounts SET balance = balance + 1 WHERE id = $_;\n" } 0 .. 179));
	push @handles, [ $region, IPC::Run::start(
		[ 'psql', '--no-psqlrc', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $cluster->conninfo($region), '-f', $file ],
		'>', \my $out, '2>', \my $err) ];
}
for my $handle (@handles)
{
	ok($handle->[1]->finish, "concurrent updates from $handle->[0]");
}
$cluster->same_everywhere('accounts', 'accounts after concurrent updates');
is($cluster->sql('eu', 'SELECT min(balance) || \' \' || max(balance) FROM accounts'), '3 3', 'each update counts once');

# The error of the home reaches the client with its own identity.
$cluster->fails_with($_, 'INSERT INTO accounts VALUES (7, 0)', '23505', "$_: duplicate key", qr/accounts_pkey/)
  for $cluster->names;

# A statement that comes again is prepared at the home; a change of its table does not make it fail.
my ($theirs) = grep { $cluster->sql('us', "SELECT homing.home_of('accounts', $_)") eq 'eu' } 0 .. 179;
my @again = ("UPDATE accounts SET writer = 'again' WHERE id = $theirs RETURNING balance") x 3;
is($cluster->sql('us', join(';', @again, 'ALTER TABLE accounts ALTER COLUMN balance TYPE numeric(12, 1)', @again)),
	join("\n", (3) x 3, ('3.0') x 3), 'the type of a returned column changes between executions');

# A deleted row goes everywhere, and a region that was away catches up.
$cluster->node('ap')->stop('fast');
my ($gone) = grep { $cluster->sql('us', "SELECT homing.home_of('accounts', $_)") eq 'us' } 0 .. 179;
$cluster->sql('us', "DELETE FROM accounts WHERE id = $gone");
$cluster->node('ap')->start;
$cluster->same_everywhere('accounts', 'accounts after a restart of ap');
is($cluster->sql('ap', 'SELECT count(*) FROM accounts'), '179', 'the delete reached the region that was away');

$cluster->stop;
done_testing();
