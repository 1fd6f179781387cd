# A region is declared lost that is healthy, reachable, and written to: it stops by itself, and what it had acknowledged
# is in the survivors or is an orphaned write, never in both and never in neither (PROTOCOL §3 rows 37 and 38).
use strict;
use warnings;

use HomingCluster;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], one_server => 1, rtt_ms => 0,
	settings => "homing.lease_duration = 2s\nmax_replication_slots = 40\nmax_wal_senders = 40\nmax_worker_processes = 60\n"
	. "max_logical_replication_workers = 20\nmax_connections = 100\n");
$cluster->form;
$cluster->sql('us', 'CREATE TABLE ledger (id int PRIMARY KEY, amount int NOT NULL)');
$cluster->sql('us', q{SELECT homing.home_table('ledger', 'id')});
my $serves = q{SELECT r.lease_left > interval '0' FROM homing.regions r JOIN homing.member m USING (name) JOIN homing.local_region l USING (region_id)};
my $tables = 0;

for my $way ('by a majority', 'by force', 'behind a cut link')
{
	$cluster->poll($_, $serves) for $cluster->names;
	$cluster->sql('us', q{SELECT homing.repartition('ledger', '{"us": 1, "eu": 1, "ap": 1}')});
	$cluster->converge;
	my @keys = split /\n/, $cluster->sql('ap', q{SELECT i FROM generate_series(1, 90000) i WHERE homing.home_of('ledger', i) = 'ap'
		AND NOT EXISTS (SELECT FROM ledger WHERE id = i)});
	my $statements = PostgreSQL::Test::Utils::tempdir() . '/statements.sql';
	append_to_file($statements, join '', map { "INSERT INTO ledger VALUES ($_, $_) RETURNING id;\n" } @keys);
	my ($acknowledged, $errors) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $cluster->conninfo('ap'), '-f', $statements ],
		'<', \undef, '>', \$acknowledged, '2>', \$errors, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$writer->pump until ($acknowledged =~ tr/\n//) >= 200;
	my $force = $way eq 'by a majority' ? '' : ', force => true';
	# Who sends to the others does not see them go.
	my @cut = $way eq 'behind a cut link' ? qw(us-ap eu-ap) : ();
	$cluster->wan->command('drop', $_) for @cut;
	$cluster->sql('us', "SELECT homing.declare_lost('ap'$force)");
	$writer->finish;
	like($errors, qr/25006|57P01/, "$way: its writer is refused");
	$cluster->{dead}{ap} = 1;
	$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
	$cluster->same_everywhere('ledger', "$way: the survivors are the same");
	my $before = $cluster->sql('us', 'SELECT coalesce(max(id), 0) FROM homing.orphaned_writes');
	my %acknowledged = map { $_ => 1 } split /\n/, $acknowledged;
	my %survived = map { $_ => 1 } grep { $acknowledged{$_} } split /\n/, $cluster->sql('us', 'SELECT id FROM ledger');
	$cluster->wan->command('heal', $_) for @cut;
	my $told = $cluster->sql('ap', 'SELECT homing.rejoin()');
	delete $cluster->{dead}{ap};
	$cluster->_use_links;
	$cluster->same_everywhere('ledger', "$way: it is back");
	my %orphaned = map { $_ => 1 } split /\n/, $cluster->sql('us', "SELECT key->>'id' FROM homing.orphaned_writes WHERE id > $before");
	my @nowhere = grep { !$survived{$_} && !$orphaned{$_} } keys %acknowledged;
	my @twice = grep { $survived{$_} && $orphaned{$_} } keys %acknowledged;
	is("@nowhere[0 .. ($#nowhere < 5 ? $#nowhere : 5)]", '', "$way: no acknowledged write is missing") or diag($told);
	is("@twice[0 .. ($#twice < 5 ? $#twice : 5)]", '', "$way: none is counted twice");
	# Those in use may be between two connections.
	$cluster->poll('us', q{SELECT bool_and(active) FROM pg_replication_slots WHERE slot_name !~ '_tail_'});
	is($cluster->sql('us', q{SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ '_tail_'}), '6', "$way: no slot is left");
	is($cluster->sql('us', q{SELECT count(*) FROM pg_prepared_xacts}), '0', "$way: nor a prepared transaction");
}

$cluster->stop;
done_testing();
