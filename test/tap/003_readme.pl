# README tells the truth: settings with their defaults, functions, views.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file('README.md');
my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', slurp_file($ENV{HOMING_SERVER_CONF}));
$node->append_conf('postgresql.conf', "homing.probe_interval = 1s\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_homing');

# | `name` | default | changed by | meaning |
my @documented = $readme =~ /^\| `(homing\.\w+)` \| (.*?) ?\| (\w+) \| .+ \|$/mg;
my @lines;
while (my ($name, $default, $context) = splice(@documented, 0, 3))
{
	push @lines, "$name|$default|$context";
}
my $settings = $node->safe_psql('postgres', q{
	SELECT name, CASE unit WHEN 'ms' THEN rtrim(to_char(boot_val::int / 1000.0, 'FM999990.999'), '.') || 's'
			ELSE boot_val || coalesce(unit, '') END,
		CASE context WHEN 'user' THEN 'anyone' WHEN 'superuser' THEN 'superuser' WHEN 'sighup' THEN 'configuration'
			ELSE 'restart' END
	FROM pg_settings WHERE name LIKE 'homing.%' ORDER BY name COLLATE "C"});
# Of those that SHOW ALL leaves out, pg_settings knows nothing.
my $hidden = 'homing.forwarded_from';
is(join("\n", grep { !/^\Q$hidden\E\|/ } @lines), join("\n", grep { !/^\Q$hidden\E\|/ } split /\n/, $settings),
	'the table of settings is complete, in order, with the right defaults');
is((grep { /^\Q$hidden\E\|\|anyone$/ } @lines), 1, "$hidden is documented");
is($node->safe_psql('postgres', "SHOW $hidden"), '', 'and exists, empty by default');

# Public functions and views are those whose name does not start with an underscore.
my %functions = map { $_ => 1 } $readme =~ /^\| `homing\.(\w+)\(/mg;
is(join(' ', sort keys %functions),
	$node->safe_psql('postgres', q{SELECT string_agg(DISTINCT proname::text COLLATE "C", ' ') FROM pg_proc
		WHERE pronamespace = 'homing'::regnamespace AND proname !~ '^_'}),
	'every public function is in the table');
my ($views) = $readme =~ /^Views, (.+?)\n\n/ms;
is(join(' ', sort($views =~ /`homing\.([a-z_]+)`/g)),
	$node->safe_psql('postgres', q{SELECT string_agg(relname::text, ' ' ORDER BY relname::text COLLATE "C") FROM pg_class
		WHERE relnamespace = 'homing'::regnamespace AND relkind = 'v' AND relname !~ '^_'}),
	'every view is named');
my @signatures = $readme =~ /^\| `homing\.(\w+\([^)]*\))/mg;
for my $signature (@signatures)
{
	my ($function, $arguments) = $signature =~ /^(\w+)\((.*)\)$/;
	for my $argument (grep { /^\w+$/ } split /, /, $arguments)
	{
		is($node->safe_psql('postgres', qq{SELECT bool_or('$argument' = ANY (proargnames)) FROM pg_proc
			WHERE pronamespace = 'homing'::regnamespace AND proname = '$function'}),
			't', "$function has an argument $argument");
	}
}

# Everything public has a comment, and nothing that changes the cluster is for everybody.
is($node->safe_psql('postgres', q{
	SELECT string_agg(proname::text, ' ') FROM pg_proc p
	WHERE pronamespace = 'homing'::regnamespace AND proname !~ '^_' AND obj_description(oid, 'pg_proc') IS NULL}),
	'', 'every public function has a comment');
is($node->safe_psql('postgres', q{
	SELECT string_agg(relname || '.' || attname, ' ') FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
	WHERE relnamespace = 'homing'::regnamespace AND relkind = 'v' AND relname !~ '^_' AND attnum > 0
		AND col_description(c.oid, attnum) IS NULL}),
	'', 'every column of a view has a comment');
$node->safe_psql('postgres', 'CREATE ROLE somebody');
is($node->safe_psql('postgres', q{
	SELECT string_agg(DISTINCT proname::text COLLATE "C", ' ') FROM pg_proc
	WHERE pronamespace = 'homing'::regnamespace AND proname !~ '^_' AND has_function_privilege('somebody', oid, 'execute')}),
	'causal_token home_of outcome run_everywhere wait_for',
	'everybody may ask where a key lives, how a transaction ended and what can be read, run his own statements everywhere, and no more');

$node->stop;
done_testing();
