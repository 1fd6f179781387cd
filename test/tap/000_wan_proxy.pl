# The delay proxy that the other tests rely on: delays, cuts and heals as it says.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WanProxy;

my $limit = $PostgreSQL::Test::Utils::timeout_default;

# An echo server that answers each line.
my $echo = IO::Socket::INET->new(
	Listen => 10,
	LocalAddr => '127.0.0.1',
	Proto => 'tcp') or die "echo server: $!";
my $echo_port = $echo->sockport;
my $echo_pid = fork() // die "fork: $!";
if ($echo_pid == 0)
{
	my $set = IO::Select->new($echo);
	while (1)
	{
		for my $ready ($set->can_read)
		{
			if ($ready == $echo)
			{
				my $client = $echo->accept;
				setsockopt($client, 6, 1, 1);
				$set->add($client);
				next;
			}
			if (sysread($ready, my $bytes, 1 << 16))
			{
				syswrite($ready, $bytes);
			}
			else
			{
				$set->remove($ready);
				close($ready);
			}
		}
	}
}
close($echo);

my $listen_port = PostgreSQL::Test::Cluster::get_free_port();
my $wan = WanProxy->new([ 'a-b', 10, $listen_port, $echo_port ]);

sub client
{
	my $client = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $listen_port,
		Proto => 'tcp') or return;
	setsockopt($client, 6, 1, 1);
	return $client;
}

# Reads until $size bytes came; returns undef when nothing comes for $seconds, '' at the end of stream.
sub receive
{
	my ($client, $size, $seconds) = @_;
	my $all = '';
	while (length($all) < $size)
	{
		return undef unless IO::Select->new($client)->can_read($seconds);
		my $got = sysread($client, $all, $size - length($all), length($all));
		return '' unless $got;
	}
	return $all;
}

sub round_trip_ms
{
	my ($client) = @_;
	my $begin = time;
	syswrite($client, "x");
	receive($client, 1, $limit) eq 'x' or die "no echo";
	return 1000 * (time - $begin);
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ @sorted / 2 ];
}

my $client = client();
round_trip_ms($client);
for my $delay (10, 2.5, 0)
{
	$wan->command('delay', 'a-b', $delay);
	round_trip_ms($client);
	my @times = map { round_trip_ms($client) } 1 .. 25;
	my $median = median(@times);
	my ($shortest) = sort { $a <=> $b } @times;
	cmp_ok($shortest, '>=', 2 * $delay, "no byte is early at $delay ms");
	cmp_ok($median, '<=', 2 * $delay + 3, "round trip at $delay ms takes $median ms");
}

# Delay does not cost bandwidth: 8 MB at once through a link of 20 ms.
$wan->command('delay', '*', 10);
my $bytes = 'y' x (8 << 20);
my $sender = fork() // die "fork: $!";
if ($sender == 0)
{
	my $sent = 0;
	while ($sent < length $bytes)
	{
		$sent += syswrite($client, $bytes, length($bytes) - $sent, $sent) // last;
	}
	POSIX::_exit(0);
}
my $begin = time;
ok(receive($client, length $bytes, $limit) eq $bytes, '8 MB arrive whole and in order');
cmp_ok(time - $begin, '<', 5, 'without one round trip for each piece');
waitpid($sender, 0);

# Drop: connections stay open, nothing passes, and healing delivers what was held back.
$wan->command('drop', 'a-b');
syswrite($client, 'held');
is(receive($client, 4, 0.3), undef, 'nothing passes a dropped link');
my $new = client();
ok($new, 'a new connection is not refused');
syswrite($new, 'new');
is(receive($new, 3, 0.2), undef, 'but leads nowhere');
$wan->command('heal', 'a-b');
is(receive($client, 4, $limit), 'held', 'healing delivers what was held back');
is(receive($new, 3, $limit), 'new', 'on new connections too');

# One way only: the answer is what is lost.
$wan->command('drop', 'a-b', 'back');
syswrite($client, 'one way');
is(receive($client, 7, 0.3), undef, 'no answer passes');
$wan->command('heal', 'a-b');
is(receive($client, 7, $limit), 'one way', 'the request had arrived');

# Reset: connections end, new ones are refused.
$wan->command('reset', 'a-b');
is(receive($client, 1, $limit), '', 'a reset link ends connections');
is(client(), undef, 'and refuses new ones');
like(($wan->command('list'))[0], qr/^a-b .*reset=1 connections=0$/, 'list shows it');
$wan->command('heal', 'a-b');
cmp_ok(round_trip_ms(client()), '>=', 20, 'a healed link works and delays again');

# The end of a stream passes in both directions.
$client = client();
round_trip_ms($client);
shutdown($client, 1);
is(receive($client, 1, $limit), '', 'the end of the stream comes back');

eval { $wan->command('drop', 'nowhere') };
like($@, qr/unknown link/, 'an unknown link is refused');

$wan->stop;
kill 'KILL', $echo_pid;
waitpid($echo_pid, 0);
done_testing();
