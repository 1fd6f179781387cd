# Regions join while every region writes: nothing is lost, nothing is applied twice.
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap sa)]);

$cluster->sql('us', q{SELECT homing.create_cluster('us', '} . $cluster->conninfo('us') . q{')});
$cluster->join_region('eu', 'us');
$cluster->sql('us', q{
	CREATE TABLE at_us (id int PRIMARY KEY, n int NOT NULL DEFAULT 1, pad text NOT NULL DEFAULT repeat('x', 100));
	CREATE TABLE at_eu (LIKE at_us INCLUDING ALL);});
$cluster->sql('us', qq{SELECT homing.home_table('at_$_', 'id', placement => 'region', region => '$_')}) for qw(us eu);

# Rows come, change and go; a sequence of changes that misses one, or has one twice, ends differently.
sub write_at
{
	my ($region) = @_;
	my $script = $cluster->node($region)->basedir . '/load.sql';
	append_to_file($script, qq{\\set id random(1, 2000)
\\set fate random(1, 4)
INSERT INTO at_$region VALUES (:id) ON CONFLICT (id) DO UPDATE SET n = at_$region.n + 1;
\\if :fate = 1
DELETE FROM at_$region WHERE id = :id;
\\endif
});
	my ($out, $err) = ('', '');
	my $node = $cluster->node($region);
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', '2', '-T', '600', '-f', $script, 'app' ],
		'>', \$out, '2>', \$err, IPC::Run::timeout(300));
	return { run => $run, err => \$err };
}
my @load = map { write_at($_) } qw(us eu);
for my $region (qw(us eu))
{
	$cluster->node($region)->poll_query_until('app', "SELECT count(*) > 100 FROM at_$region")
		or die "no load at $region";
}

# By the region that writes one table, then by the one that writes the other.
$cluster->join_region('ap', 'us');
$cluster->join_region('sa', 'eu');
my %joined = map { $_ => $cluster->sql($_, 'SELECT (SELECT sum(n) FROM at_us) + (SELECT sum(n) FROM at_eu)') } qw(ap sa);
for my $region (qw(ap sa))
{
	$cluster->node($region)->poll_query_until('app',
		"SELECT (SELECT sum(n) FROM at_us) + (SELECT sum(n) FROM at_eu) > $joined{$region}")
		or die "no change reached $region";
	pass("changes reach $region");
}

for my $load (@load)
{
	# Not INT: who starts the tests in the background may have it ignored.
	$load->{run}->signal('TERM');
	IPC::Run::finish($load->{run});
	unlike(${ $load->{err} }, qr/ERROR/, 'no writer saw an error');
}
$cluster->same_everywhere($_) for qw(at_us at_eu);
for my $region ($cluster->names)
{
	unlike(slurp_file($cluster->node($region)->logfile), qr/ERROR:.*(?:duplicate key|could not)/, "no conflict at $region");
}

done_testing();
