#include "remote/error.hpp"

namespace homing::remote {

namespace {

std::string Field(const PGresult *result, int code)
{
	const char *text = PQresultErrorField(result, code);
	return text != nullptr ? text : "";
}

}  // namespace

Error Error::FromResult(const PGresult *result)
{
	std::string sqlstate = Field(result, PG_DIAG_SQLSTATE);
	std::string message = Field(result, PG_DIAG_MESSAGE_PRIMARY);
	if (message.empty()) {
		message = PQresultErrorMessage(result);
		while (!message.empty() && message.back() == '\n')
			message.pop_back();
	}
	Error error(sqlstate.empty() ? "08006" : sqlstate, message);
	std::string severity = Field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	if (!severity.empty())
		error.severity = severity;
	error.detail = Field(result, PG_DIAG_MESSAGE_DETAIL);
	error.hint = Field(result, PG_DIAG_MESSAGE_HINT);
	error.context = Field(result, PG_DIAG_CONTEXT);
	error.schema = Field(result, PG_DIAG_SCHEMA_NAME);
	error.table = Field(result, PG_DIAG_TABLE_NAME);
	error.column = Field(result, PG_DIAG_COLUMN_NAME);
	error.datatype = Field(result, PG_DIAG_DATATYPE_NAME);
	error.constraint = Field(result, PG_DIAG_CONSTRAINT_NAME);
	return error;
}

}  // namespace homing::remote
