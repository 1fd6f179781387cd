#include "write/portable_type.hpp"

#include "pg/exact_text.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
}

namespace homing::write {

bool IsPortableType(Oid type)
{
	if (type >= FirstGenbkiObjectId)
		return false;
	switch (type) {
	// Their values are numbers of objects, which differ from database to database.
	case REGPROCOID:
	case REGPROCEDUREOID:
	case REGOPEROID:
	case REGOPERATOROID:
	case REGCLASSOID:
	case REGCOLLATIONOID:
	case REGTYPEOID:
	case REGROLEOID:
	case REGNAMESPACEOID:
	case REGCONFIGOID:
	case REGDICTIONARYOID:
	case REGPROCARRAYOID:
	case REGPROCEDUREARRAYOID:
	case REGOPERARRAYOID:
	case REGOPERATORARRAYOID:
	case REGCLASSARRAYOID:
	case REGCOLLATIONARRAYOID:
	case REGTYPEARRAYOID:
	case REGROLEARRAYOID:
	case REGNAMESPACEARRAYOID:
	case REGCONFIGARRAYOID:
	case REGDICTIONARYARRAYOID:
	case RECORDOID:
	case RECORDARRAYOID:
	case UNKNOWNOID:
		return false;
	default:
		return true;
	}
}

namespace {

bool HasBinaryForm(Oid type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return false;
	auto *form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
	const bool has = OidIsValid(form->typsend) && OidIsValid(form->typreceive);
	ReleaseSysCache(tuple);
	return has;
}

// The binary form holds the numbers of the columns' types.
bool HasPortableColumns(Oid type)
{
	TupleDesc desc = lookup_rowtype_tupdesc_noerror(type, -1, true);
	if (desc == nullptr)
		return false;
	bool portable = true;
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		portable = portable && (attribute->attisdropped || (IsPortableType(attribute->atttypid) &&
		                                                    HasBinaryForm(attribute->atttypid)));
	}
	ReleaseTupleDesc(desc);
	return portable;
}

}  // namespace

bool IsPortableInBinary(Oid type)
{
	type = getBaseType(type);
	if (!HasBinaryForm(type))
		return false;
	if (type < FirstGenbkiObjectId)
		return IsPortableType(type);
	switch (get_typtype(type)) {
	case TYPTYPE_COMPOSITE:
		return HasPortableColumns(type);
	case TYPTYPE_RANGE:
		return IsPortableInBinary(get_range_subtype(type));
	case TYPTYPE_MULTIRANGE:
		return IsPortableInBinary(get_multirange_range(type));
	default:
		// The binary form of an array holds the number of its elements' type; an enum's is its label.
		return !OidIsValid(get_element_type(type));
	}
}

bool HoldsObjectNumbers(Oid type)
{
	type = getBaseType(type);
	if (type < FirstGenbkiObjectId)
		return !IsPortableType(type);
	const Oid element = get_element_type(type);
	if (OidIsValid(element))
		return HoldsObjectNumbers(element);
	if (get_typtype(type) != TYPTYPE_COMPOSITE)
		return false;
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	bool holds = false;
	for (int i = 0; i < desc->natts; ++i) {
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		holds = holds || (!attribute->attisdropped && HoldsObjectNumbers(attribute->atttypid));
	}
	ReleaseTupleDesc(desc);
	return holds;
}

extern "C" {

PG_FUNCTION_INFO_V1(homing_exact_text);

PGDLLEXPORT Datum homing_exact_text(PG_FUNCTION_ARGS)
{
	Oid output;
	bool is_varlena;
	getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, 0), &output, &is_varlena);
	PG_RETURN_TEXT_P(cstring_to_text(pg::ExactText(output, PG_GETARG_DATUM(0))));
}

}  // extern "C"

}  // namespace homing::write
