# What pg_dump writes can be loaded at any region, whatever its form, and goes to the homes of its rows.
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], one_server => 1);
$cluster->form;
$cluster->sql('us', q{
	CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric, doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
		at timestamptz, data bytea, tags text[]);
	CREATE TABLE part (item_id int REFERENCES item, n int GENERATED ALWAYS AS IDENTITY, note text, PRIMARY KEY (item_id, n));
	SELECT homing.home_table('item', 'id');
	SELECT homing.home_table('part', 'item_id', colocate_with => 'item')});
my $fill = q{
	INSERT INTO item (id, name, price, at, data, tags) SELECT i, E'item \t' || i || E' ''"\\ \n' || chr(8364), i / 7.0, '2024-02-29 12:00+05'::timestamptz + i * interval '1 hour',
		decode(md5(i::text), 'hex'), CASE WHEN i % 3 > 0 THEN ARRAY[i::text, NULL, ',"'] END FROM generate_series(1, 300) i;
	INSERT INTO part (item_id, note) SELECT 1 + i % 300, nullif(repeat('x', i % 4), '') FROM generate_series(1, 600) i};
$cluster->sql('us', $fill);
$cluster->converge;
my %expected = map { $_ => $cluster->fingerprint('us', $_) } qw(item part);
like($expected{item}, qr/^300 rows/, 'there is something to dump');

my $directory = PostgreSQL::Test::Utils::tempdir;
my $node = $cluster->node('us');
my @server = ('-h', $node->host, '-p', $node->port);
my %form = (
	'COPY' => [],
	'--inserts' => ['--inserts'],
	'--column-inserts in groups' => [ '--column-inserts', '--rows-per-insert=40' ],
	'custom format' => ['-Fc']);
my @places = ([qw(eu ap)], [qw(us eu)], [qw(ap us)], [qw(eu eu)]);
for my $form (sort keys %form)
{
	my ($from, $to) = @{ shift @places };
	my $file = "$directory/dump";
	command_ok([ 'pg_dump', @server, '--data-only', '-t', 'item', '-t', 'part', @{ $form{$form} }, '-f', $file, $from ], "$form: dumped at $from");
	$cluster->sql('us', 'TRUNCATE item, part');
	$cluster->converge;
	my @load = $form eq 'custom format' ? ('pg_restore', @server, '--data-only', '--single-transaction', '-d', $to, $file)
	  : ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', @server, '-f', $file, $to);
	command_ok(\@load, "$form: loaded at $to");
	$cluster->poll($_, 'SELECT count(*) = 600 FROM part') for $cluster->names;
	for my $table (sort keys %expected)
	{
		is($cluster->fingerprint($_, $table), $expected{$table}, "$form: $table at $_") for $cluster->names;
	}
}

# The sequences that came with the dumps still give every region numbers of its own.
my %own = map { $_ => $cluster->sql('us', qq{SELECT min(id) FROM item WHERE homing.home_of('item', id) = '$_'}) } $cluster->names;
my %drawn;
for my $region ($cluster->names)
{
	$drawn{$_}++ for split /\n/, $cluster->sql($region, "INSERT INTO part (item_id) SELECT $own{$region} FROM generate_series(1, 5) RETURNING n");
}
is(scalar(keys %drawn), 15, 'regions draw different numbers after that');
$cluster->converge;

# psql's own copy.
my $rows = "$directory/rows";
$cluster->sql('ap', "\\copy item (id, name, price, at, data, tags) TO '$rows' WITH (FORMAT csv, HEADER)");
$cluster->sql('us', 'TRUNCATE item, part');
$cluster->sql('eu', "\\copy item (id, name, price, at, data, tags) FROM '$rows' WITH (FORMAT csv, HEADER)");
$cluster->poll($_, 'SELECT count(*) = 300 FROM item') for $cluster->names;
is($cluster->fingerprint($_, 'item'), $expected{item}, "\\copy: item at $_") for $cluster->names;

$cluster->stop;
done_testing();
