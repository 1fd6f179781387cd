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
# Joined or compared on the key, what is read of other tables has the home of what is written, or read.
my $all = written($cluster->names) . 'INSERT INTO entries SELECT id, 7 FROM unnest(ARRAY[' . join(', ', values %key) . ']) id; ';
my $entries = 'SELECT count(*), sum(amount), min(amount) FROM entries WHERE account IN';
for my $statement (
	'UPDATE entries SET amount = balance FROM accounts WHERE account = id',
	'UPDATE entries SET amount = (SELECT balance FROM accounts WHERE id = account)',
	'UPDATE entries SET amount = s.b FROM (SELECT id, max(balance) AS b FROM accounts GROUP BY id) s WHERE s.id = account',
	'WITH s AS (SELECT id, balance FROM accounts) UPDATE entries SET amount = s.balance FROM s WHERE s.id = account',
	'UPDATE entries SET amount = coalesce(b.balance, 0) FROM accounts a LEFT JOIN accounts b ON a.id = b.id AND b.balance = 101 WHERE a.id = account',
	'UPDATE entries SET amount = 101 WHERE account IN (SELECT id FROM accounts WHERE balance = 101)',
	'UPDATE entries SET amount = 101 WHERE (account, 101) IN (SELECT id, balance FROM accounts)',
	'UPDATE entries SET amount = 101 WHERE account NOT IN (SELECT id FROM accounts WHERE balance = 100)',
	'UPDATE entries e SET amount = 101 WHERE NOT EXISTS (SELECT 1 FROM accounts a, entries f WHERE a.id = e.account AND f.account = a.id AND balance = 100)')
{
	is($cluster->sql($_, "$all $statement; " . join('; ', map { "SELECT amount FROM entries WHERE account = $key{$_}" } $cluster->names) . '; ROLLBACK'),
		"101\n101\n101", "$_: $statement") for qw(us ap);
}
is($cluster->sql('us', "$all DELETE FROM entries USING accounts WHERE account = id AND balance = 101 RETURNING 1; ROLLBACK"), "1\n1\n1", 'DELETE USING');
is($cluster->sql('us', "$two SELECT balance, (SELECT max(b.balance) FROM accounts b WHERE b.id = a.id) FROM accounts a WHERE id = $key{eu}; ROLLBACK"), '101|101',
	'a subquery on the same key');
is($cluster->sql('us', "$two SELECT * FROM (SELECT a.id, b.balance FROM accounts a JOIN accounts b USING (id)) s WHERE id = $key{eu}; ROLLBACK"), "$key{eu}|101",
	'a key outside of a subquery');
is($cluster->sql('us', "$two INSERT INTO entries VALUES ($key{eu}, (SELECT balance FROM accounts WHERE id = $key{eu})) RETURNING amount; ROLLBACK"), '101',
	'a value from a row with the same key');
is($cluster->sql('us', "$two MERGE INTO entries USING (SELECT id, balance FROM accounts WHERE id = $key{eu}) s ON s.id = account "
		. "WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.balance); SELECT amount FROM entries WHERE account = $key{eu}; ROLLBACK"), '101',
	'the source of MERGE');
$cluster->fails_with('us', "$all $_", '0A000', $_, $refused) for
	'UPDATE entries SET amount = balance FROM accounts WHERE account = id + 1',
	'UPDATE entries SET amount = (SELECT max(balance) FROM accounts WHERE id >= account)',
	'UPDATE entries SET amount = b FROM (SELECT id, sum(balance) OVER () AS b FROM accounts) s WHERE s.id = account',
	'UPDATE entries SET amount = b FROM (SELECT id, balance AS b FROM accounts LIMIT 1) s WHERE s.id = account',
	'UPDATE entries SET amount = b.balance FROM accounts a LEFT JOIN accounts b ON a.balance = b.balance WHERE a.id = account',
	'UPDATE entries SET amount = 1 WHERE account = ANY (SELECT id FROM accounts) OR EXISTS (SELECT 1 FROM accounts WHERE balance = 100)';

# What is written here is not there, either.
my $here = written('us');
$cluster->fails_with('us', "$here UPDATE entries SET amount = balance FROM accounts WHERE account = $key{eu} AND id = $key{us}", '0A000', 'a row of another home', $refused);
$cluster->fails_with('us', "$here UPDATE entries SET amount = balance FROM accounts WHERE id = $key{us}", '0A000', 'a row of one home for those of all', $refused);
is($cluster->sql('us', "$here INSERT INTO entries SELECT id, balance FROM accounts WHERE id = $key{us} OR id = $key{eu} RETURNING amount; ROLLBACK"), "101\n100",
	'rows that are read here and written everywhere');

# A row that MERGE inserts is one that its condition does not concern.
my $merge = "MERGE INTO accounts USING (VALUES (%d, 1), (%d, 1)) s (id, b) ON accounts.id = s.id AND s.id = %d WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.b)";
$cluster->fails_with('us', sprintf($merge, $key{us} + 1000, $key{eu}, $key{us} + 1000), '0A000', 'MERGE with keys of other homes than that of its condition', qr/several home regions/)
  if $cluster->sql('us', "SELECT homing.home_of('accounts', $key{us} + 1000)") ne 'eu';

# A key that a subquery computes has whatever home it has.
my %homes;
for (1 .. 12)
{
	my $region = ($cluster->names)[ $_ % 3 ];
	my $id = $cluster->sql($region, 'PREPARE p(int) AS INSERT INTO accounts VALUES ((SELECT max(id) + $1 FROM accounts), (SELECT 7)) RETURNING id; EXECUTE p(1)');
	$homes{ $cluster->sql($region, "SELECT homing.home_of('accounts', $id)") }++;
	is($cluster->sql($region, "SELECT balance FROM accounts WHERE id = $id"), '7', "a row with a computed key from $region");
	$cluster->converge;
}
is(scalar(keys %homes), 3, 'they have all homes');
$cluster->fails_with('us', 'INSERT INTO accounts VALUES ((SELECT max(id) FROM accounts), 7)', '23505', 'its home refuses it');
$cluster->fails_with('us', 'INSERT INTO accounts VALUES ((SELECT NULL::int), 7)', '23502', 'a NULL is refused');
$cluster->sql('us', 'DELETE FROM accounts WHERE balance = 7');
$cluster->converge;

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
