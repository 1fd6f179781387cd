# How a transaction ended is asked while it is still ending: there is one answer, and it is true. What outcomes rest
# on is out of the hands of those who only use the database (PROTOCOL §3 row 48, §4 rows 10, 30 and 46).
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = 1000;
my $cluster = HomingCluster->new(regions => [qw(us eu)], one_server => 1);
$cluster->form;

# A token as the region makes them: random, with its number and the hour.
$cluster->sql('us', q{
	CREATE FUNCTION make_token(region int, hours_ago int DEFAULT 0) RETURNS uuid LANGUAGE sql VOLATILE AS $$
		SELECT (substr(r, 1, 12) || '8' || substr(r, 14, 3) || '8' || substr(r, 18, 7) || lpad(to_hex(region), 4, '0')
			|| lpad(to_hex((extract(epoch FROM now())::bigint / 3600 - hours_ago) & 65535), 4, '0'))::uuid
		FROM replace(gen_random_uuid()::text, '-', '') r
	$$});

# --- the asker against the transaction --------------------------------------------------------------------

$cluster->sql('us', qq{
	CREATE TABLE token AS SELECT n, make_token(1) AS id FROM generate_series(1, $rounds) n;
	ALTER TABLE token ADD PRIMARY KEY (n);
	CREATE TABLE happened (n int PRIMARY KEY);
	CREATE TABLE said (n int PRIMARY KEY, committed boolean);
	CREATE SEQUENCE step;
	CREATE FUNCTION happen(which int) RETURNS void LANGUAGE plpgsql AS \$\$
	BEGIN
		INSERT INTO happened VALUES (which);
		PERFORM homing._keep_outcome((SELECT id FROM token WHERE n = which));
	EXCEPTION WHEN unique_violation THEN
		NULL;    -- it was ruled out
	END\$\$;
	CREATE FUNCTION ask(which int) RETURNS void LANGUAGE sql AS \$\$
		INSERT INTO said SELECT which, s.committed FROM homing._settle_outcome((SELECT id FROM token WHERE n = which)) s
	\$\$;
	-- Two steps for each token, by two clients at the same time; which one is first changes.
	CREATE FUNCTION take_step(step int) RETURNS void LANGUAGE plpgsql AS \$\$
	DECLARE
		which CONSTANT int := (step + 1) / 2;
	BEGIN
		IF (step + which) % 2 = 0 THEN
			PERFORM happen(which);
		ELSE
			PERFORM ask(which);
		END IF;
	END\$\$});
my $directory = PostgreSQL::Test::Utils::tempdir;
append_to_file("$directory/steps.sql", "SELECT take_step(nextval('step')::int);\n");
my $node = $cluster->node('us');
my ($out, $err) = ('', '');
IPC::Run::run([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 8, '-t', $rounds / 4, '-f', "$directory/steps.sql", 'us' ],
	'>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
unlike($err, qr/ERROR/, 'no error but the expected one');
is($cluster->sql('us', 'SELECT count(*) FROM said'), $rounds, 'every question was answered');
is($cluster->sql('us', 'SELECT count(*) FROM said FULL JOIN happened h USING (n) WHERE committed IS DISTINCT FROM (h.n IS NOT NULL)'), 0,
	'each answer is true');
my %answers = map { split /\|/ } split /\n/, $cluster->sql('us', 'SELECT committed, count(*) FROM said GROUP BY 1');
ok($answers{t} && $answers{f}, "either was first at times: $answers{t} committed, $answers{f} did not");
is($cluster->sql('us', 'SELECT count(*) FROM said JOIN token USING (n) WHERE committed <> (homing.outcome(id) = $$committed$$)'), 0,
	'and stays so');

# A transaction that is under way is waited for.
my $slow = $cluster->sql('us', 'SELECT make_token(1)');
my $session = $node->background_psql('us');
$session->query_safe('BEGIN');
$session->query_safe("SELECT homing._keep_outcome('$slow')");
$cluster->fails_with('us', "SET statement_timeout = '300ms'; SELECT * FROM homing._settle_outcome('$slow')", '57014', 'its end is waited for');
$session->query_safe('COMMIT');
$session->quit;
is($cluster->sql('us', "SELECT committed FROM homing._settle_outcome('$slow')"), 't', 'and then known');

# --- what is refused --------------------------------------------------------------------------------------

$cluster->sql('us', 'CREATE ROLE somebody LOGIN');
my $as_somebody = 'SET SESSION AUTHORIZATION somebody; ';
my ($here, $there, $old, $future) = map { $cluster->sql('us', "SELECT make_token($_)") } '1', '2', '1, 3', '1, -3';
$cluster->fails_with('us', "$as_somebody INSERT INTO homing.outcome (id, bucket, committed) VALUES ('$here', 0, true)", '42501',
	'nobody writes outcomes by hand');
$cluster->fails_with('us', "$as_somebody DELETE FROM homing.outcome", '42501', 'or removes them');
$cluster->fails_with('us', "$as_somebody SELECT * FROM homing.outcome", '42501', 'or reads the tokens of others');
$cluster->fails_with('us', "$as_somebody SELECT homing._rule_out('$here')", '42501', 'only regions rule out decisions');
$cluster->fails_with('us', "$as_somebody SELECT $_('$here')", '42501', "nor is a token of another role for $_", qr/another role/)
  for qw(homing._keep_outcome homing._settle_outcome);
$cluster->fails_with('us', "$as_somebody SELECT homing.resolve('x', 'commit')", '42501', 'only the owner resolves');
$cluster->fails_with('us', "$as_somebody SELECT homing.stat_forwarding_reset()", '42501', 'or resets the counters');
$cluster->fails_with('us', "$as_somebody SELECT homing._cancel_deadlocked(pg_backend_pid(), 0)", '42501', 'or cancels others');
$cluster->fails_with('us', "$as_somebody SELECT homing._wait_graph()", '42501', 'or sees who waits for whom');
for my $case ([ $there, 'of another region' ], [ $old, 'of three hours ago' ], [ $future, 'of the future' ])
{
	my ($token, $what) = @$case;
	$cluster->fails_with('us', "SELECT homing._keep_outcome('$token')", '55000', "a token $what is not kept");
	$cluster->fails_with('us', "SELECT * FROM homing._settle_outcome('$token')", '55000', "nor settled, $what");
}
$cluster->fails_with('us', 'SELECT homing._keep_outcome(gen_random_uuid())', '22023', 'another uuid is no token');
$cluster->fails_with('us', 'SELECT homing._greet(2::int2)', '55000', 'a region that is taken for another one says so');
$cluster->fails_with('us', "SELECT homing.wait_for('$_')", '22023', "not a causal token: $_") for '1', '0:1', '1:0', '99999:1', "1:x", '1:1;';
is($cluster->sql('us', "SELECT homing.wait_for('')"), 't', 'an empty one asks for nothing');

# A session that claims to act for another region serves or refuses, but forwards nothing.
$cluster->sql('us', q{CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); GRANT ALL ON counters TO somebody;
	SELECT homing.home_table('counters', 'id')});
my $away = $cluster->sql('us', q{SELECT min(id) FROM generate_series(1, 1000) id WHERE homing.home_of('counters', id) = 'eu'});
for my $claim ('eu', 'us', 'nowhere', q{x'; DROP TABLE counters; --})
{
	(my $quoted = $claim) =~ s/'/''/g;
	$cluster->fails_with('us', "$as_somebody SET homing.forwarded_from = '$quoted'; INSERT INTO counters VALUES ($away)", 'HM001',
		"whoever claims to come from $claim");
}
is($cluster->sql('us', 'SELECT count(*) FROM counters'), 0, 'nothing was written');

# One statement at a time, and no COMMIT in it.
$cluster->fails_with('us', "DO \$\$BEGIN EXECUTE 'INSERT INTO counters VALUES ($away); COMMIT'; END\$\$", '0A000', 'a statement with a COMMIT in it is refused');
is($cluster->sql('eu', 'SELECT count(*) FROM counters'), 0, 'and leaves nothing');

$cluster->stop;
done_testing();
