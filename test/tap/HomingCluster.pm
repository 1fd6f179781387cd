# A cluster of regions for TAP tests: one server each, optionally with a WAN between them.
#
#   my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 40);
#   $cluster->form;                               create_cluster, join_cluster
#   $cluster->sql('us', 'SELECT ...');            dies on error
#   $cluster->fails_with('us', 'UPDATE ...', '25006', 'a lost region refuses');
#   $cluster->same_everywhere('accounts');        waits until everything is replicated, then compares
#   $cluster->kill('us');
#
# With one_server => 1 the regions are databases of one server: cheaper, and enough where nothing is killed.
#
# encoding => 'LATIN1' is that of the databases. witness => 'w' adds a server of that name that votes only; it is not
# among the names.
#
# With rtt_ms every region reaches every other one through a link of its own, named "us-eu" for what us
# opens to eu; $cluster->wan->command('drop', 'us-eu') cuts it. Nothing here sleeps: it polls, and gives up
# after PG_TEST_TIMEOUT_DEFAULT seconds.
package HomingCluster;

use strict;
use warnings;

use Carp;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WanProxy;

sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		names => $options{regions},
		dbname => $options{dbname} // 'app',
		one_server => $options{one_server},
		encoding => $options{encoding} // 'UTF8',
		witness => $options{witness},
		nodes => {}
	}, $class;
	$self->_start_node($_, $options{settings} // '') for $self->_servers;
	$self->_start_wan($options{rtt_ms} / 2) if defined $options{rtt_ms};
	return $self;
}

sub _start_node
{
	my ($self, $name, $settings) = @_;
	my ($node) = $self->{one_server} ? values %{ $self->{nodes} } : ();
	$node //= _new_server($name, $settings);
	my $database = $self->database($name);
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0 ENCODING '$self->{encoding}'");
	$node->safe_psql($database, 'CREATE EXTENSION pg_homing');
	$self->{nodes}{$name} = $node;
	return;
}

sub _new_server
{
	my ($name, $settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 'logical', extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', slurp_file($ENV{HOMING_SERVER_CONF}));
	$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\n$settings");
	$node->start;
	return $node;
}

sub _start_wan
{
	my ($self, $delay) = @_;
	my @links;
	for my $from ($self->_servers)
	{
		for my $to ($self->_servers)
		{
			next if $from eq $to;
			my $port = PostgreSQL::Test::Cluster::get_free_port();
			$self->{link_port}{"$from-$to"} = $port;
			push @links, [ "$from-$to", $delay, $port, $self->node($to)->port ];
		}
	}
	$self->{wan} = WanProxy->new(@links);
	return;
}

sub node { my ($self, $name) = @_; return $self->{nodes}{$name} // croak "no region $name"; }
sub wan { my ($self) = @_; return $self->{wan} // croak 'this cluster has no WAN'; }
sub database { my ($self, $name) = @_; return $self->{one_server} ? $name : $self->{dbname}; }
sub names { my ($self) = @_; return @{ $self->{names} }; }
sub _servers { my ($self) = @_; return ($self->names, $self->{witness} // ()); }
sub living { my ($self) = @_; return grep { !$self->{dead}{$_} } $self->names; }

# How a client beside the region connects to it.
sub conninfo
{
	my ($self, $name) = @_;
	return 'host=127.0.0.1 port=' . $self->node($name)->port . ' dbname=' . $self->database($name);
}

# The statements that make a cluster of all regions. The first one founds it.
sub form
{
	my ($self) = @_;
	my ($first, @others) = $self->names;
	$self->sql($first, "SELECT homing.create_cluster('$first', '" . $self->conninfo($first) . "')");
	$self->join_region($_, $first) for @others;
	$self->create_witness($first) if $self->{witness};
	return;
}

sub create_witness
{
	my ($self, $via) = @_;
	my $name = $self->{witness};
	$self->sql($name, sprintf(
		"SELECT homing.create_witness('%s', '%s', via => '%s')",
		$name, $self->conninfo($name), $self->conninfo($via)));
	$self->_use_links if $self->{wan};
	return;
}

sub join_region
{
	my ($self, $name, $via) = @_;
	$self->sql($name, sprintf(
		"SELECT homing.join_cluster('%s', '%s', via => '%s')",
		$name, $self->conninfo($name), $self->conninfo($via)));
	$self->_use_links if $self->{wan};
	return;
}

# From here on regions reach each other over the WAN only.
sub _use_links
{
	my ($self) = @_;
	for my $from ($self->_servers)
	{
		my @peers = split /\n/, $self->sql($from, q{
			SELECT m.name || ' ' || coalesce(s.subname, '')
			FROM homing.member m CROSS JOIN homing.local_region l
			LEFT JOIN pg_subscription s ON s.subname = homing._stream_name(m.region_id, l.region_id)
				AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
			WHERE m.region_id <> l.region_id AND m.status = 'active'
			UNION ALL
			SELECT w.name || ' ' FROM homing.witness w JOIN homing.local_region l ON w.region_id <> l.region_id
			WHERE w.status = 'active'});
		for my $peer (@peers)
		{
			my ($to, $subscription) = split / /, $peer;
			my $port = $self->{link_port}{"$from-$to"};
			$self->sql($from, "ALTER SERVER $to OPTIONS (SET port '$port')");
			$self->sql($from, "ALTER SUBSCRIPTION $subscription CONNECTION "
				. "'host=127.0.0.1 port=$port dbname=" . $self->database($to) . "'") if $subscription;
		}
	}
	return;
}

sub sql
{
	my ($self, $name, $sql) = @_;
	return $self->node($name)->safe_psql($self->database($name), $sql);
}

# Runs SQL at a region; returns (SQLSTATE or '', standard output, standard error).
sub try_sql
{
	my ($self, $name, $sql, @options) = @_;
	my ($out, $err) = ('', '');
	my $code = $self->node($name)->psql(
		$self->database($name), $sql,
		stdout => \$out,
		stderr => \$err,
		on_error_stop => 1,
		extra_params => [ '-v', 'VERBOSITY=verbose', @options ]);
	return ('', $out, $err) if $code == 0;
	my ($sqlstate) = $err =~ /(?:ERROR|FATAL):  (\w{5}):/;
	return ($sqlstate // "psql exit code $code", $out, $err);
}

# A test: the statement fails with this SQLSTATE, and with this message when a pattern is given.
sub fails_with
{
	my ($self, $name, $sql, $sqlstate, $what, $message) = @_;
	my ($got, undef, $err) = $self->try_sql($name, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $sqlstate, $what) or diag($err);
	like($err, $message, "$what: message") if defined $message;
	return;
}

sub poll
{
	my ($self, $name, $query, $expected) = @_;
	$expected //= 't';
	$self->node($name)->poll_query_until($self->database($name), $query, $expected)
	  or croak "region $name never answered \"$expected\" to: $query";
	return;
}

# Waits until each living region has applied what each other one has committed up to now.
sub converge
{
	my ($self) = @_;
	my %written = map { $_ => $self->sql($_, 'SELECT pg_current_wal_flush_lsn()') } $self->living;
	for my $from ($self->living)
	{
		for my $to ($self->living)
		{
			next if $from eq $to;
			# The slot of the newest incarnation of the peer.
			$self->poll($from, qq{
				SELECT s.confirmed_flush_lsn >= '$written{$from}'
				FROM homing.local_region l,
					(SELECT region_id FROM homing.member WHERE name = '$to'
					 ORDER BY region_id DESC LIMIT 1) m,
					pg_replication_slots s
				WHERE s.slot_name = homing._stream_name(l.region_id, m.region_id)});
		}
	}
	return;
}

# A fingerprint of all rows of a table or query, equal exactly when the rows are.
sub fingerprint
{
	my ($self, $name, $table) = @_;
	return $self->sql($name, qq{
		SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex';
		SELECT count(*) || ' rows ' || md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE "C"), ''))
		FROM $table t});
}

# Makes the homed table accounts (id, balance) with ids 1 to 60 at us. Returns the first id of each region, by its name.
sub accounts
{
	my ($self) = @_;
	$self->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)');
	$self->sql('us', q{SELECT homing.home_table('accounts', 'id')});
	$self->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 60)');
	return map {
		$_ => $self->sql('us', "SELECT id FROM accounts WHERE homing.home_of('accounts', id) = '$_' ORDER BY id LIMIT 1")
	} $self->names;
}

# The names of the WAN's links from and to the region.
sub links { my ($self, $of) = @_; return grep { /\b$of\b/ } map { (split ' ')[0] } $self->wan->command('list'); }

# Limits the size of files, in bytes, for every process that the region's server starts from now on.
sub limit_files
{
	my ($self, $name, $size) = @_;
	my ($postmaster) = split /\n/, slurp_file($self->node($name)->data_dir . '/postmaster.pid');
	system_or_bail('prlimit', '--pid', $postmaster, "--fsize=$size:unlimited");
	return;
}

# A test: after convergence the table is identical in all living regions.
sub same_everywhere
{
	my ($self, $table, $what) = @_;
	$self->converge;
	my ($first, @others) = $self->living;
	my $expected = $self->fingerprint($first, $table);
	my %different = map { $_ => $self->fingerprint($_, $table) } @others;
	delete @different{ grep { $different{$_} eq $expected } keys %different };
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!%different, ($what // "$table is the same everywhere") . " ($expected)")
	  or diag(explain(\%different));
	return;
}

# SIGKILL to every process of the region's server, as a power cut does it.
sub kill
{
	my ($self, $name) = @_;
	my $node = $self->node($name);
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	# While it starts others, some would be missed.
	CORE::kill('STOP', $postmaster);
	my @children = split ' ', `ps -o pid= --ppid $postmaster`;
	$node->kill9;
	CORE::kill('KILL', @children) if @children;
	$self->{dead}{$name} = 1;
	# Nothing may still hold the shared memory when it starts again.
	my $left = 10 * $PostgreSQL::Test::Utils::timeout_default;
	while (grep { CORE::kill(0, $_) } $postmaster, @children)
	{
		croak "processes of region $name do not end" if --$left == 0;
		select(undef, undef, undef, 0.1);
	}
	return;
}

sub start
{
	my ($self, $name) = @_;
	$self->node($name)->start;
	delete $self->{dead}{$name};
	return;
}

sub stop
{
	my ($self) = @_;
	my %servers = map { $self->node($_)->port => $self->node($_) } grep { !$self->{dead}{$_} } $self->_servers;
	$_->stop('fast') for values %servers;
	$self->{wan}->stop if $self->{wan};
	return;
}

1;
