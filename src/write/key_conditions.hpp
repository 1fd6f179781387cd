// What the conditions of a query say about the key of a table: plain server calls.
#pragma once

#include "write/key_finder.hpp"

namespace homing::write {

// The key column of one written table, while its statement is analysed.
struct Key {
	AttrNumber attnum;  // in the table written
	Oid type;           // base type
	Oid opfamily;       // btree, whose equality decides what is one key
};

Key KeyOfTarget(const WriteTarget *target, const pg::HomedTable *homed);

// The keys that the query's conditions allow for the rows of `varno`, whose key column is key->attnum there;
// NIL: any. `columns` becomes the columns that are equal to the key.
List *FindInConditions(Query *query, int varno, const Key *key, List **columns);

// The values of a column of a row source that is spelled out: VALUES, or a SELECT of known values. False: it
// is not.
bool AddSpelledOut(Var *column, List *rtable, List **sources);

// Whether an operator's equality is that of keys.
bool EqualsKey(const Key *key, Oid op, Oid collation);

// Whether values of a type have the bytes that a key of the same value has.
bool YieldsKey(const Key *key, Oid type);

// The expression has one value for the whole statement, known when it starts.
bool IsKnownAtStart(Node *node);

// The call homing.`name`(keyspace, homes, key), by which another region tells which homes it means.
bool IsHomesCall(Node *node, const char *name);

// Takes off casts that do not change which key a value is.
Node *StripRelabel(Node *node);

bool IsKeyVar(Node *node, int varno, AttrNumber attnum);
bool IsOneOf(Node *node, List *columns);
KeySource *MakeSource(void *expr, SourceKind kind);

}  // namespace homing::write
