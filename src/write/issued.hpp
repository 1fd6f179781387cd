// Statements as they were issued, with the views that they name.
//
// A view lends its owner's rights, and hides rows behind its conditions. The rewriter puts the tables in place of the
// views, and what a home is sent is normally that text, executed with the rights of the caller: so a view need not
// exist there. A caller who may only use the view needs the view at the home. So:
//
//   1  after parse analysis, a statement that names a view of homed tables is kept as text in an unused entry of
//      its own range table, where it passes the rewriter, the plan cache and the planner;
//   2  when the statement is sent, and the caller lacks rights on a table that the view's owner has, it is what was
//      kept that is made into the text. The home rewrites it, and checks the caller's rights on the view and the
//      owner's on the table, as one server does.
//
// All functions are plain server calls.
#pragma once

#include "pg/boundary.hpp"

extern "C" {
#include "access/attnum.h"
#include "nodes/parsenodes.h"
}

namespace homing::write {

// Hook; from _PG_init.
void RegisterIssued();

// Runs the body, in which a query is analysed to be stored: it is left as it is.
ErrorData *CallWithoutKeeping(void (*body)(void *), void *argument);

// The rewritten query was changed in a way that the statement as issued does not show: it must not be sent.
void DropIssued(Query *rewritten);

// Takes it out of a copy that is to be made into text: there, VALUES of an INSERT are looked for in the range table.
void HideIssued(Query *rewritten);

// What to send for a rewritten query: the statement as issued when the caller needs its views, else the query itself.
Query *QueryToSend(Query *rewritten);

// The column of an updatable view, by number, that is the column of the table below it. 0: it has none.
AttrNumber ColumnOfView(Oid view, Oid table, AttrNumber attnum);

}  // namespace homing::write
