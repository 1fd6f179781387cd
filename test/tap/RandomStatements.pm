# Seeded random statements for the comparison of a cluster with a plain database, and the tables they need.
#
#   my $random = RandomStatements->new($seed);
#   RandomStatements::schema(); RandomStatements::homes();    SQL
#   RandomStatements::contents();       queries whose rows are the same in both databases in the end
#   RandomStatements::preparation();    statements at the start of each session
#   $random->batch($count);             statements for one session
#
# A statement is a hash: {sql}; {loose}: which of several errors comes first depends on the order of the
# rows; {refusable}: a cluster may refuse it with 0A000; {reads}: it may when the transaction has written at
# other regions, as it reads other rows than those it writes; {ordered}: the order of its rows is promised.
#
# What cannot be the same is left out: sequences draw other numbers, so their columns are never shown. Rows
# of one batch's statements reach the other regions in their own time, so a batch reads across regions only
# from one family of tables, which it does not write.
package RandomStatements;

use strict;
use warnings;

# --- tables ---------------------------------------------------------------------------------------------

my $schema = <<'SQL';
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE place AS (street text, zip int);
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE customer (
	id bigint PRIMARY KEY,
	name varchar(20) NOT NULL DEFAULT 'nobody',
	gone text,
	balance numeric(12, 2) NOT NULL DEFAULT 0 CONSTRAINT not_overdrawn CHECK (balance >= 0),
	score numeric,
	ratio float8 DEFAULT 0.1,
	feeling mood DEFAULT 'ok',
	tags text[],
	lives place,
	doc jsonb NOT NULL DEFAULT '{}',
	born date,
	seen timestamptz,
	photo bytea,
	share percent,
	active boolean DEFAULT true,
	span int4range,
	wait interval,
	doubled numeric GENERATED ALWAYS AS (balance * 2) STORED,
	number int GENERATED ALWAYS AS IDENTITY,
	version int NOT NULL DEFAULT 0
);
ALTER TABLE customer DROP COLUMN gone;
CREATE TABLE "Order" (
	customer_id bigint REFERENCES customer ON DELETE CASCADE,
	"Line No" int CHECK ("Line No" > 0),
	total numeric(10, 2) NOT NULL DEFAULT 1,
	"the State" text DEFAULT 'new' CHECK ("the State" <> 'bad'),
	PRIMARY KEY (customer_id, "Line No")
);
CREATE TABLE payment (
	customer_id bigint,
	line int,
	part int NOT NULL DEFAULT 1,
	amount int NOT NULL,
	note text,
	PRIMARY KEY (customer_id, part),
	UNIQUE (customer_id, note),
	FOREIGN KEY (customer_id, line) REFERENCES "Order" ON DELETE SET NULL (line)
);
CREATE TABLE customer_log (customer_id bigint NOT NULL, entry bigserial, what text, PRIMARY KEY (customer_id, entry));
CREATE TABLE "Setting" (
	"Key Name" text PRIMARY KEY,
	value text DEFAULT 'none',
	weight int NOT NULL DEFAULT 0,
	flags boolean[],
	CONSTRAINT "Too Heavy" CHECK (weight < 1000)
);
CREATE TABLE notice (code int PRIMARY KEY, body text NOT NULL DEFAULT '', at timestamptz DEFAULT '2026-01-01 00:00+00', rank numeric);
CREATE TABLE box (id int PRIMARY KEY, note text);
CREATE TABLE thing (box_id int REFERENCES box ON DELETE CASCADE, part int, size int, PRIMARY KEY (box_id, part));
CREATE TABLE slip (box_id int, part int, size int DEFAULT 1, PRIMARY KEY (box_id, part),
	CONSTRAINT slip_box FOREIGN KEY (box_id) REFERENCES box ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE measure (key int, at date, value numeric, low int DEFAULT 0, PRIMARY KEY (key, at)) PARTITION BY RANGE (at);
CREATE TABLE measure_old (low int DEFAULT 0, value numeric, key int NOT NULL, at date NOT NULL);
ALTER TABLE measure ATTACH PARTITION measure_old FOR VALUES FROM (MINVALUE) TO ('2000-01-01');
CREATE TABLE measure_new PARTITION OF measure FOR VALUES FROM ('2000-01-01') TO ('2026-02-15');
CREATE TABLE measure_last PARTITION OF measure FOR VALUES FROM ('2026-02-15') TO (MAXVALUE);
CREATE VIEW rich AS SELECT name, id, balance AS money, feeling FROM customer WHERE balance > 5;
CREATE VIEW checked AS SELECT "Key Name", weight, value FROM "Setting" WHERE weight < 500 WITH CHECK OPTION;
CREATE VIEW told AS SELECT code, body FROM notice;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		DELETE FROM notice WHERE code = OLD.code;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO notice (code, body) VALUES (NEW.code, 'told ' || NEW.body);
		RETURN NEW;
	END IF;
	RETURN OLD;
END $$;
CREATE TRIGGER tell INSTEAD OF INSERT OR UPDATE OR DELETE ON told FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TABLE ticket (id bigserial PRIMARY KEY, label text NOT NULL CHECK (label <> ''), n int DEFAULT 0);
CREATE TABLE device (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), label text, n int, made date DEFAULT '2026-02-03');

CREATE FUNCTION before_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		RETURN CASE WHEN OLD.name = 'keep' THEN NULL ELSE OLD END;
	END IF;
	IF NEW.name = 'refused' THEN
		RAISE EXCEPTION 'name % is refused', NEW.name USING ERRCODE = 'ZZ001';
	ELSIF NEW.name = 'skip' THEN
		RETURN NULL;
	END IF;
	NEW.name := trim(NEW.name);
	NEW.version := NEW.version + 1;
	RETURN NEW;
END $$;
CREATE TRIGGER before_customer BEFORE INSERT OR UPDATE OR DELETE ON customer
	FOR EACH ROW EXECUTE FUNCTION before_customer();
CREATE FUNCTION after_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO customer_log (customer_id, what)
	VALUES (coalesce(NEW.id, OLD.id), TG_OP || ' ' || coalesce(OLD.name, '-') || ' ' || coalesce(NEW.name, '-'));
	RETURN NULL;
END $$;
CREATE TRIGGER after_customer AFTER INSERT OR UPDATE OR DELETE ON customer
	FOR EACH ROW EXECUTE FUNCTION after_customer();
CREATE FUNCTION after_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE customer SET balance = balance + NEW.total WHERE id = NEW.customer_id;
	RETURN NULL;
END $$;
CREATE TRIGGER after_order AFTER INSERT ON "Order" FOR EACH ROW EXECUTE FUNCTION after_order();
CREATE FUNCTION pay(account bigint, amount numeric) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	UPDATE customer SET balance = balance + amount WHERE id = account RETURNING name || ' ' || balance INTO result;
	RETURN coalesce(result, 'nobody there');
EXCEPTION WHEN check_violation THEN
	RETURN 'too much';
END $$;
CREATE FUNCTION note(setting text, note text) RETURNS SETOF text LANGUAGE sql AS $$
	INSERT INTO "Setting" ("Key Name", value) VALUES (setting, note)
	ON CONFLICT ("Key Name") DO UPDATE SET value = "Setting".value || excluded.value
	RETURNING value;
$$;
SQL

my $homes = <<'SQL';
SELECT homing.home_table('customer', 'id');
SELECT homing.home_table('"Order"', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('payment', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('customer_log', 'customer_id', colocate_with => 'customer');
SELECT homing.home_table('"Setting"', 'Key Name');
SELECT homing.home_table('notice', 'code', placement => 'region', region => 'eu');
SELECT homing.home_table('box', 'id');
SELECT homing.home_table('thing', 'box_id', colocate_with => 'box');
SELECT homing.home_table('slip', 'box_id', colocate_with => 'box');
SELECT homing.home_table('measure', 'key');
SELECT homing.home_table('ticket', 'id');
SELECT homing.home_table('device', 'id');
SQL

# family: tables that share their keyspace. pk: what identifies a row, with the key first. shown: columns
# that are the same in both databases. moves: the key can be updated, no trigger or reference looks at it.
my %table = (
	customer => {
		family => 'customer', pk => ['id'],
		columns => {
			id => 'id', name => 'name', balance => 'money', score => 'numeric', ratio => 'float', feeling => 'mood',
			tags => 'texts', lives => 'place', doc => 'json', born => 'date', seen => 'time', photo => 'bytes',
			share => 'percent', active => 'boolean', span => 'range', wait => 'interval'
		},
		also_shown => [qw(doubled version)]
	},
	'"Order"' => {
		family => 'customer', pk => [ 'customer_id', '"Line No"' ],
		columns => { customer_id => 'id', '"Line No"' => 'small', total => 'money', '"the State"' => 'name' }
	},
	payment => {
		family => 'customer', pk => [ 'customer_id', 'part' ], moves => 1,
		columns => { customer_id => 'id', line => 'line', part => 'small', amount => 'int', note => 'text' }
	},
	'"Setting"' => {
		family => 'setting', pk => ['"Key Name"'], moves => 1,
		columns => { '"Key Name"' => 'key', value => 'text', weight => 'int', flags => 'booleans' }
	},
	notice => {
		family => 'notice', pk => ['code'], moves => 1,
		columns => { code => 'id', body => 'text', at => 'time', rank => 'numeric' }
	},
	box => { family => 'box', pk => ['id'], columns => { id => 'id', note => 'text' } },
	thing => { family => 'box', pk => [ 'box_id', 'part' ], moves => 1, columns => { box_id => 'id', part => 'small', size => 'int' } },
	slip => { family => 'box', pk => [ 'box_id', 'part' ], columns => { box_id => 'id', part => 'small', size => 'int' } },
	measure => {
		family => 'measure', pk => [ 'key', 'at' ], moves => 1,
		columns => { key => 'id', at => 'day', value => 'numeric', low => 'int' }
	},
	rich => { family => 'customer', pk => ['id'], view => 1, columns => { id => 'id', name => 'name', money => 'money', feeling => 'mood' } },
	checked => { family => 'setting', pk => ['"Key Name"'], view => 'checked', columns => { '"Key Name"' => 'key', weight => 'int', value => 'text' } },
	told => { family => 'notice', pk => [], view => 'trigger', columns => { code => 'id', body => 'text' } },
	ticket => { family => 'ticket', pk => [], columns => { label => 'name', n => 'int' } },
	device => { family => 'device', pk => [], columns => { label => 'text', n => 'int', made => 'date' } }
);

sub schema { return $schema; }
sub homes { return $homes; }

sub contents
{
	my %contents = map { $_ => 'SELECT ' . join(', ', shown($_)) . " FROM $_" } grep { !$table{$_}{view} } keys %table;
	$contents{customer_log} = 'SELECT customer_id, what FROM customer_log';
	return %contents;
}

sub shown
{
	my ($name) = @_;
	return sort keys %{ $table{$name}{columns} }, @{ $table{$name}{also_shown} // [] };
}

# --- values -----------------------------------------------------------------------------------------------

sub new
{
	my ($class, $seed) = @_;
	srand($seed);
	return bless { prepared => [ prepared() ] }, $class;
}

sub one_of { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }
sub number { my ($from, $to) = @_; return $from + int rand($to - $from + 1); }

my @keys = ("'theme'", "'a b'", "''", "'Theme'", "'it''s'", "E'two\\nlines'", "'\x{c3}\x{a9}t\x{c3}\x{a9}'", "'k1'", "'k2'", "'k3'", "'k4'",
	"'k5'");
my @texts = (@keys, q('quote " inside'), q('$1 \\ {,}'), 'NULL', q('NULL'), q(repeat('long', 100)), q('x' || 1));

my %value = (
	id => sub { return number(1, 30); },
	key => sub { return one_of(@keys); },
	text => sub { return one_of(@texts); },
	name => sub { return one_of(qw('ann' 'bob' 'keep'), "' padded '", "'Zoe'", "'skip'", "'refused'", "'" . 'n' x 25 . "'"); },
	small => sub { return number(1, 4); },
	line => sub { return chance(0.6) ? 'NULL' : number(1, 4); },
	int => sub { return one_of(number(-5, 50), number(0, 9), '1000', '2147483647', "'7'"); },
	money => sub { return one_of(number(0, 99) . '.' . number(10, 99), number(0, 20), '0', '1e3', '-5'); },
	numeric => sub { return one_of("'NaN'", "'Infinity'", "'-Infinity'", 'NULL', '12345678901234567890.123', '0.00', number(0, 9)); },
	float => sub { return one_of('0.1', "'NaN'", "'-Infinity'", '1e-300', '0.1 + 0.2', '-0.0', '3'); },
	mood => sub { return one_of(qw('sad' 'ok' 'happy' NULL), "'happy'::mood"); },
	texts => sub { return one_of('NULL', "'{}'", q('{a,NULL,"b,c"}'), q(ARRAY['x', E'y\nz', '"']), q('{{a,b},{c,d}}')); },
	place => sub { return one_of('NULL', "ROW('High St', 12)::place", q(('a "b" c', NULL)::place), "ROW(NULL, NULL)::place"); },
	json => sub { return one_of("'{}'", q('{"a": [1, 2, {"b": null}]}'), q('"text"'), "jsonb_build_object('k', 1.50)", "'[]'"); },
	date => sub { return one_of("'2026-02-28'", "'infinity'", "'0044-03-15 BC'", 'NULL', "date '2000-01-01' + 3"); },
	day => sub { return one_of("'1999-12-31'", "'2000-01-01'", "'2026-02-14'", "'2026-02-15'", "date '2026-02-13' + " . number(0, 4)); },
	time => sub { return one_of("'2026-03-04 05:06:07.123456+05:30'", "'-infinity'", 'NULL', "timestamptz '2026-01-01 12:00+00'"); },
	bytes => sub { return one_of(q('\x00ff5c27'), "''", 'NULL', "'abc'", q(decode('AAEC', 'base64'))); },
	percent => sub { return one_of(0, 50, 100, 'NULL', '7::percent'); },
	boolean => sub { return one_of(qw(true false NULL), '1 = 1'); },
	booleans => sub { return one_of("'{t,f,NULL}'", 'ARRAY[true]', 'NULL'); },
	range => sub { return one_of("'[1,5)'", "'empty'", 'NULL', 'int4range(2, NULL)'); },
	interval => sub { return one_of("'1 day 2:03'", "'-1 mon +2 days'", 'NULL', "interval '1 year'"); }
);

sub value { my ($name, $column) = @_; return $value{ $table{$name}{columns}{$column} }->(); }

# What other columns can be set to, from the row itself.
my %of_row = (
	int => ['%s + 1', '%s * 2', '-%s', 'abs(%s) %% 7'], money => [ '%s + 1.5', '%s * 1.1', '%s - 10' ], numeric => ['coalesce(%s, 0) + 1'],
	float => ['%s * 2'], text => ["coalesce(%s, '') || '!'", 'upper(%s)', 'left(%s, 5)'], name => [ "left(%s, 10) || '.'", 'upper(%s)' ], texts => ["%s || 'more'::text"],
	json => [ q(jsonb_build_object('was', %s -> 'a')), q(%s || '[1]') ], date => ['%s + 1'], time => ["%s + interval '1 day'"], bytes => [ q(%s || '\x01') ], boolean => ['NOT %s'],
	percent => ['%s + 30'], interval => ['%s * 2'], booleans => ['array_append(%s, true)'], range => ['%s * int4range(1, 3)']
);

sub new_value
{
	my ($name, $column, $alias) = @_;
	my $kind = $table{$name}{columns}{$column};
	return 'DEFAULT' if chance(0.05);
	return value($name, $column) unless $of_row{$kind} && chance(0.5);
	return sprintf(one_of(@{ $of_row{$kind} }), $alias ? "$alias.$column" : $column);
}

sub other_columns
{
	my ($name) = @_;
	my %key = map { $_ => 1 } @{ $table{$name}{pk} };
	return grep { !$key{$_} } sort keys %{ $table{$name}{columns} };
}

sub some { my ($least, @from) = @_; my @some = grep { chance(0.3) } @from; return @some >= $least ? @some : @from[ 0 .. $least - 1 ]; }

sub set_list
{
	my ($name, $alias) = @_;
	my @columns = other_columns($name);
	my %set = map { $_ => 1 } map { one_of(@columns) } 1 .. number(1, 3);
	my @set = sort keys %set;
	return '(' . join(', ', @set) . ') = (SELECT ' . join(', ', map { value($name, $_) . '::' . type_of($name, $_) } @set) . ')' if chance(0.05);
	return '(' . join(', ', @set) . ') = ROW (' . join(', ', map { new_value($name, $_, $alias) } @set) . ')' if chance(0.05);
	my $set = join(', ', map { "$_ = " . new_value($name, $_, $alias) } @set);
	$set .= ', ' . one_of("lives.zip = 7", "lives.zip = 1, lives.street = 'S'", "lives.street = NULL") if $name eq 'customer' && !$set{lives} && chance(0.1);
	$set .= ', ' . one_of("tags[2] = 'two'", "tags[1] = 'x', tags[3] = upper(name)", "tags[1:2] = '{p,q}'") if $name eq 'customer' && !$set{tags} && chance(0.1);
	return $set;
}

my %type = (
	id => 'bigint', key => 'text', text => 'text', name => 'varchar(20)', small => 'int', line => 'int', int => 'int', money => 'numeric', numeric => 'numeric',
	float => 'float8', mood => 'mood', texts => 'text[]', place => 'place', json => 'jsonb', date => 'date', day => 'date', time => 'timestamptz', bytes => 'bytea',
	percent => 'int', boolean => 'boolean', booleans => 'boolean[]', range => 'int4range', interval => 'interval'
);

sub type_of { my ($name, $column) = @_; return $type{ $table{$name}{columns}{$column} }; }

# RETURNING, or nothing. The alias tells whose columns are meant when there are several tables.
sub returning
{
	my ($name, $alias, @more) = @_;
	return '' if chance(0.4);
	my $of = $alias ? "$alias." : '';
	my @columns = map { "$of$_" } some(1, shown($name));
	push @columns, @more, one_of("'const'", '1 + 1', "${of}tableoid::regclass", "row(${of}$columns[0])::text" =~ s/\Q$of$of\E/$of/r)
	  if chance(0.3);
	return ' RETURNING ' . join(', ', @columns);
}

sub statement { my ($sql, %how) = @_; return { sql => $sql, %how }; }

# --- conditions ---------------------------------------------------------------------------------------------

# A condition on the key; loose: it may allow several keys.
sub key_condition
{
	my ($name, $alias) = @_;
	my ($key, @rest) = @{ $table{$name}{pk} };
	return (other_condition($name, $alias), 1) unless defined $key;
	my $column = $alias ? "$alias.$key" : $key;
	my $new = sub { return value($name, $key); };
	my $cast = type_of($name, $key);
	return ("$column = " . $new->(), 0) if chance(0.4);
	my @more = (
		sub { return "$column IN (" . join(', ', map { $new->() } 1 .. number(2, 5)) . ')'; },
		sub { return "$column = ANY (ARRAY[" . join(', ', map { $new->() } 1 .. number(1, 4)) . "]::${cast}[])"; },
		sub { return "$column BETWEEN " . $new->() . ' AND ' . $new->(); },
		sub { return "$column >= " . $new->(); },
		sub { return "$column <> " . $new->(); },
		sub { return "$column = " . $new->() . " OR $column = " . $new->(); },
		sub { return "($column = " . $new->() . ') IS NOT FALSE'; },
		sub { return other_condition($name, $alias); },
		sub { return 'true'; },
		sub { return 'false'; },
		sub { return "$column = NULL"; },
		sub { return "$column = " . $new->() . " AND $column = " . $new->(); },
		sub { return "$column = " . $new->() . ' AND ' . other_condition($name, $alias); },
		sub { return "$column = (SELECT " . $new->() . "::$cast)"; },
		sub { return "$column = lower(" . $new->() . '::text)::' . $cast; },
		sub { return "$column = ANY ('{}'::${cast}[])"; },
		sub { return "$column IN (VALUES " . join(', ', map { '(' . $new->() . "::$cast)" } 1 .. 3) . ')'; }
	);
	return (one_of(@more)->(), 1);
}

sub other_condition
{
	my ($name, $alias) = @_;
	my $column = one_of(other_columns($name));
	my $value = value($name, $column);
	$column = "$alias.$column" if $alias;
	return one_of("$column IS NULL", "$column IS NOT NULL", "$column = $value", "$column IS DISTINCT FROM $value");
}

# --- statements -----------------------------------------------------------------------------------------------

sub insert_columns
{
	my ($name) = @_;
	my %required = (customer => ['name'], payment => ['amount'], ticket => ['label']);
	my @required = (@{ $table{$name}{pk} }, @{ $required{$name} // [] });
	my %given = map { $_ => 1 } @required, some(@required ? 0 : 1, other_columns($name));
	return sort keys %given;
}

sub row
{
	my ($name, $with_defaults, @columns) = @_;
	my %key = map { $_ => 1 } @{ $table{$name}{pk} };
	return '(' . join(', ', map { $with_defaults && !$key{$_} && chance(0.1) ? 'DEFAULT' : value($name, $_) } @columns) . ')';
}

sub on_conflict
{
	my ($name) = @_;
	my @pk = @{ $table{$name}{pk} };
	return '' if !@pk || chance(0.4) || $table{$name}{view};
	my $target = '(' . join(', ', @pk) . ')';
	return one_of('', " $target") =~ s/^/ ON CONFLICT/r . ' DO NOTHING' if chance(0.4);
	my $column = one_of(other_columns($name));
	my $set = one_of("$column = excluded.$column", "$column = excluded.$column", "$column = " . value($name, $column));
	my $condition = chance(0.3) ? " WHERE $name." . one_of(other_columns($name)) . ' IS NOT NULL' : '';
	return " ON CONFLICT $target DO UPDATE SET $set$condition";
}

sub insert_values
{
	my ($self, $name) = @_;
	return statement('INSERT INTO customer (id, lives.zip, tags[2], lives.street) VALUES ' . join(', ', map { '(' . value('customer', 'id') . ", $_, 'two', " . one_of("'S'", 'NULL') . ')' } 1 .. number(1, 3))
		  . one_of('', ' ON CONFLICT DO NOTHING', ' ON CONFLICT (id) DO UPDATE SET (name, balance) = (SELECT excluded.name, 5), lives.zip = 3') . returning('customer'), loose => 1) if $name eq 'customer' && chance(0.1);
	return statement("INSERT INTO $name DEFAULT VALUES" . returning($name)) if !@{ $table{$name}{pk} } && $name eq 'device' && chance(0.2);
	my @columns = insert_columns($name);
	my $rows = chance(0.5) ? 1 : number(2, 7);
	return statement(
		"INSERT INTO $name (" . join(', ', @columns) . ') VALUES ' . join(', ', map { row($name, 1, @columns) } 1 .. $rows)
		  . on_conflict($name) . returning($name),
		loose => $rows > 1);
}

# Typed, as a query's columns are not adapted to the target.
sub typed_row { my ($name, @columns) = @_; return '(' . join(', ', map { value($name, $_) . '::' . type_of($name, $_) } @columns) . ')'; }

sub insert_select
{
	my ($self, $name) = @_;
	my @columns = insert_columns($name);
	my @pk = @{ $table{$name}{pk} };
	my $list = join(', ', @columns);
	my ($source, $reads);
	if (chance(0.4))
	{
		my $v = join(', ', map { "v.c$_" } 1 .. @columns);
		$source = "SELECT $v FROM (VALUES " . join(', ', map { typed_row($name, @columns) } 1 .. number(1, 5)) . ') AS v (' . join(', ', map { "c$_" } 1 .. @columns) . ')';
		$source .= one_of('', ' WHERE true', ' ORDER BY 1 DESC', ' LIMIT 50');
	}
	elsif (chance(0.3) || !$self->{readable})
	{
		$source = 'SELECT ' . join(', ', map { value($name, $_) . '::' . type_of($name, $_) } @columns);
	}
	else
	{
		# Rows of the tables that are not written meanwhile; their key gives ours.
		$reads = 1;
		my $from = $self->readable_table;
		my ($key) = @{ $table{$from}{pk} };
		$key //= '1';
		my %expression;
		$expression{$_} = value($name, $_) . '::' . type_of($name, $_) for @columns;
		if (@pk)
		{
			my $kind = type_of($name, $pk[0]);
			$expression{ $pk[0] } = $kind eq 'text' ? "'k' || (ascii(left($key\:\:text, 1)) % 9)" : $kind eq 'uuid' ? 'gen_random_uuid()' : "(hashtext($key\:\:text) & 15) + 10";
		}
		$source = 'SELECT ' . join(', ', @expression{@columns}) . " FROM $from" . (chance(0.5) ? ' WHERE ' . other_condition($from) : '');
	}
	return statement("INSERT INTO $name ($list) $source" . on_conflict($name) . returning($name), loose => 1, reads => $reads);
}

# From a table that is written, too: of one key, so that the home computes it.
sub insert_own
{
	my ($self) = @_;
	my $id = value('customer', 'id');
	return one_of(
		statement(qq{INSERT INTO payment (customer_id, part, amount, note) SELECT $id, 20 + part, amount, note || 'x' FROM payment WHERE customer_id = $id} . on_conflict('payment') . returning('payment'), loose => 1, reads => 1),
		statement(qq{INSERT INTO "Order" (customer_id, "Line No", total) SELECT id, 9, least(balance, 100) FROM customer WHERE id = $id} . on_conflict('"Order"') . returning('"Order"'), loose => 1, reads => 1),
		statement(qq{INSERT INTO payment (customer_id, line, part, amount) SELECT o.customer_id, "Line No", "Line No" + 30, c.balance FROM customer c JOIN "Order" o ON o.customer_id = c.id WHERE c.id = $id ON CONFLICT DO NOTHING}, loose => 1, reads => 1));
}

sub readable_table { my ($self) = @_; return one_of(grep { $table{$_}{family} eq $self->{readable} } sort keys %table); }

# A table to join with, and the condition: one that is not written meanwhile, or one of the same home, in
# which at most one row matches.
sub joined
{
	my ($self, $name) = @_;
	my @own = @{ $table{$name}{pk} };
	return ("$name AS j", "j.$own[0] = t.$own[0] AND j.$own[1] = " . value($name, $own[1]), "j.$own[1]") if @own == 2 && chance(0.3);
	if ($name eq 'customer' && chance(0.5))
	{
		return ('"Order" AS j', 'j.customer_id = t.id AND j."Line No" = ' . number(1, 4), 'j.total');
	}
	if ($name eq 'payment' && chance(0.6))
	{
		return ('"Order" AS j', 'j.customer_id = t.customer_id AND j."Line No" = ' . one_of('t.line', 't.part'), 'j.total') if chance(0.5);
		return ('customer AS j', 'j.id = t.customer_id', 'j.balance');
	}
	return ('customer AS j', 't.customer_id = j.id', 'j.balance') if $name eq '"Order"' && chance(0.6);
	my $from = $self->readable_table;
	my ($key, @rest) = @{ $table{$from}{pk} };
	return ("(VALUES (1, 5), (2, 7)) AS j (n, m)", 'j.n = ' . number(1, 3), 'j.m') unless defined $key;
	my $match = @rest ? " AND j.$rest[0] = " . number(1, 3) : '';
	my ($own) = @{ $table{$name}{pk} };
	my $condition = defined $own && type_of($name, $own) eq type_of($from, $key) && chance(0.7) ? "j.$key = t.$own" : "j.$key = " . value($from, $key);
	return ("$from AS j", "$condition$match", "j.$key");
}

sub update
{
	my ($self, $name) = @_;
	my ($condition, $loose) = key_condition($name, 't');
	if (chance(0.2))
	{
		my ($from, $on, $shown) = $self->joined($name);
		return statement(
			"UPDATE $name AS t SET " . set_list($name, 't') . " FROM $from WHERE $on" . (chance(0.5) ? " AND ($condition)" : '')
			  . returning($name, 't', $shown),
			loose => 1, reads => 1);
	}
	my $reads = chance(0.15);
	$condition .= ' AND ' . $self->subquery_condition($name) if $reads;
	return statement("UPDATE $name AS t SET " . set_list($name, 't') . " WHERE $condition" . returning($name, 't'), loose => $loose, reads => $reads || reads_rows($name));
}

# The rows of a view with INSTEAD OF triggers are read where the statement is.
sub reads_rows { my ($name) = @_; return ($table{$name}{view} // '') eq 'trigger'; }

sub subquery_condition
{
	my ($self, $name) = @_;
	return 'EXISTS (SELECT FROM "Order" o WHERE o.customer_id = t.id)' if $name eq 'customer' && chance(0.5);
	return '(SELECT count(*) FROM payment p WHERE p.customer_id = t.customer_id) > 1' if $table{$name}{columns}{customer_id} && chance(0.5);
	my $from = $self->readable_table;
	return "(SELECT count(*) FROM $from) " . one_of('>', '<') . ' ' . number(0, 5);
}

sub delete
{
	my ($self, $name) = @_;
	my ($condition, $loose) = key_condition($name, 't');
	$condition = '(' . $condition . ') AND ' . other_condition($name, 't') if $loose && chance(0.7);
	if (chance(0.2))
	{
		my ($from, $on, $shown) = $self->joined($name);
		return statement("DELETE FROM $name AS t USING $from WHERE $on AND ($condition)" . returning($name, 't', $shown), loose => 1, reads => 1);
	}
	my $reads = chance(0.15);
	$condition = "($condition) AND " . $self->subquery_condition($name) if $reads;
	return statement("DELETE FROM $name AS t WHERE $condition" . returning($name, 't'), loose => $loose, reads => $reads || reads_rows($name));
}

sub update_key
{
	my ($self, $name) = @_;
	my ($key, @rest) = @{ $table{$name}{pk} };
	# Of several keys that follow each other, PostgreSQL lets one meet the other's old value.
	my $single = chance(0.7);
	my $condition = $single ? "$key = " . value($name, $key) : (key_condition($name))[0];
	my $new = chance(0.6) || !$single ? value($name, $key) : type_of($name, $key) eq 'text' ? "left($key, 1) || 'x'" : "$key + " . number(0, 9);
	my $more = chance(0.3) ? ', ' . set_list($name) : '';
	return statement("UPDATE $name SET $key = $new$more WHERE $condition" . returning($name), loose => 1, refusable => scalar($more =~ /SELECT/));
}

# The key of a row that others may refer to.
sub move_box
{
	my ($self) = @_;
	return statement('UPDATE box SET id = ' . value('box', 'id') . ' WHERE id = ' . value('box', 'id') . returning('box'), loose => 1, refusable => 1);
}

sub copy
{
	my ($self, $name) = @_;
	my %text = (id => sub { number(1, 30) }, small => sub { number(1, 4) }, int => sub { number(0, 50) }, key => sub { one_of(qw(theme k1 k2 k3 Theme)) },
		text => sub { one_of(qw(a \\N b\\tc d\\\\e), 'f g') }, name => sub { one_of(qw(ann bob keep)) }, day => sub { one_of(qw(1999-01-01 2026-02-14 2026-03-01)) });
	my @columns = grep { $text{ $table{$name}{columns}{$_} } } insert_columns($name);
	my @lines = map { join("\t", map { $text{ $table{$name}{columns}{$_} }->() } @columns) } 1 .. number(1, 8);
	push @lines, one_of("x\ty\tz", '') if chance(0.1);
	return statement("COPY $name (" . join(', ', @columns) . ") FROM STDIN;\n" . join('', map { "$_\n" } @lines) . "\\.\n", loose => 1);
}

sub merge
{
	my ($self, $name) = @_;
	my @pk = @{ $table{$name}{pk} };
	my @columns = insert_columns($name);
	my $rows = chance(0.7) ? 1 : number(2, 3);
	my $i = 0;
	my %position = map { $_ => ++$i } @columns;
	my $on = join(' AND ', map { "t.$_ = v.c$position{$_}" } @pk);
	my @set = grep { $_ ne $pk[0] && !(grep { $_ eq $pk[-1] } $_) } @columns;
	my $matched = chance(0.2) || !@set ? 'DELETE' : 'UPDATE SET ' . join(', ', map { "$_ = v.c$position{$_}" } @set);
	my $guard = chance(0.3) ? ' AND t.' . one_of(other_columns($name)) . ' IS NOT NULL' : '';
	my $else = chance(0.2) ? '' : ' WHEN NOT MATCHED THEN INSERT (' . join(', ', @columns) . ') VALUES (' . join(', ', map { "v.c$_" } 1 .. @columns) . ')';
	return statement(
		"MERGE INTO $name AS t USING (VALUES " . join(', ', map { typed_row($name, @columns) } 1 .. $rows) . ') AS v (' . join(', ', map { "c$_" } 1 .. @columns)
		  . ") ON $on WHEN MATCHED$guard THEN $matched$else",
		loose => 1,
		refusable => $rows > 1);
}

# Writes in WITH, all of one key.
sub writable_with
{
	my ($self) = @_;
	my $id = value('customer', 'id');
	return one_of(
		statement(qq{WITH gone AS (DELETE FROM "Order" WHERE customer_id = $id RETURNING *)
			INSERT INTO payment (customer_id, part, amount, note)
			SELECT $id, "Line No" + 10, 1, "the State" || "Line No" FROM gone ON CONFLICT DO NOTHING} . returning('payment'), loose => 1),
		statement(qq{WITH changed AS (UPDATE customer SET balance = balance + 1 WHERE id = $id RETURNING id, balance)
			SELECT balance, id FROM changed}, loose => 1),
		statement(qq{WITH added AS (INSERT INTO customer (id, name) VALUES ($id, 'from with') ON CONFLICT DO NOTHING RETURNING id),
			priced AS (UPDATE "Order" SET total = total + 1 WHERE customer_id = $id RETURNING total)
			UPDATE payment SET amount = amount + (SELECT count(*) FROM priced) WHERE customer_id = $id} . returning('payment'), loose => 1),
		statement(qq{WITH k AS (SELECT $id\:\:bigint AS id) DELETE FROM payment USING k WHERE customer_id = k.id} . returning('payment'), loose => 1),
		statement(qq{WITH gone AS (DELETE FROM payment WHERE customer_id = $id AND part > 5 RETURNING customer_id, part, amount)
			INSERT INTO payment (customer_id, part, amount) SELECT customer_id, part + 5, amount FROM gone}, loose => 1, refusable => 1));
}

sub lock_rows
{
	my ($self, $name) = @_;
	my ($condition, $loose) = key_condition($name, 't');
	my @pk = @{ $table{$name}{pk} };
	my $strength = one_of('UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE') . one_of('', '', ' NOWAIT', ' SKIP LOCKED');
	return statement("UPDATE $name SET " . set_list($name) . ' WHERE (' . join(', ', @pk) . ') IN (SELECT ' . join(', ', map { "t.$_" } @pk) . " FROM $name AS t WHERE $condition FOR $strength)", loose => 1, refusable => 1)
	  if @pk && chance(0.15);
	return statement("SELECT * FROM (SELECT $pk[0] FROM $name AS t FOR $strength) AS t WHERE $pk[0] = " . value($name, $pk[0])) if @pk && chance(0.1);
	return statement("WITH locked AS (SELECT $pk[0] FROM $name AS t WHERE $condition FOR $strength) SELECT * FROM locked", refusable => $loose) if @pk && chance(0.1);
	my $order = @pk && chance(0.5) ? ' ORDER BY ' . join(', ', map { "t.$_" } @pk) : '';
	return statement('SELECT ' . join(', ', map { "t.$_" } some(1, shown($name))) . " FROM $name AS t WHERE $condition$order FOR $strength",
		refusable => $loose, ordered => $order ne '');
}

# Fails on purpose.
sub mistake
{
	my ($self) = @_;
	my $id = value('customer', 'id');
	return statement(one_of(
		"UPDATE customer SET score = 1 / (balance - balance) WHERE id = $id",
		"UPDATE customer SET balance = -1 WHERE id = $id",
		"UPDATE customer SET name = NULL WHERE id = $id",
		"UPDATE customer SET share = 101 WHERE id = $id",
		"UPDATE customer SET feeling = 'angry' WHERE id = $id",
		"UPDATE customer SET feeling = 'angry'\:\:text\:\:mood WHERE id = $id",
		"UPDATE customer SET name = 'refused' WHERE id = $id",
		"UPDATE customer SET doubled = 1 WHERE id = $id",
		"UPDATE customer SET name = repeat('x', 21) WHERE id = $id",
		"UPDATE customer SET wrong = 1 WHERE id = $id",
		"UPDATE customer SET balance = 1e11 WHERE id = $id",
		"INSERT INTO customer (id) VALUES (NULL)",
		"INSERT INTO customer (id) VALUES ('x')",
		"INSERT INTO customer (name) VALUES ('no key')",
		"INSERT INTO customer (id, number) VALUES ($id, 1)",
		"INSERT INTO customer (id, doc) VALUES ($id, '{'\:\:text\:\:jsonb)",
		qq{INSERT INTO "Order" VALUES ($id + 1000, 1)},
		qq{INSERT INTO "Order" VALUES ($id, 0)},
		qq{INSERT INTO "Order" VALUES ($id, 1, 'NaN'), ($id, 1, 2)},
		"INSERT INTO payment (customer_id, line, amount) VALUES ($id, 77, 1)",
		"INSERT INTO customer (id) VALUES ($id) ON CONFLICT (name) DO NOTHING",
		qq{DELETE FROM "Setting" WHERE "Key Name" = 'k1' AND 1 / weight > 5},
		qq{UPDATE "Setting" SET weight = 1000},
		'UPDATE customer SET id = id + 1 FROM nowhere',
		"DELETE FROM customer WHERE id = $id RETURNING 1 / (id - id)",
		"SELECT id FROM customer WHERE id = $id FOR UPDATE OF nothing",
		"INSERT INTO notice VALUES ($id, NULL)",
		'INSERT INTO ticket (label) VALUES (\'\')'
	), loose => 1);
}

# DDL, and what tells that every region has it.
sub ddl
{
	my ($self) = @_;
	my $name = one_of('customer', 'payment', '"Order"', '"Setting"', 'notice', 'ticket', 'measure');
	my $key = $table{$name}{pk}[0] // (insert_columns($name))[0];
	my $limit = number(900, 999);
	return map { statement($_) } one_of(
		["ALTER TABLE $name ADD COLUMN IF NOT EXISTS extra int DEFAULT 7", "ALTER TABLE $name ALTER COLUMN extra SET NOT NULL"],
		["ALTER TABLE $name ADD COLUMN IF NOT EXISTS extra int", "ALTER TABLE $name ALTER COLUMN extra SET DEFAULT 8"],
		["ALTER TABLE $name DROP COLUMN IF EXISTS extra"],
		["CREATE INDEX IF NOT EXISTS extra_index ON $name ($key)"],
		['DROP INDEX IF EXISTS extra_index'],
		[qq{ALTER TABLE "Setting" DROP CONSTRAINT "Too Heavy", ADD CONSTRAINT "Too Heavy" CHECK (weight < $limit)}],
		['ALTER TABLE notice RENAME body TO words', 'ALTER TABLE notice RENAME words TO body'],
		["ALTER TABLE notice ALTER COLUMN rank SET DEFAULT $limit"],
		["ALTER TABLE $name ADD COLUMN $key int"],
		["ALTER TABLE $name ADD CONSTRAINT never CHECK (false)", "ALTER TABLE $name DROP CONSTRAINT IF EXISTS never"],
		["COMMENT ON TABLE $name IS 'a comment'"],
		['TRUNCATE slip', 'TRUNCATE box', 'TRUNCATE notice']);
}

my %weight = (
	insert_values => 30, insert_select => 10, update => 25, delete => 12, update_key => 5, merge => 5, lock_rows => 5, writable_with => 4, mistake => 8, insert_own => 3, move_box => 2, copy => 3
);

# One statement on one of these tables.
sub plain_statement
{
	my ($self) = @_;
	my $left = rand(eval { my $sum = 0; $sum += $_ for values %weight; $sum });
	my $kind;
	for (sort keys %weight)
	{
		$kind = $_;
		last if ($left -= $weight{$_}) < 0;
	}
	return $self->$kind if $kind eq 'mistake' && $self->{readable} !~ /customer|setting/;
	return $self->$kind if $kind =~ /writable_with|insert_own/ && $self->{readable} ne 'customer';
	return $self->$kind if $kind eq 'move_box' && $self->{readable} ne 'box';
	$kind = 'insert_values' if $kind =~ /mistake|writable_with|insert_own|move_box/;
	my @tables = grep { $table{$_}{family} ne $self->{readable} && (!$table{$_}{view} || chance(0.3)) } sort keys %table;
	@tables = grep { !$table{$_}{view} } @tables if $kind =~ /merge|update_key|lock_rows/;
	@tables = grep { $table{$_}{moves} } @tables if $kind eq 'update_key';
	@tables = grep { @{ $table{$_}{pk} } } @tables if $kind eq 'merge';
	@tables = grep { !$table{$_}{view} && $_ ne 'customer' } @tables if $kind eq 'copy';
	push @tables, ('customer') x 2 if $self->{readable} ne 'customer' && $kind !~ /update_key/;
	my $name = one_of(@tables);
	return $self->$kind($name);
}

# --- prepared statements ------------------------------------------------------------------------------------------

sub prepared
{
	return (
		[ 'pay', 'bigint, numeric', 'UPDATE customer SET balance = balance + $2 WHERE id = $1 RETURNING id, balance', [qw(id money)], 'customer' ],
		[ 'add', 'bigint, text, mood, text[], place', 'INSERT INTO customer (id, name, feeling, tags, lives) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET name = excluded.name, tags = excluded.tags, lives = excluded.lives RETURNING id, name, feeling, tags, lives', [qw(id name mood texts place)], 'customer' ],
		[ 'add_two', 'bigint, bigint, numeric, bytea', 'INSERT INTO customer (id, score, photo) VALUES ($1, $3, $4), ($2, $3, $4) ON CONFLICT DO NOTHING RETURNING id, score, photo', [qw(id id numeric bytes)], 'customer' ],
		[ 'away', 'bigint[]', 'DELETE FROM payment WHERE customer_id = ANY ($1) RETURNING customer_id, part', ['ids'], 'customer' ],
		[ 'set_value', 'text, text', 'UPDATE "Setting" SET value = $2 WHERE "Key Name" = $1', [qw(key text)], 'setting' ],
		[ 'set_all', 'int', 'UPDATE "Setting" SET weight = least(weight + $1, 900) RETURNING "Key Name", weight', ['small'], 'setting' ],
		[ 'notice', 'int, timestamptz, numeric', 'INSERT INTO notice (code, at, rank) VALUES ($1, $2, $3) ON CONFLICT (code) DO UPDATE SET at = $2 RETURNING *', [qw(id time numeric)], 'notice' ],
		[ 'ticket', 'text', 'INSERT INTO ticket (label) VALUES ($1), ($1 || \'2\') RETURNING label, n', ['name'], 'ticket' ],
		[ 'note_some', 'text, int', 'INSERT INTO "Setting" ("Key Name", weight) SELECT $1 || i, $2 FROM generate_series(1, 3) i ON CONFLICT ("Key Name") DO UPDATE SET weight = excluded.weight RETURNING "Key Name", weight', [qw(key small)], 'setting' ]
	);
}

sub preparation
{
	return map { "PREPARE $_->[0] ($_->[1]) AS $_->[2]" } prepared();
}

sub execute
{
	my ($self) = @_;
	my ($prepared) = one_of(grep { $_->[4] ne $self->{readable} } @{ $self->{prepared} });
	my @arguments = map { $_ eq 'ids' ? 'ARRAY[' . join(', ', map { value('customer', 'id') } 1 .. number(1, 4)) . ']' : $value{$_}->() } @{ $prepared->[3] };
	return statement("EXECUTE $prepared->[0] (" . join(', ', @arguments) . ')', loose => 1);
}

# --- several statements ---------------------------------------------------------------------------------------------

# In a transaction that has written in several regions, it cannot be told where to read.
sub may_refuse { my ($statement) = @_; return $statement->{refusable} || $statement->{reads}; }

# In PL/pgSQL: row counts, a caught error, a loop over RETURNING, a variable as key. The outcome is shown.
sub block
{
	my ($self) = @_;
	my ($k, $other) = (value('customer', 'id'), value('customer', 'id'));
	my ($first, $second) = map { $self->plain_statement } 1 .. 2;
	# The block's variables are its parameters; what it returns has nowhere to go.
	my @inner = map { my $sql = $_->{sql}; $sql =~ s/ RETURNING .*//s; $_->{sql} =~ /^(?:SELECT|WITH|COPY)/ ? 'NULL' : $sql } $first, $second;
	my $own = $self->{readable} eq 'customer'
	  ? q{UPDATE "Setting" SET weight = 5 WHERE "Key Name" = 'k' || k RETURNING weight::text AS shown}
	  : 'UPDATE customer SET balance = balance + k WHERE id = k RETURNING balance::text AS shown';
	# Whichever of its errors comes first.
	my $caught = q{integrity_constraint_violation OR data_exception OR cardinality_violation OR SQLSTATE 'ZZ001'};
	return (
		statement(q{SET app.out = ''}),
		statement(qq{DO \$do\$
DECLARE
	k int := $k;
	n int;
	out text := '';
	r record;
BEGIN
	BEGIN
		$inner[0];
		GET DIAGNOSTICS n = ROW_COUNT;
		out := out || n || ' ';
	EXCEPTION WHEN $caught THEN
		out := out || 'caught ';
	END;
	FOR r IN $own LOOP
		out := out || r.shown || ' ';
	END LOOP;
	k := $other;
	FOR r IN $own LOOP
		out := out || r.shown || ' ';
	END LOOP;
	BEGIN
		$inner[1];
		IF k % 3 = 0 THEN
			RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ002';
		END IF;
	EXCEPTION WHEN SQLSTATE 'ZZ002' THEN
		out := out || 'undone ';
	END;
	PERFORM set_config('app.out', out, false);
END \$do\$}, loose => 1, refusable => may_refuse($first) || may_refuse($second)),
		statement(q{SELECT current_setting('app.out', true)}));
}

sub call
{
	my ($self) = @_;
	return statement('SELECT * FROM note(' . value('"Setting"', '"Key Name"') . ', ' . value('"Setting"', 'value') . ')', loose => 1) if $self->{readable} eq 'customer';
	return statement('SELECT pay(' . value('customer', 'id') . ', ' . value('customer', 'balance') . ')', loose => 1);
}

sub transaction
{
	my ($self) = @_;
	my @steps = (statement('BEGIN' . one_of('', '', ' ISOLATION LEVEL REPEATABLE READ', ' ISOLATION LEVEL SERIALIZABLE')));
	my $open = 0;
	for (1 .. number(1, 5))
	{
		push @steps, chance(0.2) ? $self->execute : chance(0.1) ? $self->block : $self->plain_statement;
		push @steps, statement("SAVEPOINT s"), and $open = 1 if chance(0.3);
		push @steps, statement(one_of('ROLLBACK TO s', 'ROLLBACK TO s', 'RELEASE s')) if $open && chance(0.4);
	}
	$_->{refusable} = may_refuse($_) for @steps;
	push @steps, statement(one_of('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK'));
	return @steps;
}

sub cursor
{
	my ($self) = @_;
	my $name = one_of(grep { $table{$_}{family} ne $self->{readable} && @{ $table{$_}{pk} } && !$table{$_}{view} } sort keys %table);
	my $key = $table{$name}{pk}[0];
	my $value = value($name, $key);
	my $shown = join(', ', some(1, shown($name)));
	return (
		statement('BEGIN'),
		statement("DECLARE c CURSOR FOR SELECT $shown FROM $name WHERE $key = $value FOR UPDATE"),
		statement('FETCH ALL c'),
		statement("UPDATE $name SET " . set_list($name) . " WHERE $key = $value" . returning($name), loose => 1),
		statement(one_of('COMMIT', 'ROLLBACK')));
}

sub step
{
	my ($self) = @_;
	my $dice = rand;
	return $self->transaction if $dice < 0.08;
	return $self->block if $dice < 0.14;
	return $self->execute if $dice < 0.24;
	return $self->call if $dice < 0.28;
	return $self->cursor if $dice < 0.30;
	return $self->ddl if $dice < 0.305;
	return $self->plain_statement;
}

sub settings
{
	my %setting = (
		TimeZone => one_of(qw(UTC Asia/Kolkata America/New_York)),
		DateStyle => one_of('ISO, MDY', 'SQL, DMY', 'German'),
		IntervalStyle => one_of(qw(postgres iso_8601 sql_standard)),
		extra_float_digits => number(-1, 1),
		bytea_output => one_of(qw(hex escape)),
		plan_cache_mode => one_of(qw(auto force_generic_plan force_custom_plan)));
	return statement('SELECT ' . join(', ', map { "set_config('$_', '$setting{$_}', false)" } sort keys %setting));
}

sub batch
{
	my ($self, $count) = @_;
	$self->{readable} = one_of(qw(customer setting setting notice notice ticket box measure));
	# Both sessions have the same settings, whatever they had before.
	my @steps;
	push @steps, $self->step while @steps < $count;
	return (settings(), @steps);
}

1;
