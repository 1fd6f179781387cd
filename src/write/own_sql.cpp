#include "write/own_sql.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
}

namespace homing::write {

void RunOwnSql(const char *sql, Oid argument)
{
	Oid types[1] = {OIDOID};
	Datum values[1] = {ObjectIdGetDatum(argument)};
	Oid user;
	int context;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, 1, types, values, nullptr, false, 0) < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", sql);
	(void) SPI_finish();
	SetUserIdAndSecContext(user, context);
}

}  // namespace homing::write
