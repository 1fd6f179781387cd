# Links between regions are cut while everybody lives: silence, refusal, and a region declared lost too early.
use strict;
use warnings;

use HomingCluster;
use Test::More;
use Time::HiRes qw(time);

my $cluster = HomingCluster->new(regions => [qw(us eu ap)], rtt_ms => 10);
$cluster->form;
$cluster->sql('us', 'CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)');
$cluster->sql('us', 'INSERT INTO accounts SELECT generate_series(1, 300)');
$cluster->sql('us', q{SELECT homing.home_table('accounts', 'id')});
$cluster->same_everywhere('accounts');
my %key = map {
	$_ => $cluster->sql('us', qq{SELECT id FROM accounts WHERE homing.home_of('accounts', id) = '$_' ORDER BY id LIMIT 1})
} $cluster->names;

# The round trip is paid once.
my $update = "UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu};\n";
my @times = $cluster->sql('us', "$update\\timing on\n" . $update x 15) =~ /^Time: ([0-9.]+) ms/mg;
my ($shortest) = sort { $a <=> $b } @times;
is(scalar(@times), 15, 'all forwarded writes were timed');
cmp_ok($shortest, '>=', 10, 'a forwarded write crosses the link');
cmp_ok($shortest, '<', 20, "once: $shortest ms at a round trip of 10 ms");

# Silence, when there is no connection yet: the connect timeout bounds it.
$cluster->wan->command('drop', 'us-eu');
my $begin = time;
$cluster->fails_with('us', "SET homing.connect_timeout = '500ms'; UPDATE accounts SET balance = 0 WHERE id = $key{eu}",
	'08001', 'an unreachable home is reported');
cmp_ok(time - $begin, '<', 3, 'within the connect timeout');
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $_") for $key{us}, $key{ap};
pass('writes to other homes go on');

# Silence, when there is a connection: a timeout ends the wait.
my $session = $cluster->node('us')->background_psql('app', on_error_stop => 0);
$cluster->wan->command('heal', 'us-eu');
$session->query_safe($update);
$cluster->wan->command('drop', 'us-eu');
$begin = time;
# Then the outcome is asked for, in vain as long as the link is cut.
$session->query("SET homing.outcome_timeout = '1s'");
$session->query("SET homing.connect_timeout = '1s'");
$session->query("SET statement_timeout = '500ms'");
$session->query("UPDATE accounts SET balance = balance + 100 WHERE id = $key{eu}");
like($session->{stderr}, qr/ERROR:  /, 'a write into silence can be timed out');
cmp_ok(time - $begin, '<', 10, 'in time');
$session->{stderr} = '';
$cluster->wan->command('heal', 'us-eu');
$session->query("SET statement_timeout = '30s'");
$session->query_safe("UPDATE accounts SET balance = balance + 1 WHERE id = $key{eu}");
pass('the same session writes again when the link is back');
$session->quit;

# Refusal is reported at once.
$cluster->wan->command('reset', 'us-eu');
$cluster->fails_with('us', "UPDATE accounts SET balance = 0 WHERE id = $key{eu}", '08001', 'a refused connection is reported');
$cluster->wan->command('heal', 'us-eu');
$cluster->same_everywhere('accounts', 'accounts after the cuts');

# A link between two others matters to nobody else; what it held back arrives later.
$cluster->wan->command('drop', $_) for 'eu-ap', 'ap-eu';
$cluster->sql($_, "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$_}") for $cluster->names;
$cluster->sql('us', "UPDATE accounts SET balance = balance + 1 WHERE id = $key{$_}") for $cluster->names;
$cluster->wan->command('heal', $_) for 'eu-ap', 'ap-eu';
$cluster->same_everywhere('accounts', 'accounts after a cut between eu and ap');

# ap is cut off, and declared lost while it lives: it fences itself when it hears of it.
my @links = grep { /ap/ } map { (split ' ')[0] } $cluster->wan->command('list');
$cluster->wan->command('drop', $_) for @links;
$cluster->sql('us', q{SELECT homing.declare_lost('ap', force => true)});
$cluster->sql('eu', "UPDATE accounts SET balance = -1 WHERE id = $key{ap}");
is($cluster->sql('ap', 'SELECT fenced IS NULL FROM homing.local_region'), 't', 'ap cannot know yet');
$cluster->wan->command('heal', $_) for @links;
$cluster->poll('ap', 'SELECT fenced IS NOT NULL FROM homing.local_region');
$cluster->fails_with('ap', "UPDATE accounts SET balance = 0 WHERE id = $key{ap}", '25006', 'ap is fenced once it hears');
$cluster->{dead}{ap} = 1;
$cluster->same_everywhere('accounts', 'accounts of the survivors');
is($cluster->sql('us', "SELECT balance FROM accounts WHERE id = $key{ap}"), '-1', 'with the write at the heir');
$cluster->node('ap')->stop;

$cluster->stop;
done_testing();
