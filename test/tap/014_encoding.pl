# Databases that are not in UTF8, and clients with encodings of their own: statements, values, errors, rows and names.
use strict;
use warnings;

use Encode qw(encode decode);
use HomingCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu)], one_server => 1, encoding => 'LATIN1');
$cluster->form;

# The rows, as characters, or the SQLSTATE.
sub run
{
	my ($region, $encoding, $sql) = @_;
	my ($sqlstate, $out) = $cluster->try_sql($region, encode($encoding, "SET client_encoding = '$encoding';\n$sql"), '-q');
	return $sqlstate || join(' ', split /\n/, decode($encoding, $out));
}

my ($small, $big, $sharp, $words, $key) = ("\x{e9}", "\x{c9}", "\x{df}", "w\x{f6}rter", "schl\x{fc}ssel");
is(run('us', 'UTF8', qq{CREATE TABLE "$words" ("$key" text PRIMARY KEY, w text CHECK (w <> '$big'));}), '', 'a table is created');
$cluster->sql('eu', encode('UTF8', qq{SET client_encoding = 'UTF8'; CREATE TABLE "$words" ("$key" text PRIMARY KEY, w text CHECK (w <> '$big'));}));
is(run('us', 'UTF8', qq{SELECT homing.home_table('"$words"', '$key');}), '', 'and homed');
$cluster->converge;

my %keys;
push @{ $keys{ run('us', 'UTF8', qq{SELECT homing.home_of('"$words"', '$small$_'::text);}) } }, "$small$_" for 1 .. 20;
for my $encoding (qw(UTF8 LATIN1))
{
	for my $home (qw(us eu))
	{
		my $k = shift @{ $keys{$home} };
		my $what = "client in $encoding, home $home";
		is(run('us', $encoding, qq{SELECT homing.home_of('"$words"', '$k'::text);}), $home, "$what: the key has one home");
		is(run('us', $encoding, qq{INSERT INTO "$words" VALUES ('$k', '$sharp''"') RETURNING "$key", w, length(w), encode(w::bytea, 'hex');}),
			"$k|$sharp'\"|3|df2722", "$what: INSERT");
		is(run('us', $encoding, qq{UPDATE "$words" SET w = w || \$\$$small\$\$ WHERE "$key" = '$k' RETURNING w, octet_length(w);}),
			"$sharp'\"$small|4", "$what: UPDATE");
		is(run('us', $encoding, qq{PREPARE p(text, text) AS UPDATE "$words" SET w = \$2 WHERE "$key" = \$1 RETURNING *; EXECUTE p('$k', '$small');}),
			"$k|$small", "$what: parameters");
		is(run('us', $encoding, qq{UPDATE "$words" SET w = '$big' WHERE "$key" = '$k';}), '23514', "$what: an error");
		is(run('us', $encoding, qq{COPY "$words" FROM stdin;\n$k-c\t$sharp\n\\.\nUPDATE "$words" SET w = w || 'c' WHERE "$key" = '$k-c' RETURNING w;}),
			"${sharp}c", "$what: COPY");
		is(run('us', $encoding, qq{SELECT w FROM "$words" WHERE "$key" = '$k' FOR UPDATE;}), $small, "$what: FOR UPDATE");
	}
}
is(run('us', 'UTF8', qq{INSERT INTO "$words" SELECT "$key" || '$small', w FROM "$words"; UPDATE "$words" SET w = w || '$sharp' WHERE w LIKE '%$small%';}),
	'', 'statements over both regions');
is(run('us', 'UTF8', qq{INSERT INTO "$words" VALUES ('\x{20ac}');}), '22P05', 'a character that the database has not');
is(run('us', 'UTF8', qq{COPY "$words" FROM '/dev/null' (FORMAT binary);}), '22P04', 'an empty file');
is(run('eu', 'UTF8', qq{ALTER TABLE "$words" ADD COLUMN "gr\x{f6}${sharp}e" int;}), '', 'DDL');
$cluster->converge;
my $rows = run('us', 'UTF8', qq{SELECT * FROM "$words" ORDER BY "$key";});
is(run('eu', 'UTF8', qq{SELECT * FROM "$words" ORDER BY "$key";}), $rows, 'the regions are the same');
is(scalar(split / /, $rows), 16, 'and have all rows');

# A binary text is not converted on its way.
my $file = $cluster->node('us')->basedir . '/words';
$cluster->sql('us', encode('UTF8', qq{SET client_encoding = 'UTF8'; COPY (SELECT 'x' || k, 'y' FROM generate_series(1, 20) k) TO '$file' (FORMAT binary)}));
is(run('us', 'UTF8', qq{COPY "$words" ("$key", w) FROM '$file' (FORMAT binary);}), '0A000', 'binary COPY needs the encoding of the database');
is(run('us', 'LATIN1', qq{COPY "$words" ("$key", w) FROM '$file' (FORMAT binary); SELECT count(*) FROM "$words" WHERE w = 'y';}), '20', 'then it works');

$cluster->stop;
done_testing();
