// Finds the keys that a write concerns, in the parse tree, before it is planned.
//
// A key is proved when every row that the statement can touch has it: INSERT's value for the key column;
// for UPDATE and DELETE `key = expr`, `key = ANY (expr)`, or a column that inner joins equate with one.
// Expressions are found here and evaluated when the statement starts.
#pragma once

#include "pg/catalog.hpp"
#include "write/claims.hpp"

extern "C" {
#include "nodes/params.h"
#include "nodes/parsenodes.h"
}

namespace homing::write {

enum class SourceKind {
	kKey,   // a key
	kKeys,  // an array of keys
	kHomes  // an array of homes: the part of a statement that another region shares out (_owns)
};

// Where key values of one written table come from.
struct KeySource {
	Expr *expr;
	SourceKind kind;
	int param;  // > 0: evaluated once, its value is this parameter of the statement; 0: plain
};

// How a statement can be shared out when its rows live in several regions.
enum class Sharing {
	kNone,
	kValues,       // INSERT … VALUES: by rows; source i is the key of row i
	kSelect,       // INSERT … SELECT: the rows are computed here and routed one by one
	kSelectThere,  // the same, but if there is one home, it has all that the rows are computed from
	kOwned,        // UPDATE, DELETE: every region does its own rows
	kMove          // UPDATE of the key: rows are deleted at the old and inserted at the new home
};

struct WriteTarget {
	Oid relid;             // the table written, possibly a partition
	Oid homed;             // the homed table it is or belongs to
	List *sources;         // of KeySource *
	const char *unproved;  // why the keys are not known before the rows are; nullptr: they are
	Sharing sharing;
	Claiming claiming;
};

struct WriteAnalysis {
	List *targets;  // of WriteTarget *
};

// nullptr: the query writes no homed table. Replaces key expressions that must be evaluated exactly once
// by parameters, in the query itself. A plain server call; raises 0A000 for shapes that can never work.
WriteAnalysis *AnalyseWrite(Query *query, ParamListInfo bound);

}  // namespace homing::write
