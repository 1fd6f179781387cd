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

# --- views lend the rights of their owner, and hide what they do not show ---------------------------------------

$cluster->sql('us', "UPDATE doc SET size = 10, title = 'seen', secret = 'z' WHERE id = $a; UPDATE doc SET size = 500 WHERE id = $b");
my $near = $cluster->sql('us', q{SELECT min(id) FROM generate_series(2, 1000) id WHERE homing.home_of('doc', id) = 'us' AND id NOT IN (SELECT id FROM doc)});
$cluster->sql('us', "INSERT INTO doc (id, owner, size) VALUES ($near, 'nobody', 10)");
$cluster->sql('us', "SELECT homing.run_everywhere(\$\$$_\$\$)") for split /;\s*/, q{REVOKE ALL ON doc FROM bob;
	CREATE VIEW small WITH (security_barrier) AS SELECT id, title, size FROM doc WHERE size < 100 WITH CHECK OPTION;
	CREATE VIEW deeper AS SELECT size AS extent, id AS number FROM small WHERE title = 'seen';
	CREATE VIEW keyless AS SELECT size, title FROM doc WHERE size < 100;
	CREATE VIEW invoked WITH (security_invoker) AS SELECT id, title FROM doc;
	ALTER VIEW small OWNER TO alice; ALTER VIEW deeper OWNER TO alice; ALTER VIEW keyless OWNER TO alice;
	GRANT SELECT, INSERT, UPDATE, DELETE ON small, deeper, keyless, invoked TO bob; CREATE VIEW barred AS SELECT id, title FROM doc;
	GRANT SELECT, UPDATE (title) ON barred TO bob; ALTER VIEW barred OWNER TO stranger; REVOKE ALL ON doc FROM stranger};
$cluster->sql($_, q{CREATE FUNCTION leaks(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql
	AS $$BEGIN RAISE EXCEPTION 'leaked %', $1 USING ERRCODE = 'ZZ001'; END$$}) for qw(us eu);
# Statement, and what comes of it for bob, who may use the views only.
my @through = (
	[ "UPDATE doc SET size = 1 WHERE id = $a", '42501' ],
	[ "UPDATE small SET size = 1 WHERE id = $a", 'UPDATE 1' ],
	[ "UPDATE small SET title = title || 's' WHERE id = $a RETURNING size, title", '10,seens UPDATE 1' ],
	[ "UPDATE small SET size = 1 WHERE id = $b", 'UPDATE 0' ],
	[ "UPDATE small SET size = 1 WHERE id = $b AND leaks(title)", 'UPDATE 0' ],
	[ "UPDATE small SET size = 100 WHERE id = $a", '44000' ],
	[ "DELETE FROM small WHERE id = $b", 'DELETE 0' ],
	[ "DELETE FROM small WHERE id = $a", 'DELETE 1' ],
	[ "INSERT INTO small VALUES ($away[20], 'new', 3) RETURNING title", 'new INSERT 0 1' ],
	[ "INSERT INTO small VALUES ($away[20], 'new', 300)", '44000' ],
	[ "INSERT INTO small VALUES ($away[20], 'new', 3), ($away[21], 'new', 4) ON CONFLICT (id) DO UPDATE SET size = 5", 'INSERT 0 2' ],
	[ "INSERT INTO small (id, size) VALUES ($away[20], 3), ((SELECT max(id) + 1 FROM small WHERE id < 0), 4)", '23502' ],
	[ "UPDATE small SET size = 2 WHERE id IN ($a, $near)", 'UPDATE 2' ],
	[ "UPDATE small SET size = 2 WHERE title = 'seen'", 'UPDATE 1' ],
	[ "UPDATE deeper SET extent = 2 WHERE number = $a RETURNING extent", '2 UPDATE 1' ],
	[ "UPDATE deeper SET extent = 2", 'UPDATE 1' ],
	[ "UPDATE small s SET size = d.extent + 1 FROM deeper d WHERE s.id = d.number AND d.number = $a RETURNING s.size", '11 UPDATE 1' ],
	[ "SELECT size FROM small WHERE id = $a FOR UPDATE", '10' ],
	[ "SELECT size FROM small WHERE id = $b FOR UPDATE", '' ],
	[ "UPDATE keyless SET size = 2", '42501' ],
	[ "UPDATE invoked SET title = 'x' WHERE id = $a", '42501' ],
	[ "UPDATE barred SET title = 'x' WHERE id = $a", '42501' ]);
for my $case (@through)
{
	my ($statement, $expected) = @$case;
	for my $region (qw(us eu))
	{
		my $session = PsqlSession->new($cluster->conninfo($region) . ' user=bob');
		$session->run('BEGIN');
		my $result = $session->run($statement);
		# Without a key to share out by, the table itself is needed at the other region.
		is($result->{sqlstate} || join(' ', @{ $result->{rows} }), $expected, "through a view at $region: $statement") or diag($result->{message});
		$session->run('ROLLBACK');
		$session->close;
	}
}
# In a transaction, what it wrote elsewhere is read there, through the view.
my $bob = PsqlSession->new($cluster->conninfo('us') . ' user=bob');
$bob->run($_) for 'BEGIN', "UPDATE small SET size = 7 WHERE id = $a";
is($bob->value("SELECT extent FROM deeper WHERE number = $a"), 7, 'a view is read where the transaction has written');
$bob->run('ROLLBACK');
$bob->run("PREPARE through AS UPDATE small SET size = size + 1 WHERE id = \$1");
is($bob->run("EXECUTE through($a)")->{count}, 1, "a prepared statement, run $_") for 1 .. 7;
like(join("\n", @{ $bob->run("EXPLAIN UPDATE small SET size = 1 WHERE id = $a")->{rows} }), qr/Remote SQL: UPDATE public\.small /, 'EXPLAIN shows the view');
$bob->close;
like($cluster->sql('us', "EXPLAIN UPDATE small SET size = 1 WHERE id = $a"), qr/Remote SQL: UPDATE public\.doc .*size < 100/s, 'who may use the table sends that, with the conditions of the view');
is($cluster->sql('us', "UPDATE small SET size = 1 WHERE id = $b RETURNING 1"), '', 'which hold for him, too');
is($cluster->sql('us', q{SELECT count(*) FROM pg_rewrite WHERE ev_action LIKE '%as issued%'}), 0, 'nothing of that is stored with a view');

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

# A name of this cluster is refused. Whoever pretends to forward gets what the coordinator says: it knows nothing of it.
my $hour = sprintf '%04x', time / 3600 % 65536;
my $forged = "homing:$cluster_id:1:$epoch:$oid:1:1:00000000-0000-8000-8000-00000001$hour:2.0";
my $begin = "SET SESSION AUTHORIZATION alice; BEGIN; LOCK TABLE doc IN ACCESS SHARE MODE; PREPARE TRANSACTION '$forged'";
$cluster->fails_with('eu', $begin, '42939', 'a name of a part cannot be taken', qr/is reserved/);
$cluster->sql('eu', "SET homing.forwarded_from = 'us'; $begin");
$cluster->fails_with('eu', "SET SESSION AUTHORIZATION $_; COMMIT PREPARED '$forged'", '55000', "a forged part cannot be committed by $_") for qw(alice bob);
$cluster->sql('us', "UPDATE doc SET size = 1 WHERE id = $a");
$cluster->poll('eu', 'SELECT count(*) = 0 FROM pg_prepared_xacts');
is($cluster->sql('us', 'SELECT homing.outcome(' . "'00000000-0000-8000-8000-00000001$hour')"), 'aborted', 'it is rolled back, as nobody decided to commit it');

# --- row 30: tokens of others --------------------------------------------------------------------------------------

my $known = $cluster->sql('eu', 'SELECT array_agg(id) FROM homing.outcome');
is(as('alice', "UPDATE doc SET size = 1 WHERE id = $a")->{sqlstate}, '', 'alice forwards');
my $token = $cluster->sql('eu', "SELECT id FROM homing.outcome WHERE id <> ALL ('$known')");
is(as('bob', "SELECT * FROM homing._settle_outcome('$token')", 'eu')->{sqlstate}, '42501', 'bob may not settle her transaction');
is(as('bob', "SELECT homing._keep_outcome('$token')", 'eu')->{sqlstate}, '42501', 'nor claim that it has committed');
is(as('alice', "SELECT committed FROM homing._settle_outcome('$token')", 'eu')->{rows}[0], 't', 'she may');

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
$node->append_conf('postgresql.conf', "synchronous_standby_names = '*'\n");
$node->reload;
$cluster->poll('us', "SELECT current_setting('synchronous_standby_names') = '*'");
$cluster->fails_with('us', "SET synchronous_commit = local; UPDATE doc SET size = 8 WHERE id = $here", '55000', 'any standby may be a region');
$cluster->sql('us', 'SET synchronous_commit = local; CREATE TABLE other (a int); INSERT INTO other VALUES (1)');
pass('other tables are not concerned');

$cluster->stop;
done_testing();
