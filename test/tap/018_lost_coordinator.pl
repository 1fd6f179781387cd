# The coordinator of a transaction is lost right after it decided. One survivor has heard of the decision, the other one
# has not: what the first one knows counts for both (PROTOCOL §3 row 52; not decided at all: 010_atomic_commit).
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 4, settings => <<'END');
homing.connect_timeout = 1s
homing.outcome_timeout = 2s
END
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('accounts', id) = '$_'})
} $cluster->names;
$cluster->sql('us', "INSERT INTO accounts VALUES ($key{us}, 1000), ($key{eu}, 1000), ($key{ap}, 1000)");
$cluster->converge;

# ap hears nothing more from us, but us can reach it.
$cluster->wan->command('drop', 'ap-us');
$cluster->sql('us', "BEGIN; UPDATE accounts SET balance = balance - 3 WHERE id = $key{us};"
	. "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};"
	. "UPDATE accounts SET balance = balance + 2 WHERE id = $key{ap}; COMMIT;");
pass('COMMIT returns when the decision is durable here');
$cluster->poll('eu', "SELECT balance = 1001 FROM accounts WHERE id = $key{eu}");
$cluster->poll('eu', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
pass('eu has applied it');
is($cluster->sql('ap', 'SELECT count(*) FROM pg_prepared_xacts'), 1, 'ap holds its part');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}"), 1000, 'which is not committed there');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{us}"), 1000, 'and has not heard of the part of us');

$cluster->kill('us');
is($cluster->sql('ap', 'SELECT count(*) FROM homing.in_doubt'), 1, 'the part is in doubt');
$cluster->sql('eu', q{SELECT homing.declare_lost('us', force => true)});
$cluster->poll('ap', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
is($cluster->sql('ap', "SELECT balance FROM accounts WHERE id = $key{ap}"), 1002, 'ap commits its part');
$cluster->same_everywhere('accounts');
is($cluster->sql($_, 'SELECT sum(balance) FROM accounts'), 3000, "$_: all of the transaction is there") for qw(eu ap);
is($cluster->sql($_, "SELECT balance FROM accounts WHERE id = $key{us}"), 997, "$_: the part of us, too") for qw(eu ap);

# The homes go on.
$cluster->sql('ap', "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = $key{ap}; UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu}; COMMIT");
$cluster->poll('eu', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
$cluster->same_everywhere('accounts');

$cluster->stop;
done_testing();
