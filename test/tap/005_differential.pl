# The same random statements on a plain database and, region by region, on a cluster: the same answers, and in
# the end the same rows everywhere.
#
# DIFFERENTIAL_SEED, DIFFERENTIAL_STATEMENTS and DIFFERENTIAL_SECONDS (stop after that time) choose another
# run; a failure says how to repeat it.
use strict;
use warnings;

use HomingCluster;
use PostgreSQL::Test::Utils;
use PsqlSession;
use RandomStatements;
use Test::More;

my $seed = $ENV{DIFFERENTIAL_SEED} || 1;
my $statements = $ENV{DIFFERENTIAL_STATEMENTS} || 1000;
my $seconds = $ENV{DIFFERENTIAL_SECONDS};
my $batch_size = 10;
my $batches_a_session = 12;
my $most_differences = $ENV{DIFFERENTIAL_DIFFERENCES} || 1;

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], one_server => 1);
my $plain = $cluster->conninfo('us') =~ s/dbname=us/dbname=plain/r;
$cluster->node('us')->safe_psql('postgres', 'CREATE DATABASE plain TEMPLATE template0');
$cluster->node('us')->safe_psql('plain', RandomStatements::schema());
$cluster->sql($_, RandomStatements::schema()) for $cluster->names;
$cluster->form;
$cluster->sql('us', RandomStatements::homes());
$cluster->converge;
my $stride = 0;
$cluster->sql($_, 'ALTER SEQUENCE ticket_id_seq INCREMENT 3 RESTART ' . ++$stride) for $cluster->names;

# All slots of the server at once, without a new connection each time.
my $observer = PsqlSession->new($cluster->conninfo('us'));

sub converge
{
	my $written = $observer->value('SELECT pg_current_wal_flush_lsn()');
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($observer->value("SELECT bool_and(confirmed_flush_lsn >= '$written') FROM pg_replication_slots WHERE slot_name !~ '_tail_'") eq 't')
	{
		BAIL_OUT("regions do not apply what was written up to $written") if time > $deadline;
		select(undef, undef, undef, 0.01);
	}
	return;
}

# What a plain database would have answered if it refused what the cluster does.
my $refusal = q{DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '0A000'; END $$};

sub describe
{
	my ($result) = @_;
	return $result->{sqlstate} ? "$result->{sqlstate} $result->{message}" : join("\n", @{ $result->{rows} }, "count $result->{count}");
}

# The command's tag comes last; rows before it are a set, unless their order is promised.
sub rows_of
{
	my ($statement, $result) = @_;
	return join("\n", $statement->{ordered} ? @{ $result->{rows} } : sort @{ $result->{rows} });
}

sub same
{
	my ($statement, $got, $expected) = @_;
	if ($got->{sqlstate} || $expected->{sqlstate})
	{
		return 1 if $got->{sqlstate} eq $expected->{sqlstate};
		# Which of several rows fails first depends on their order.
		return $statement->{loose} && !grep { $_->{sqlstate} !~ /^(?:2[123]|ZZ)/ } $got, $expected;
	}
	return $got->{count} eq $expected->{count} && rows_of($statement, $got) eq rows_of($statement, $expected);
}

my %sessions;

sub session
{
	my ($name, $conninfo) = @_;
	unless ($sessions{$name})
	{
		$sessions{$name} = PsqlSession->new($conninfo);
		$sessions{$name}->run($_) for RandomStatements::preparation();
	}
	return $sessions{$name};
}

my $random = RandomStatements->new($seed);
my ($done, $differences, $refused, $failed, $batches) = (0, 0, 0, 0, 0);
my $begin = time;
while ($done < $statements && $differences < $most_differences && (!$seconds || time - $begin < $seconds))
{
	my $region = ($cluster->names)[ $batches % 3 ];
	my @before;
	for my $statement ($random->batch($batch_size))
	{
		$done++;
		my $got = session($region, $cluster->conninfo($region))->run($statement->{sql});
		my $is_refused = $statement->{refusable} && $got->{sqlstate} eq '0A000';
		my $expected = session('plain', $plain)->run($is_refused ? $refusal : $statement->{sql});
		$refused++ if $is_refused;
		$failed++ if $got->{sqlstate};
		push @before, $statement->{sql};
		next if same($statement, $got, $expected);
		$differences++;
		diag("seed $seed, statement $done, at $region, the last of:\n" . join(";\n", @before)
			  . "\n--- cluster\n" . describe($got) . "\n--- plain database\n" . describe($expected));
	}
	converge();
	# Every now and then a new session, without plans and connections.
	if (++$batches % (3 * $batches_a_session) == 0)
	{
		$_->close for values %sessions;
		%sessions = ();
	}
}
is($differences, 0, "$done statements have the same outcome (seed $seed)");
cmp_ok($refused, '<=', $done / 20, "few are refused ($refused)");
cmp_ok($failed, '<=', $done / 3, "most succeed ($failed fail)");

# The lines that only one of two lists has.
sub only
{
	my ($lines, $others) = @_;
	my %count;
	$count{$_}++ for @$others;
	my @only = grep { --($count{$_} //= 0) < 0 } @$lines;
	return join("\n", @only[ 0 .. ($#only < 9 ? $#only : 9) ]);
}

my %contents = RandomStatements::contents();
session($_, $_ eq 'plain' ? $plain : $cluster->conninfo($_))->run('RESET ALL') for 'plain', $cluster->names;
my $rows = 0;
for my $table (sort keys %contents)
{
	my $expected = session('plain', $plain)->run($contents{$table});
	$rows += $expected->{count};
	for my $region ($cluster->names)
	{
		my $got = session($region, $cluster->conninfo($region))->run($contents{$table});
		my ($more, $less) = (only($got->{rows}, $expected->{rows}), only($expected->{rows}, $got->{rows}));
		ok($more eq '' && $less eq '', "$table at $region ($expected->{count} rows)")
		  or diag("seed $seed: $contents{$table}\n--- only at $region\n$more\n--- only in the plain database\n$less");
	}
}
cmp_ok($rows, '>', 50, "tables have rows ($rows)");

$_->close for $observer, values %sessions;
$cluster->stop;
done_testing();
