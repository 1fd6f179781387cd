// The keys of a statement's targets: their place in the plan, and their values when it starts.
#pragma once

#include "write/key_finder.hpp"

extern "C" {
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
}

namespace homing::write {

struct KeyValue {
	const uint8 *data;  // canonical bytes; nullptr: the key is NULL
	Size size;
};

struct WrittenTarget {
	Oid relid;
	Oid homed;
	const char *unproved;  // nullptr: `keys` are all keys that can be written
	Sharing sharing;
	Claiming claiming;
	KeyValue *keys;
	int key_count;
	int32 *homes;  // not nullptr: instead of keys, the homes that this region shall do
	int home_count;
	bool known;  // false: EXPLAIN without the values of the parameters
};

struct WrittenKeys {
	WrittenTarget *targets;
	int target_count;
};

// Stores the analysis in the node's custom_exprs; returns what belongs into custom_private. Plain.
List *StoreKeys(CustomScan *scan, const WriteAnalysis *analysis);

// Evaluates the key expressions, in the query's memory context; values that must not be evaluated again
// become parameters of the execution. With `explain_only`, nothing with side effects is evaluated. Plain.
WrittenKeys EvaluateKeys(CustomScan *scan, List *stored, EState *estate, bool explain_only);

// A write of one table by one key that is a constant or a parameter: all that the shortest way needs, in one piece.
struct PlainWrite {
	Oid relid;
	Oid homed;
	Oid type;      // of the key, or what it is a domain over
	Oid declared;  // of the parameter
	int param;     // its number; 0: the key is a constant
	uint64 hash;   // of the constant
	// The statement with PostgreSQL's own plan, made when it is first executed so; lives as long as `served_from`, the
	// statement that it was made of. A copy of that is another one, and has none yet.
	mutable PlannedStmt *served;
	mutable const PlannedStmt *served_from;
};

// As a node of the plan, out of what StoreKeys has stored; nullptr: the statement is not as simple as that. Plain.
Node *StorePlainWrite(CustomScan *scan, List *stored);
inline const PlainWrite *PlainWriteOf(const Node *node)
{
	return node == nullptr ? nullptr
	                       : reinterpret_cast<const PlainWrite *>(
								 DatumGetPointer(reinterpret_cast<const Const *>(node)->constvalue));
}

// The hash of its key. False: it has none. Plain.
bool HashOfPlainKey(const PlainWrite &write, ParamListInfo params, uint64 *hash);

}  // namespace homing::write
