// Who passes on the end of a lost region's stream: core::FinalPosition and core::RelaysNeeded for relay.sql.
#include "core/loss.hpp"

#include <algorithm>
#include <vector>

#include "pg/boundary.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
}

namespace homing::rehome {

namespace {

struct Row {
	uint64 final_position;
	int16 source, reader;  // 0: none
};

int Elements(ArrayType *array, Oid type, int16 size, bool by_value, char align, Datum **values)
{
	int count;
	if (ARR_HASNULL(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("there must be no nulls")));
	deconstruct_array(array, type, size, by_value, align, values, nullptr, &count);
	return count;
}

// One row for each region that lacks something; or one, if none does. Returns their number.
int Decide(const Datum *reporters, const Datum *positions, const Datum *directly, int count,
           Row *rows)
{
	std::vector<core::RegionId> survivors;
	std::vector<core::StopReport> reports;
	for (int i = 0; i < count; ++i) {
		survivors.emplace_back(DatumGetInt16(reporters[i]));
		reports.push_back({survivors.back(), DatumGetLSN(positions[i]), DatumGetBool(directly[i])});
	}
	const core::Position end = core::FinalPosition(survivors, reports).value();
	const std::vector<core::Relay> relays = core::RelaysNeeded(end, reports);
	int made = 0;
	for (const core::StopReport &report : reports) {
		if (report.applied >= end)
			continue;
		const auto relay = std::find_if(relays.begin(), relays.end(), [&](const core::Relay &r) {
			return r.to == report.reporter;
		});
		rows[made++] = {end, static_cast<int16>(relay != relays.end() ? relay->from.value : 0),
		                report.reporter.value};
	}
	if (made == 0)
		rows[made++] = {end, 0, 0};
	return made;
}

}  // namespace

extern "C" {

PG_FUNCTION_INFO_V1(homing_relays);

PGDLLEXPORT Datum homing_relays(PG_FUNCTION_ARGS)
{
	Datum *reporters, *positions, *directly;
	const int count = Elements(PG_GETARG_ARRAYTYPE_P(0), INT2OID, sizeof(int16), true,
	                           TYPALIGN_SHORT, &reporters);
	if (Elements(PG_GETARG_ARRAYTYPE_P(1), PG_LSNOID, sizeof(XLogRecPtr), FLOAT8PASSBYVAL,
	             TYPALIGN_DOUBLE, &positions) != count ||
	    Elements(PG_GETARG_ARRAYTYPE_P(2), BOOLOID, sizeof(bool), true, TYPALIGN_CHAR, &directly) !=
	        count ||
	    count == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be regions, and a position of each")));
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	auto *rows = static_cast<Row *>(palloc(count * sizeof(Row)));
	const int made =
		pg::PgEntry([&] { return Decide(reporters, positions, directly, count, rows); });
	for (int i = 0; i < made; ++i) {
		Datum values[] = {LSNGetDatum(rows[i].final_position), Int16GetDatum(rows[i].source),
		                  Int16GetDatum(rows[i].reader)};
		bool nulls[] = {false, rows[i].source == 0, rows[i].reader == 0};
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

}  // extern "C"

}  // namespace homing::rehome
