# A transaction reads what it has written and not yet committed, wherever that is, or is told that it cannot.
use strict;
use warnings;

use HomingCluster;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], one_server => 1);
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
	CREATE TABLE entries (account int NOT NULL REFERENCES accounts, amount int);
	ALTER TABLE entries REPLICA IDENTITY FULL;
	SELECT homing.home_table('accounts', 'id');
	SELECT homing.home_table('entries', 'account', colocate_with => 'accounts')});
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('accounts', id) = '$_'})
} $cluster->names;
$cluster->sql('us', "INSERT INTO accounts VALUES ($key{us}, 100), ($key{eu}, 100), ($key{ap}, 100)");
$cluster->converge;
$cluster->sql('us', 'CREATE TABLE report (id int, balance int)');

sub written { return join('; ', 'BEGIN', map { "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$_}" } @_) . '; '; }

my $sum = 'SELECT sum(balance) FROM accounts';
my ($one, $two) = (written('eu'), written('us', 'eu'));

is($cluster->sql('us', "$one $sum; ROLLBACK"), 301, 'written at one other region: all is read there');
is($cluster->sql('us', "$one COPY ($sum) TO STDOUT; ROLLBACK"), 301, 'COPY of a query reads there, too');
is($cluster->sql('us', "$two SELECT balance FROM accounts WHERE id = $key{eu}; ROLLBACK"), 101,
	'written at several: a key is read at its home');
is($cluster->sql('us', "$two UPDATE entries SET amount = 1 FROM accounts WHERE account = $key{eu} AND id = $key{eu} AND balance = 101; "
		. "INSERT INTO accounts VALUES ($key{us}, 0) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + 1 RETURNING balance; ROLLBACK"), 102,
	'a write that reads only at the home of what it writes is executed');

my $refused = qr/cannot tell where to read homed tables/;
$cluster->fails_with('us', "$two $sum", '0A000', 'no key, several regions', $refused);
$cluster->fails_with('us', "$one INSERT INTO report SELECT * FROM accounts", '0A000', 'a write of a table of this region would miss them', $refused);
$cluster->fails_with('us', "$one WITH new AS (INSERT INTO report VALUES (1, 1) RETURNING id) SELECT $key{us} FROM new, accounts", '0A000',
	'so would one in WITH', $refused);
$cluster->fails_with('us', "$two UPDATE entries SET amount = (SELECT max(balance) FROM accounts)", '0A000',
	'a statement at several regions would miss them', $refused);
$cluster->fails_with('us', "$two INSERT INTO entries SELECT id, balance FROM accounts", '0A000', 'an INSERT would copy old rows', $refused);
$cluster->fails_with('us', "$two UPDATE entries SET amount = 1 FROM accounts WHERE account = $key{us} AND id = $key{eu}", '0A000',
	'two keys of two homes', qr/cannot tell where to read homed tables|different regions/);
$cluster->fails_with('us', "$one COPY accounts TO STDOUT", '0A000', 'COPY reads what is here', qr/cannot copy from a homed table now/);
is($cluster->sql('us', "SET homing.read_consistency = eventual; $two $sum; ROLLBACK"), 301,
	'eventual reads what is in this region: its own part');
is($cluster->sql('us', "$sum"), 300, 'and nothing was committed');

# Committed at eu, and not applied here: a read waits, a write at eu does not.
my $stream = $cluster->sql('us', 'SELECT homing._stream_name(2::int2, 1::int2)');
$cluster->sql('us', "ALTER SUBSCRIPTION $stream DISABLE");
$cluster->poll('us', qq{SELECT count(*) = 0 FROM pg_stat_subscription WHERE subname = '$stream' AND pid IS NOT NULL});
my $committed = "SET homing.read_timeout = '300ms'; UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};";
$cluster->fails_with('us', "$committed $sum", '55P03', 'a read waits for what the session has committed');
my $upsert = "INSERT INTO accounts VALUES ($key{eu}, 0) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + 1";
is($cluster->sql('us', "$committed $upsert RETURNING balance"), '103', 'ON CONFLICT reads where the row is');
is($cluster->sql('us', "$committed UPDATE accounts SET balance = balance - 4 WHERE id = $key{eu} RETURNING balance"), '100', 'so does UPDATE');
$cluster->sql('us', "ALTER SUBSCRIPTION $stream ENABLE");
$cluster->poll('us', "SELECT balance = 100 FROM accounts WHERE id = $key{eu}");

done_testing();
