#include "pg/boundary.hpp"

#include <cstring>
#include <new>

namespace homing::pg {

[[gnu::hot]] ErrorData *CallGuarded(void (*call)(void *), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = nullptr;

	PG_TRY();
	{
		call(argument);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

namespace {

// Copies into the current memory context without risking an error inside a catch block.
const char *Keep(const std::string &text)
{
	if (text.empty())
		return nullptr;
	auto *copy = static_cast<char *>(palloc_extended(text.size() + 1, MCXT_ALLOC_NO_OOM));
	if (copy != nullptr)
		std::memcpy(copy, text.c_str(), text.size() + 1);
	return copy;
}

}  // namespace

int SqlStateCode(const char *sqlstate)
{
	if (std::strlen(sqlstate) != 5)
		return ERRCODE_FDW_ERROR;
	return MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
}

int NoticeLevel(const char *severity)
{
	static const struct {
		const char *severity;
		int level;
	} kLevels[] = {{"WARNING", WARNING}, {"INFO", INFO}, {"LOG", LOG}, {"DEBUG", DEBUG1}};
	for (const auto &known : kLevels) {
		if (std::strcmp(severity, known.severity) == 0)
			return known.level;
	}
	return NOTICE;
}

PendingError Flatten() noexcept
{
	PendingError pending;
	try {
		throw;
	} catch (const ServerError &error) {
		pending.server = error.data;
	} catch (const remote::Error &error) {
		pending.sqlerrcode = SqlStateCode(error.sqlstate.c_str());
		pending.message = Keep(error.what());
		pending.detail = Keep(error.detail);
		pending.hint = Keep(error.hint);
		pending.context = Keep(error.context);
		pending.schema = Keep(error.schema);
		pending.table = Keep(error.table);
		pending.column = Keep(error.column);
		pending.datatype = Keep(error.datatype);
		pending.constraint = Keep(error.constraint);
	} catch (const std::bad_alloc &) {
		pending.sqlerrcode = ERRCODE_OUT_OF_MEMORY;
		pending.message = "out of memory";
	} catch (const std::exception &error) {
		pending.sqlerrcode = ERRCODE_INTERNAL_ERROR;
		pending.message = Keep(error.what());
	} catch (...) {
		pending.sqlerrcode = ERRCODE_INTERNAL_ERROR;
		pending.message = "unrecognized exception";
	}
	return pending;
}

void Raise(const PendingError &error)
{
	if (error.server != nullptr)
		ReThrowError(error.server);

	ereport(ERROR,
	        (errcode(error.sqlerrcode),
	         errmsg_internal("%s", error.message != nullptr ? error.message : "out of memory"),
	         error.detail != nullptr ? errdetail_internal("%s", error.detail) : 0,
	         error.hint != nullptr ? errhint("%s", error.hint) : 0,
	         error.context != nullptr ? errcontext("%s", error.context) : 0,
	         error.schema != nullptr ? err_generic_string(PG_DIAG_SCHEMA_NAME, error.schema) : 0,
	         error.table != nullptr ? err_generic_string(PG_DIAG_TABLE_NAME, error.table) : 0,
	         error.column != nullptr ? err_generic_string(PG_DIAG_COLUMN_NAME, error.column) : 0,
	         error.datatype != nullptr ? err_generic_string(PG_DIAG_DATATYPE_NAME, error.datatype)
	                                   : 0,
	         error.constraint != nullptr
	             ? err_generic_string(PG_DIAG_CONSTRAINT_NAME, error.constraint)
	             : 0));
	pg_unreachable();
}

}  // namespace homing::pg
