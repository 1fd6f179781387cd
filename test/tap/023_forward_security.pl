# What a user may do is decided at the home, for the user who issued the statement (PROTOCOL §4 rows 9–15, 29, 46;
# rows 10, 30 and 46 also in 017_outcome_races, row 13 in sql/session), and nobody acknowledges less than a synchronous
# region asks for (§3 row 56).
use strict;
use warnings;

use HomingCluster;
use PsqlSession;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)], one_server => 1);
$cluster->form;
my @roles = qw(alice bob stranger);
$cluster->sql('us', "CREATE ROLE $_ LOGIN") for @roles;
for my $role (qw(alice bob))
{
	$cluster->sql('us', "CREATE USER MAPPING FOR $role SERVER eu OPTIONS (user '$role', password_required 'false')");
	$cluster->sql('eu', "CREATE USER MAPPING FOR $role SERVER us OPTIONS (user '$role', password_required 'false')");
}
$cluster->sql($_, 'GRANT ALL ON SCHEMA public TO PUBLIC') for qw(us eu);
$cluster->sql('us', q{
	CREATE TABLE doc (id int PRIMARY KEY, owner text NOT NULL DEFAULT current_user, title text, secret text, size int NOT NULL DEFAULT 0);
	SELECT homing.home_table('doc', 'id')});
my @away = split /\n/, $cluster->sql('us', q{SELECT id FROM generate_series(1, 1000) id WHERE homing.home_of('doc', id) = 'eu' LIMIT 40});
my ($a, $b, $c, $d) = @away;
$cluster->sql('us', 'SELECT homing.run_everywhere($$GRANT ALL ON doc TO alice, bob, stranger$$)');

sub as
{
	my ($role, $statement, $region) = @_;
	return PsqlSession->new($cluster->conninfo($region // 'us') . " user=$role")->run($statement);
}
sub is_refused
{
	my ($role, $statement, $sqlstate, $what) = @_;
	my $result = as($role, $statement);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($result->{sqlstate}, $sqlstate, $what) or diag($result->{message});
	return;
}
sub rows
{
	my ($role, $statement) = @_;
	return join ' ', @{ as($role, $statement)->{rows} };
}

# --- row 9: who a forwarded statement runs as ---------------------------------------------------------------

like(rows('alice', "INSERT INTO doc (id, title, secret) VALUES ($a, 'of alice', 'x') RETURNING owner"), qr/^alice\b/, 'a forwarded statement runs as its user');
like(rows('bob', "INSERT INTO doc (id, title, secret) VALUES ($b, 'of bob', 'y') RETURNING owner"), qr/^bob\b/, 'each by his own');
is_refused('stranger', "INSERT INTO doc (id) VALUES ($c)", '42704', 'who has no user mapping cannot forward');
like(rows('stranger', "INSERT INTO doc (id) SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('doc', id) = 'us' RETURNING owner"),
	qr/^stranger/, 'but may write here');
my $admin = PsqlSession->new($cluster->conninfo('us'));
$admin->run('SET ROLE alice');
is($admin->run("UPDATE doc SET title = 'by a role that was set' WHERE id = $a")->{sqlstate}, '', 'SET ROLE is followed');
$admin->run("INSERT INTO doc (id) VALUES ($d)");
is($admin->value("SELECT owner FROM doc WHERE id = $d"), 'alice', 'and its rights are those of the role');
$admin->run('RESET ROLE');
$admin->run("DELETE FROM doc WHERE id = $d");

# --- row 11: policies --------------------------------------------------------------------------------------------

$cluster->sql('us', q{
	ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
	CREATE POLICY read ON doc FOR SELECT USING (owner = current_user OR title LIKE 'open%');
	CREATE POLICY add ON doc FOR INSERT WITH CHECK (owner = current_user);
	CREATE POLICY change ON doc FOR UPDATE USING (owner = current_user) WITH CHECK (size < 100);
	CREATE POLICY drop ON doc FOR DELETE USING (owner = current_user AND size = 0)});
# Statement, and what comes of it for the owner of the row and for somebody else: SQLSTATE or count.
my @matrix = (
	[ "UPDATE doc SET size = 5 WHERE id = $a", '1', '0' ],
	[ "UPDATE doc SET size = 500 WHERE id = $a", '42501', '0' ],
	[ "UPDATE doc SET size = 6 WHERE id = $a RETURNING secret", '1', '0' ],
	[ "INSERT INTO doc (id, owner) VALUES ($c, 'alice')", '1', '42501' ],
	[ "INSERT INTO doc (id, owner) VALUES ($a, current_user) ON CONFLICT (id) DO UPDATE SET size = 1", '1', '42501' ],
	[ "INSERT INTO doc (id, owner) VALUES ($a, current_user) ON CONFLICT (id) DO NOTHING", '0', '0' ],
	[ "SELECT id FROM doc WHERE id = $a FOR UPDATE", '1', '0' ],
	[ "DELETE FROM doc WHERE id = $a", '0', '0' ],
	[ "UPDATE doc SET size = 0 WHERE id = $a", '1', '0' ],
	[ "DELETE FROM doc WHERE id = $c", '1', '0' ]);
for my $case (@matrix)
{
	my ($statement, %expected) = ($case->[0], alice => $case->[1], bob => $case->[2]);
	for my $role (qw(bob alice))
	{
		my $result = as($role, $statement);
		is($result->{sqlstate} || $result->{count}, $expected{$role}, "policies, $role: $statement") or diag($result->{message});
	}
}
is_refused('bob', "SET row_security = off; DELETE FROM doc WHERE id = $a", '42501', 'row_security = off is refused, not obeyed');

# One session and one prepared statement, under one role after the other.
$admin->run("PREPARE grow AS UPDATE doc SET size = size + 1 WHERE id = $a");
for my $case ([ 'alice', 1 ], [ 'bob', 0 ], [ 'alice', 1 ], [ 'alice', 1 ], [ 'bob', 0 ], [ 'postgres', 1 ])
{
	my ($role, $count) = @$case;
	$admin->run("SET ROLE $role");
	is($admin->run('EXECUTE grow')->{count}, $count, "a prepared statement looks at the policies for $role");
}
$admin->run('RESET ROLE');
$admin->run("UPDATE doc SET size = 0 WHERE id = $a");

# --- row 12: privileges of columns, and at one region only ------------------------------------------------------

$cluster->sql('us', 'ALTER TABLE doc DISABLE ROW LEVEL SECURITY');
$cluster->sql('us', 'SELECT homing.run_everywhere($$REVOKE ALL ON doc FROM bob; GRANT INSERT (id, title), UPDATE (title), SELECT (id, title), DELETE ON doc TO bob$$)');
is_refused('bob', "UPDATE doc SET size = 3 WHERE id = $a", '42501', 'a column that may not be changed');
is_refused('bob', "UPDATE doc SET title = secret WHERE id = $a", '42501', 'a column that may not be read');
is_refused('bob', "UPDATE doc SET title = 'x' WHERE id = $a RETURNING secret", '42501', 'nor returned');
is_refused('bob', "INSERT INTO doc (id, size) VALUES ($c, 1)", '42501', 'nor inserted');
is_refused('bob', "UPDATE doc SET title = 'x' WHERE secret = 'x'", '42501', 'nor asked for, without a key');
is(rows('bob', "UPDATE doc SET title = 'by bob' WHERE id = $a RETURNING id, title"), "$a,by bob UPDATE 1", 'the others may');
is(as('bob', "INSERT INTO doc (id, title) VALUES ($c, 'added')")->{sqlstate}, '', 'be inserted, too');

$cluster->sql('eu', 'REVOKE UPDATE (title) ON doc FROM bob');
is_refused('bob', "UPDATE doc SET title = 'x' WHERE id = $a", '42501', 'what is revoked at the home only is refused there');
$cluster->sql('eu', 'GRANT UPDATE (title) ON doc TO bob');
$cluster->sql('us', 'REVOKE UPDATE (title) ON doc FROM bob');
is_refused('bob', "UPDATE doc SET title = 'x' WHERE id = $a", '42501', 'what is revoked here only is refused here');
is($cluster->sql('eu', "SELECT title FROM doc WHERE id = $a"), 'by bob', 'neither has changed anything');

# --- row 14: evaluated once, at the home --------------------------------------------------------------------------

$cluster->sql($_, 'CREATE SEQUENCE drawn') for qw(us eu);
$cluster->sql('us', "UPDATE doc SET size = nextval('drawn'), title = current_database() || pg_backend_pid() WHERE id = $a");
is($cluster->sql('eu', 'SELECT last_value, is_called FROM drawn'), '1|t', 'nextval is evaluated at the home, once');
is($cluster->sql('us', 'SELECT last_value, is_called FROM drawn'), '1|f', 'and not here');
like($cluster->sql('eu', "SELECT title FROM doc WHERE id = $a"), qr/^eu/, 'so are functions that tell where they run');

# --- row 15: names -------------------------------------------------------------------------------------------------

my $name = 'a"; DROP TABLE doc; --';
(my $quoted = $name) =~ s/"/""/g;
my $long = 'n' x 62 . 'x';
$cluster->sql('us', qq{
	CREATE TABLE "$quoted" (id int PRIMARY KEY, """" text, "$long" int, "Ünïcode '" text);
	SELECT homing.home_table('"$quoted"', 'id')});
is($cluster->sql('us', qq{INSERT INTO "$quoted" VALUES ($a, '";', 1, E'\\\\'';') RETURNING """", "$long", "Ünïcode '"}), q{";|1|\\';}, 'names are quoted');
is($cluster->sql('us', qq{UPDATE "$quoted" SET """" = """" || '''', "$long" = 2 WHERE id = $a AND "Ünïcode '" LIKE '%;' RETURNING """"}), q{";'}, 'in conditions, too');
is($cluster->sql('eu', 'SELECT count(*) > 0 FROM doc'), 't', 'nothing was dropped');

# --- row 29: prepared transactions under names of ours -----------------------------------------------------------

my ($cluster_id, $epoch) = split /\|/, $cluster->sql('us', 'SELECT left(l.cluster_id::text, 8), m.epoch FROM homing.local_region l, homing.cluster_map m');
my $oid = $cluster->sql('eu', 'SELECT oid FROM pg_database WHERE datname = current_database()');
my %gid = ('another cluster' => "homing:00000000:1:$epoch:$oid:1:1:00000000-0000-4000-8000-000000000000:2.0",
	'no name of a part' => "homing:$cluster_id:1");
for my $what (sort keys %gid)
{
	$cluster->sql('eu', "SET SESSION AUTHORIZATION alice; BEGIN; LOCK TABLE doc IN ACCESS SHARE MODE; CREATE TABLE public.t$$ (a int); PREPARE TRANSACTION '$gid{$what}'");
	$cluster->fails_with('eu', "SET SESSION AUTHORIZATION bob; COMMIT PREPARED '$gid{$what}'", '42501', "$what: only its owner may commit it");
	$cluster->sql('us', "INSERT INTO doc (id) VALUES ($away[10]); DELETE FROM doc WHERE id = $away[10]");
	is($cluster->sql('eu', "SELECT count(*) FROM pg_prepared_xacts WHERE gid = '$gid{$what}'"), 1, "$what: the worker leaves it alone");
	is($cluster->sql('eu', 'SELECT count(*) FROM homing.in_doubt'), 0, "$what: it is no part of ours");
	$cluster->sql('eu', "SET SESSION AUTHORIZATION alice; ROLLBACK PREPARED '$gid{$what}'");
}

# --- row 46: one statement -----------------------------------------------------------------------------------------

for my $command ('COMMIT', 'ROLLBACK', 'SET ROLE postgres')
{
	my $result = as('alice', "DO \$\$BEGIN EXECUTE 'UPDATE doc SET size = 7 WHERE id = $a; $command'; END\$\$");
	isnt($result->{sqlstate}, '', "$command cannot ride on a forwarded statement: $result->{sqlstate}");
}
is($cluster->sql('eu', "SELECT size FROM doc WHERE id = $a"), 1, 'and nothing came of it');

# --- §3 row 56: regions that writes wait for ---------------------------------------------------------------------

my $here = $cluster->sql('us', q{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('doc', id) = 'us'});
my $stream = $cluster->sql('us', q{SELECT slot_name FROM pg_replication_slots WHERE database = 'us' AND slot_name LIKE 'homing\_%' AND active});
my $node = $cluster->node('us');
$node->append_conf('postgresql.conf', "synchronous_standby_names = '\"$stream\"'\n");
$node->reload;
$cluster->poll('us', "SELECT current_setting('synchronous_standby_names') <> ''");
for my $level (qw(off local remote_write))
{
	$cluster->fails_with('us', "SET synchronous_commit = $level; UPDATE doc SET size = 9 WHERE id = $here", '55000', "synchronous_commit = $level is refused");
	$cluster->fails_with('us', "SET synchronous_commit = $level; BEGIN; UPDATE doc SET size = 9 WHERE id = $here; UPDATE doc SET size = 9 WHERE id = $a; COMMIT", '55000',
		"also in a transaction over regions");
	$cluster->fails_with('us', "BEGIN; UPDATE doc SET size = 9 WHERE id = $here; SET LOCAL synchronous_commit = $level; PREPARE TRANSACTION 'p'", '55000', 'and when it prepares');
}
is($cluster->sql('eu', 'SELECT count(*) FROM doc WHERE size = 9'), 0, 'nothing of it is there');
$cluster->sql('us', "SET synchronous_commit = on; UPDATE doc SET size = 9 WHERE id = $here");
is($cluster->sql('eu', "SELECT size FROM doc WHERE id = $here"), 9, 'what is acknowledged is at the other region');
$cluster->sql('us', 'SET synchronous_commit = local; CREATE TABLE other (a int); INSERT INTO other VALUES (1)');
pass('other tables are not concerned');

$cluster->stop;
done_testing();
