# A region dies in the middle of its work, with one survivor behind the other and both behind it. Every write that
# it had acknowledged is in the survivors, or is an orphaned write when it has come back; never in both.
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 2);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE ledger (id int PRIMARY KEY, amount int NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('ledger', 'id')});
$cluster->poll('ap', q{SELECT count(*) = 1 FROM homing.tables WHERE state = 'active'});
for my $region ($cluster->names)
{
	$cluster->poll($region, q{SELECT count(*) = 1 FROM homing.tail_slot WHERE current AND taken IS NULL});
}

# Acknowledged is what psql has printed.
my @keys = split /\n/, $cluster->sql('ap', q{SELECT i FROM generate_series(1, 120000) i WHERE homing.home_of('ledger', i) = 'ap'});
my $statements = PostgreSQL::Test::Utils::tempdir() . '/statements.sql';
append_to_file($statements, join '', map { "INSERT INTO ledger VALUES ($_, $_) RETURNING id;\n" } @keys);
my ($acknowledged, $errors) = ('', '');
my $writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $cluster->conninfo('ap'), '-f', $statements ], '<', \undef, '>', \$acknowledged, '2>', \$errors,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
sub until_acknowledged
{
	my ($count) = @_;
	$writer->pump until ($acknowledged =~ tr/\n//) >= $count;
	return;
}
until_acknowledged(300);
$cluster->wan->command('drop', 'eu-ap');
until_acknowledged(900);
$cluster->wan->command('drop', 'us-ap');
until_acknowledged(1500);
$cluster->kill('ap');
$writer->finish;

my @acknowledged = split /\n/, $acknowledged;
my %position = map { $_ => $cluster->sql($_, q{SELECT homing._applied_positions()->>(SELECT region_id::text FROM homing.member WHERE name = 'ap')}) } qw(us eu);
isnt($position{us}, $position{eu}, 'the survivors stand at different positions');
$cluster->sql('eu', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->same_everywhere('ledger', 'the survivors are the same');
my %survived = map { $_ => 1 } split /\n/, $cluster->sql('us', 'SELECT id FROM ledger');
cmp_ok(scalar(keys %survived), '>', 300, 'what the further one had has survived');
cmp_ok(scalar(keys %survived), '<', scalar(@acknowledged), 'not all has');
is($cluster->sql($_, "INSERT INTO ledger VALUES (-1 - length('$_'), 0) RETURNING 1"), '1', "$_ writes on") for qw(us);
$cluster->sql('us', "INSERT INTO ledger VALUES ($keys[-1], 0)");
$survived{ $keys[-1] } = 1;

$cluster->wan->command('heal', $_) for qw(us-ap eu-ap);
$cluster->start('ap');
$cluster->{dead}{ap} = 1;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->sql('ap', 'SELECT homing.rejoin()');
delete $cluster->{dead}{ap};
$cluster->_use_links;
$cluster->same_everywhere('ledger', 'all three are the same');
my %orphaned = map { $_ => 1 } split /\n/, $cluster->sql('ap', q{SELECT key->>'id' FROM homing.orphaned_writes WHERE operation = 'insert'});
is(join(' ', grep { !$survived{$_} && !$orphaned{$_} } @acknowledged), '', 'no acknowledged write is missing');
is(join(' ', grep { $survived{$_} } keys %orphaned), '', 'none is orphaned and survives');
is($cluster->sql('us', q{SELECT count(*) FROM homing.orphaned_writes WHERE verdict <> 'applies cleanly'}), '0', 'all of them apply cleanly');
is($cluster->sql('eu', q{SELECT homing.reapply(array_agg(id)) FROM homing.orphaned_writes}), scalar(keys %orphaned), 'and are made again');
$cluster->same_everywhere('ledger');
is($cluster->sql('ap', 'SELECT count(*) FROM ledger WHERE id = ANY (\'{' . join(',', @acknowledged) . '}\')'), scalar(@acknowledged), 'all are there');
$cluster->stop;
done_testing();
