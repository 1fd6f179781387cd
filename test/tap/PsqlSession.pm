# A long-lived psql session that tells how each statement went.
#
#   my $session = PsqlSession->new($conninfo);
#   my $result = $session->run('UPDATE ...');
#   $result->{sqlstate} ('' when all went well), {message}, {count}; {rows}: an array of CSV lines, command tags included
#   $session->send('UPDATE ...'); ...; $result = $session->receive;
#
# Dies when a statement takes longer than PG_TEST_TIMEOUT_DEFAULT seconds, and when the session ends.
# PsqlSession->new($conninfo, errors => $file) appends complete errors, with hints, to the file.
package PsqlSession;

use strict;
use warnings;

use Carp;
use Errno;
use IO::Select;
use IPC::Open3;
use PostgreSQL::Test::Utils;

my $mark = '-=# end of statement #=-';

sub new
{
	my ($class, $conninfo, %options) = @_;
	my $self = bless { buffer => '', conninfo => $conninfo }, $class;
	my ($in, $out);
	if (defined $options{errors})
	{
		open($self->{errors}, '+>>', $options{errors}) or croak "could not open $options{errors}: $!";
	}
	else
	{
		open($self->{errors}, '+>', undef) or croak "could not open a temporary file: $!";
	}
	my $verbosity = defined $options{errors} ? 'verbose' : 'sqlstate';
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	$self->{pid} = open3($in, $out, '>&' . fileno($self->{errors}), 'psql', '--no-psqlrc', "--set=VERBOSITY=$verbosity", '-d', $conninfo);
	$in->autoflush(1);
	@$self{qw(in out)} = ($in, $out);
	$self->{select} = IO::Select->new($out);
	$self->run($_) for '\pset format csv', '\pset tuples_only on', q{\pset null '<null>'};
	return $self;
}

sub run
{
	my ($self, $statement) = @_;
	$self->send($statement);
	return $self->receive;
}

sub send
{
	my ($self, $statement) = @_;
	$statement .= ';' unless $statement =~ /^\\|\n\\\.\n\z/;
	my $in = $self->{in};
	print $in "$statement\n\\echo '$mark' :ROW_COUNT :SQLSTATE :LAST_ERROR_MESSAGE\n";
	$self->{statement} = $statement;
	return;
}

# The result of what was sent.
sub receive
{
	my ($self) = @_;
	my $statement = $self->{statement};
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my @answer;
	until (@answer = $self->{buffer} =~ /\A(.*?)\Q$mark\E (\S+) (\S+) ?([^\n]*)\n/s)
	{
		$! = 0;
		unless ($self->{select}->can_read($deadline - time))
		{
			next if $!{EINTR} && time < $deadline;
			croak "no answer from $self->{conninfo} to: $statement";
		}
		sysread($self->{out}, $self->{buffer}, 65536, length $self->{buffer})
		  or croak "psql at $self->{conninfo} ended during: $statement";
	}
	$self->{buffer} = '';
	my ($rows, $count, $sqlstate, $message) = @answer;
	# psql's variables say nothing about a COPY that failed.
	($count, $sqlstate, $message) = (0, $self->_last_error) if $statement =~ /^COPY/ && $rows !~ /^COPY/m;
	my $failed = $sqlstate ne '00000' && $sqlstate !~ /^:/;
	return {
		rows => [ split /\n/, $rows ],
		count => $failed ? 0 : $count,
		sqlstate => $failed ? $sqlstate : '',
		message => $failed ? $message : ''
	};
}

sub _last_error
{
	my ($self) = @_;
	my $errors = $self->{errors};
	seek($errors, 0, 0);
	my ($last) = grep { defined } (reverse(map { /ERROR:  (\w{5})/ ? $1 : undef } <$errors>), 'XX000');
	seek($errors, 0, 2);
	return ($last, 'in COPY');
}

sub value { my ($self, $query) = @_; return join "\n", @{ $self->run($query)->{rows} }; }

sub close
{
	my ($self) = @_;
	CORE::close($self->{in});
	waitpid($self->{pid}, 0);
	return;
}

1;
