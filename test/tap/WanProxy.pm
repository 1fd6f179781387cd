# A wide area network on loopback: starts test/tools/wan_proxy and talks to it.
package WanProxy;

use strict;
use warnings;

use Carp;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils ();
use POSIX ();

# WanProxy->new([NAME, DELAY_MS, LISTEN_PORT, TARGET_PORT], ...)
sub new
{
	my ($class, @links) = @_;
	my $program = $ENV{WAN_PROXY} or croak "WAN_PROXY must name the wan_proxy program";
	my $control = PostgreSQL::Test::Utils::tempdir_short() . '/wan';

	pipe(my $ready, my $said) or croak "pipe: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		open(STDOUT, '>&', $said);
		# The words of a link, not a shell's.
		exec($program, '--control', $control, map { join(',', @$_) } @links)
		  or POSIX::_exit(127);
	}
	close($said);
	my $line = <$ready>;
	croak "wan_proxy did not start" unless defined $line && $line eq "ready\n";
	return bless { pid => $pid, control => $control }, $class;
}

# Runs one command, such as ('drop', 'eu-us', 'forward'); dies when it is refused. Returns lines of output.
sub command
{
	my ($self, @words) = @_;
	$self->{socket} //= IO::Socket::UNIX->new(Peer => $self->{control}) // croak "control socket: $!";
	my $socket = $self->{socket};
	print $socket "@words\n" or croak "control socket: $!";
	my @lines;
	while (defined(my $line = <$socket>))
	{
		chomp $line;
		return @lines if $line eq 'ok';
		croak "wan_proxy: @words: $line" if $line =~ /^error/;
		push @lines, $line;
	}
	croak "wan_proxy is gone";
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	kill 'TERM', $pid;
	local $?;
	waitpid($pid, 0);
	return;
}

sub DESTROY
{
	my ($self) = @_;
	$self->stop;
	return;
}

1;
