#include "write/copy_rows.hpp"

#include <cstdlib>
#include <cstring>

#include "write/binary_rows.hpp"

extern "C" {
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
}

namespace homing::write {

namespace {

int FieldOf(List *attnums, AttrNumber attnum)
{
	int field = 0;
	ListCell *cell;
	foreach (cell, attnums) {
		if (lfirst_int(cell) == attnum)
			return field;
		++field;
	}
	return -1;
}

void PrepareDefault(CopyRows *rows)
{
	auto *expr = reinterpret_cast<Expr *>(build_column_default(rows->source->rel, rows->key_attnum));
	if (expr == nullptr)
		return;
	rows->estate = CreateExecutorState();
	rows->key_default = ExecPrepareExpr(expr, rows->estate);
	Oid function;
	bool is_varlena;
	const Oid type =
		TupleDescAttr(RelationGetDescr(rows->source->rel), rows->key_attnum - 1)->atttypid;
	if (rows->source->opts.binary)
		getTypeBinaryOutputInfo(type, &function, &is_varlena);
	else
		getTypeOutputInfo(type, &function, &is_varlena);
	fmgr_info(function, &rows->key_output);
}

// --- text and CSV -------------------------------------------------------------------------------------------

void AppendText(StringInfo row, const CopyFormatOptions *options, const char *value)
{
	const bool looks_null = std::strcmp(value, options->null_print) == 0;
	for (const char *c = value; *c != '\0'; ++c) {
		if ((c == value && looks_null) || *c == '\n' || *c == '\r' || *c == '\\' ||
		    *c == options->delim[0])
			appendStringInfo(row, "\\%03o", static_cast<unsigned char>(*c));
		else
			appendStringInfoCharMacro(row, *c);
	}
}

void AppendCsv(StringInfo row, const CopyFormatOptions *options, const char *value)
{
	appendStringInfoCharMacro(row, options->quote[0]);
	for (const char *c = value; *c != '\0'; ++c) {
		if (*c == options->quote[0] || *c == options->escape[0])
			appendStringInfoCharMacro(row, options->escape[0]);
		appendStringInfoCharMacro(row, *c);
	}
	appendStringInfoCharMacro(row, options->quote[0]);
}

const char *KeyField(CopyRows *rows, char **fields, int count)
{
	CopyFromState source = rows->source;
	const int first = rows->numbered ? 1 : 0;
	const int field = first + rows->key_field;
	if (field >= count) {
		const AttrNumber missing = list_nth_int(source->attnumlist, count - first);
		ereport(ERROR,
		        (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		         errmsg("missing data for column \"%s\"",
		                NameStr(TupleDescAttr(RelationGetDescr(source->rel), missing - 1)->attname))));
	}
	const char *value = fields[field];
	if (!source->opts.csv_mode)
		return value;
	const int column = rows->key_attnum - 1;
	if (value == nullptr && source->opts.force_notnull_flags[column])
		return source->opts.null_print;
	if (value != nullptr && source->opts.force_null_flags[column] &&
	    std::strcmp(value, source->opts.null_print) == 0)
		return nullptr;
	return value;
}

Datum ConvertText(CopyRows *rows, const char *value)
{
	CopyFromState source = rows->source;
	source->cur_attname =
		NameStr(TupleDescAttr(RelationGetDescr(source->rel), rows->key_attnum - 1)->attname);
	source->cur_attval = value;
	const Datum key = InputFunctionCall(&rows->key_input, const_cast<char *>(value),
	                                    rows->key_io_param, rows->key_typmod);
	source->cur_attname = nullptr;
	source->cur_attval = nullptr;
	return key;
}

Datum EvaluateDefault(CopyRows *rows)
{
	rows->key_is_null = true;
	if (rows->key_default == nullptr)
		return 0;
	ExprContext *context = GetPerTupleExprContext(rows->estate);
	ResetExprContext(context);
	return ExecEvalExpr(rows->key_default, context, &rows->key_is_null);
}

bool NextLine(CopyRows *rows, Datum *key)
{
	CopyFromState source = rows->source;
	char **fields;
	int count;
	rows->line = source->cur_lineno;
	if (!NextCopyFromRawFields(source, &fields, &count))
		return false;
	const char *line = source->line_buf.data;
	int size = source->line_buf.len;
	if (rows->numbered) {
		rows->line = std::strtoull(fields[0], nullptr, 10);
		source->cur_lineno = rows->line + 1;
		const auto *end = static_cast<const char *>(std::memchr(line, source->opts.delim[0], size));
		if (end == nullptr)
			ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
			                errmsg("a forwarded row has no line number")));
		size -= static_cast<int>(end + 1 - line);
		line = end + 1;
	}
	appendBinaryStringInfo(&rows->row, line, size);
	if (rows->key_field >= 0) {
		const char *value = KeyField(rows, fields, count);
		rows->key_is_null = value == nullptr;
		if (value != nullptr)
			*key = ConvertText(rows, value);
	} else {
		*key = EvaluateDefault(rows);
		if (!rows->key_is_null) {
			const char *value = OutputFunctionCall(&rows->key_output, *key);
			appendStringInfoCharMacro(&rows->row, source->opts.delim[0]);
			if (source->opts.csv_mode)
				AppendCsv(&rows->row, &source->opts, value);
			else
				AppendText(&rows->row, &source->opts, value);
		}
	}
	appendStringInfoCharMacro(&rows->row, '\n');
	return true;
}

// --- binary ---------------------------------------------------------------------------------------------------

bool NextTuple(CopyRows *rows, Datum *key)
{
	BinaryField field{-1, nullptr};
	if (!ReadBinaryRow(rows->source, rows->numbered, rows->key_field, &rows->row, &rows->line,
	                   &field))
		return false;
	if (rows->key_field >= 0) {
		rows->key_is_null = field.size < 0;
		if (rows->key_is_null)
			return true;
		StringInfoData value;
		value.data = field.data;
		value.len = value.maxlen = field.size;
		value.cursor = 0;
		const char next = field.data[field.size];
		field.data[field.size] = '\0';
		*key = ReceiveFunctionCall(&rows->key_input, &value, rows->key_io_param, rows->key_typmod);
		field.data[field.size] = next;
		return true;
	}
	*key = EvaluateDefault(rows);
	if (!rows->key_is_null)
		AppendBinaryField(&rows->row, SendFunctionCall(&rows->key_output, *key));
	return true;
}

}  // namespace

void BeginRows(CopyRows *rows, AttrNumber key_attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rows->source->rel), key_attnum - 1);
	rows->key_attnum = key_attnum;
	rows->key_field = FieldOf(rows->source->attnumlist, key_attnum);
	rows->key_typmod = attribute->atttypmod;
	rows->key_type = getBaseType(attribute->atttypid);
	Oid function;
	if (rows->source->opts.binary)
		getTypeBinaryInputInfo(attribute->atttypid, &function, &rows->key_io_param);
	else
		getTypeInputInfo(attribute->atttypid, &function, &rows->key_io_param);
	fmgr_info(function, &rows->key_input);
	if (rows->key_field < 0)
		PrepareDefault(rows);
	rows->row_context =
		AllocSetContextCreate(CurrentMemoryContext, "homing COPY row", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&rows->row);
}

bool NextRow(CopyRows *rows)
{
	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(rows->row_context);
	MemoryContext old = MemoryContextSwitchTo(rows->row_context);
	resetStringInfo(&rows->row);
	Datum key = 0;
	const bool more = rows->source->opts.binary ? NextTuple(rows, &key) : NextLine(rows, &key);
	if (more && !rows->key_is_null)
		rows->key = pg::CanonicalKey(key, rows->key_type, rows->key_buffer);
	MemoryContextSwitchTo(old);
	return more;
}

void EndRows(CopyRows *rows)
{
	if (rows->estate != nullptr)
		FreeExecutorState(rows->estate);
	MemoryContextDelete(rows->row_context);
	EndCopyFrom(rows->source);
}

}  // namespace homing::write
