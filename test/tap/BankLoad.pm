# Clients that move money between accounts of all regions, each in a process of its own, and their record of
# what they were told.
#
#   my $load = BankLoad->start(clients => 8, conninfos => [...], accounts => { us => [...], eu => [...] }, seed => 1, dir => $dir);
#   $load->stop;
#   for my $transfer ($load->transfers) { $transfer->{id}, {verdict}, {token}, {sqlstate}, {form} }
#
# The verdict is "done" when the server said that it has committed, "failed" when it reported an error that
# leaves nothing behind, "unknown" when it said 08007 (with the token) or the connection ended.
package BankLoad;

use strict;
use warnings;

use Carp;
use POSIX ();
use PsqlSession;
use Time::HiRes qw(sleep);

sub start
{
	my ($class, %options) = @_;
	my $self = bless { %options, pids => [] }, $class;
	for my $number (0 .. $options{clients} - 1)
	{
		my $pid = fork() // croak "fork: $!";
		if ($pid == 0)
		{
			eval { $self->_be_client($number); 1 } or warn "client $number: $@";
			POSIX::_exit(0);
		}
		push @{ $self->{pids} }, $pid;
	}
	return $self;
}

# Lets every client finish its transfer. Nothing may be cut any more.
sub stop
{
	my ($self) = @_;
	kill 'TERM', @{ $self->{pids} };
	local $?;
	waitpid($_, 0) for @{ $self->{pids} };
	return;
}

sub transfers
{
	my ($self) = @_;
	my @transfers;
	for my $number (0 .. $self->{clients} - 1)
	{
		open(my $record, '<', $self->_file($number, 'record')) or croak "client $number left no record: $!";
		while (my $line = <$record>)
		{
			chomp $line;
			my %transfer;
			@transfer{qw(id form verdict sqlstate token)} = split /,/, $line, -1;
			push @transfers, \%transfer;
		}
	}
	return @transfers;
}

sub _file { my ($self, $number, $kind) = @_; return "$self->{dir}/$kind.$number"; }

# --- a client ---------------------------------------------------------------------------------------------

sub _be_client
{
	my ($self, $number) = @_;
	my $over = 0;
	local $SIG{TERM} = sub { $over = 1 };
	local $SIG{PIPE} = 'IGNORE';
	srand($self->{seed} * 1000 + $number);
	my $conninfo = $self->{conninfos}[ $number % @{ $self->{conninfos} } ];
	open(my $record, '>', $self->_file($number, 'record')) or croak "record: $!";
	$record->autoflush(1);
	my $session;
	for (my $id = $number; !$over; $id += $self->{clients})
	{
		$session //= $self->_connect($conninfo, $number, \$over) or last;
		my $transfer = $self->_transfer($session, $id);
		if ($transfer->{gone})
		{
			$session->close;
			undef $session;
		}
		my $token = ($transfer->{sqlstate} // '') eq '08007' ? $self->_last_token($number) : '';
		print $record join(',', $id, $transfer->{form}, $transfer->{verdict}, $transfer->{sqlstate}, $token), "\n";
		sleep(0.05) if $transfer->{verdict} ne 'done';    # a region that is down refuses at once
	}
	$session->close if defined $session;
	return;
}

sub _connect
{
	my ($self, $conninfo, $number, $over) = @_;
	until ($$over)
	{
		my $session = eval { PsqlSession->new($conninfo, errors => $self->_file($number, 'errors')) };
		if (defined $session && eval { $session->run($_) for @{ $self->{settings} // [] }; 1 })
		{
			return $session;
		}
		$session->close if defined $session;
		sleep(0.1);    # its server is down
	}
	return;
}

sub _pick { my ($list) = @_; return $list->[ int(rand(@$list)) ]; }

# The statements of one transfer. Each leaves an entry with the transfer's number at both accounts.
sub _statements
{
	my ($self, $id) = @_;
	my @homes = sort keys %{ $self->{accounts} };
	# Often within one home: then its COMMIT alone decides, from wherever it is sent.
	my $home = _pick(\@homes);
	my ($from, $to) = map { _pick($self->{accounts}{$_}) } $home, int(rand(3)) == 0 ? $home : _pick(\@homes);
	$to = _pick($self->{accounts}{$home}) while $to == $from;
	my $amount = 1 + int(rand(9));
	my @entries = map { "INSERT INTO entries VALUES ($_->[0], $id, $_->[1])" } [ $from, -$amount ], [ $to, $amount ];
	my @moves = map { "UPDATE accounts SET balance = balance + ($_->[1]) WHERE id = $_->[0]" } [ $from, -$amount ], [ $to, $amount ];
	my $form = _pick([qw(block block savepoint alone)]);
	return ($form, "INSERT INTO entries VALUES ($from, $id, -$amount), ($to, $id, $amount)") if $form eq 'alone';
	return ($form, 'BEGIN', $moves[0], 'SAVEPOINT a', @moves, 'ROLLBACK TO a', 'SAVEPOINT b', $moves[1], 'RELEASE b', @entries, 'COMMIT')
	  if $form eq 'savepoint';
	return ($form, 'BEGIN', @moves, @entries, 'COMMIT');
}

sub _transfer
{
	my ($self, $session, $id) = @_;
	my ($form, @statements) = $self->_statements($id);
	my %transfer = (form => $form, verdict => 'done', sqlstate => '');
	for my $statement (@statements)
	{
		my $result = eval { $session->run($statement) };
		return { %transfer, verdict => 'unknown', gone => 1 } unless defined $result;
		next if $result->{sqlstate} eq '';
		$transfer{sqlstate} = $result->{sqlstate};
		$transfer{verdict} = $result->{sqlstate} eq '08007' ? 'unknown' : 'failed';
		last;
	}
	# Known by now, whatever becomes of the ROLLBACK.
	if ($transfer{verdict} ne 'done' && $form ne 'alone')
	{
		$transfer{gone} = 1 unless eval { $session->run('ROLLBACK') };
	}
	return \%transfer;
}

sub _last_token
{
	my ($self, $number) = @_;
	open(my $errors, '<', $self->_file($number, 'errors')) or croak "errors: $!";
	my @tokens = join('', <$errors>) =~ /homing\.outcome\('([0-9a-f-]{36})'\)/g;
	return $tokens[-1] // '';
}

1;
