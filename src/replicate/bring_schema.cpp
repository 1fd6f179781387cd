// Tables of another region recreated here, by the server's own pg_dump.
#include "core/schema_script.hpp"
#include "remote/connection.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "pg/boundary.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "port.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/regproc.h"
#include "utils/varlena.h"
}

namespace homing::replicate {

using pg::PgCall;

namespace {

struct FreeConninfo {
	void operator()(PQconninfoOption *options) const { PQconninfoFree(options); }
};

std::string ShellQuoted(const std::string &text)
{
	std::string quoted = "'";
	for (char c : text)
		quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
	return quoted + "'";
}

std::string ConninfoQuoted(const char *value)
{
	std::string quoted = "'";
	for (const char *c = value; *c != '\0'; ++c) {
		if (*c == '\'' || *c == '\\')
			quoted += '\\';
		quoted += *c;
	}
	return quoted + "'";
}

// The connection string without its password, which goes another way: a command line is for all to see.
struct DumpSource {
	std::string conninfo, password;
};

DumpSource ParseSource(const char *conninfo)
{
	char *complaint = nullptr;
	std::unique_ptr<PQconninfoOption, FreeConninfo> parsed(PQconninfoParse(conninfo, &complaint));
	if (complaint != nullptr)
		PQfreemem(complaint);
	if (parsed == nullptr)
		throw remote::Error("22023", "invalid connection string");
	DumpSource source;
	for (const PQconninfoOption *option = parsed.get(); option->keyword != nullptr; ++option) {
		if (option->val == nullptr)
			continue;
		if (strcmp(option->keyword, "password") == 0)
			source.password = option->val;
		else if (strcmp(option->keyword, "sslpassword") == 0)
			throw remote::Error(
				"0A000", "cannot bring a schema over a connection with the option \"sslpassword\"");
		else
			source.conninfo +=
				std::string(option->keyword) + "=" + ConninfoQuoted(option->val) + " ";
	}
	return source;
}

std::string DumpCommand(const DumpSource &source, const std::string &complaints)
{
	char directory[MAXPGPATH];
	strlcpy(directory, my_exec_path, sizeof(directory));
	get_parent_directory(directory);
	const std::string programs = std::string(directory) + "/",
					  log = " 2>>" + ShellQuoted(complaints);
	// Through an archive, because only that tells what depends on what.
	return ShellQuoted(programs + "pg_dump") +
	       " --schema-only --format=custom --no-password --no-tablespaces --no-table-access-method --no-publications "
	       "--no-subscriptions --lock-wait-timeout=10s --encoding=" +
	       GetDatabaseEncodingName() + " --dbname=" + ShellQuoted(source.conninfo) + log + " | " +
	       ShellQuoted(programs + "pg_restore") + " --verbose --file=-" + log;
}

struct Output {
	StringInfoData text;
	int status;
};

// Runs the command to its end. The password is in the environment of the command only.
void ReadOutput(const char *command, const char *password, Output *output)
{
	initStringInfo(&output->text);
	FILE *pipe = nullptr;
	if (password[0] != '\0')
		setenv("PGPASSWORD", password, 1);
	PG_TRY();
	{
		pipe = OpenPipeStream(command, "r");
	}
	PG_FINALLY();
	{
		if (password[0] != '\0')
			unsetenv("PGPASSWORD");
	}
	PG_END_TRY();
	if (pipe == nullptr)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not execute pg_dump: %m")));

	char buffer[8192];
	size_t size;
	while ((size = fread(buffer, 1, sizeof(buffer), pipe)) > 0) {
		appendBinaryStringInfo(&output->text, buffer, static_cast<int>(size));
		CHECK_FOR_INTERRUPTS();
	}
	output->status = ClosePipeStream(pipe);
}

// What the programs complained of, without the progress they report.
const char *Complaints(const char *path)
{
	StringInfoData text;
	initStringInfo(&text);
	FILE *file = AllocateFile(path, "r");
	if (file == nullptr)
		return "";
	char line[1024];
	while (fgets(line, sizeof(line), file) != nullptr) {
		if (strstr(line, "error:") != nullptr || strstr(line, "detail:") != nullptr ||
		    strstr(line, "hint:") != nullptr)
			appendStringInfoString(&text, line);
	}
	FreeFile(file);
	while (text.len > 0 && text.data[text.len - 1] == '\n')
		text.data[--text.len] = '\0';
	return text.data;
}

void Dump(const char *command, const char *password, const char *complaints, Output *output)
{
	ReadOutput(command, password, output);
	// A dump that was cut off makes pg_restore fail.
	if (output->status != 0)
		ereport(ERROR,
		        (errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
		         errmsg("could not read the schema of another region"),
		         errdetail_internal("%s", Complaints(complaints)),
		         errhint(
					 "pg_dump and pg_restore of this server must be able to read that database.")));
}

class TemporaryFile {
public:
	explicit TemporaryFile(const char *path) : path_(path) {}
	~TemporaryFile() { unlink(path_.c_str()); }
	const std::string &path() const { return path_; }

private:
	std::string path_;
};

std::string ScriptOf(const char *conninfo)
{
	const DumpSource source = ParseSource(conninfo);
	// In the place that the server clears at start.
	const TemporaryFile complaints(PgCall([] {
		(void) MakePGDirectory("base/" PG_TEMP_FILES_DIR);
		return psprintf("base/" PG_TEMP_FILES_DIR "/" PG_TEMP_FILE_PREFIX "%d.homing", MyProcPid);
	}));
	const std::string command = DumpCommand(source, complaints.path());
	Output output;
	PgCall([&] {
		Dump(command.c_str(), source.password.c_str(), complaints.path().c_str(), &output);
	});
	return std::string(output.text.data, output.text.len);
}

// --- here -----------------------------------------------------------------------------------------

bool Exists(const core::SchemaItem &item)
{
	const char *values_text[] = {item.type.c_str(), item.schema.c_str(), item.name.c_str()};
	return PgCall([&] {
		Oid types[] = {TEXTOID, TEXTOID, TEXTOID};
		Datum values[3];
		for (int i = 0; i < 3; ++i)
			values[i] = CStringGetTextDatum(values_text[i]);
		if (SPI_execute_with_args("SELECT homing._has_object($1, $2, $3)", 3, types, values,
		                          nullptr, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look up an object");
		bool isnull;
		return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	});
}

void Execute(const core::SchemaItem &item)
{
	try {
		PgCall([&] {
			const int result = SPI_execute(item.sql.c_str(), false, 0);
			if (result < 0)
				ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				                errmsg("could not execute a statement of pg_dump: %s",
				                       SPI_result_code_string(result))));
		});
	} catch (pg::ServerError &error) {
		PgCall([&] {
			const char *what = psprintf("while creating %s \"%s\" of another region",
			                            item.type.c_str(), item.name.c_str());
			error.data->context = error.data->context == nullptr
			                          ? pstrdup(what)
			                          : psprintf("%s\n%s", error.data->context, what);
		});
		throw;
	}
}

void Create(const std::vector<core::SchemaItem> &items)
{
	std::vector<int> skipped;
	for (const core::SchemaItem &item : items) {
		// What describes a thing that was here before is not ours to change.
		const bool describes =
			item.type == "ACL" || item.type == "COMMENT" || item.type == "SECURITY LABEL";
		bool skip = describes && !item.needs.empty();
		for (int number : item.needs)
			skip = skip && std::find(skipped.begin(), skipped.end(), number) != skipped.end();
		if (skip || (!describes && Exists(item)))
			skipped.push_back(item.number);
		else
			Execute(item);
	}
}

using Names = std::vector<std::pair<std::string, std::string>>;

Names ReadNames(ArrayType *array)
{
	struct {
		Datum *values;
		int count;
	} raw;
	PgCall([&] {
		deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &raw.values, nullptr, &raw.count);
	});
	Names names;
	for (int i = 0; i < raw.count; ++i) {
		const RangeVar *name = PgCall([&] {
			RangeVar *parsed =
				makeRangeVarFromNameList(textToQualifiedNameList(DatumGetTextPP(raw.values[i])));
			if (parsed->schemaname == nullptr)
				ereport(ERROR,
				        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				         errmsg("table name \"%s\" must be schema-qualified", parsed->relname)));
			return parsed;
		});
		names.emplace_back(name->schemaname, name->relname);
	}
	return names;
}

void SetForScript(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void BringSchema(const char *conninfo, ArrayType *tables)
{
	const Names names = ReadNames(tables);
	const std::vector<core::SchemaItem> script = core::ParseSchemaScript(ScriptOf(conninfo));
	// Those that a foreign key refers to may have been here before.
	Names present;
	for (const core::SchemaItem &item : core::SelectTables(script, names)) {
		if (item.type == "TABLE" && Exists(item))
			present.emplace_back(item.schema, item.name);
	}
	const std::vector<core::SchemaItem> items = core::SelectTables(script, names, present);
	// The settings under which pg_dump's script means what it says.
	PgCall([] {
		SetForScript("search_path", "");
		SetForScript("check_function_bodies", "off");
		SetForScript("client_min_messages", "warning");
		SetForScript("default_tablespace", "");
		SetForScript("row_security", "off");
		SetForScript("standard_conforming_strings", "on");
		SetForScript("xmloption", "content");
	});
	Create(items);
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_bring_schema);

PGDLLEXPORT Datum homing_bring_schema(PG_FUNCTION_ARGS)
{
	const char *conninfo = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ArrayType *tables = PG_GETARG_ARRAYTYPE_P(1);

	const int nest = NewGUCNestLevel();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pg::PgEntry([&] { BringSchema(conninfo, tables); });
	SPI_finish();
	AtEOXact_GUC(false, nest);
	PG_RETURN_VOID();
}

}  // extern "C"

}  // namespace homing::replicate
