// Which parts of a dumped schema a set of tables needs.
//
// The script is what `pg_restore --verbose -f -` prints of a schema-only archive: every object under a
// header with its number, the numbers it depends on, name, type and schema.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace homing::core {

struct SchemaItem {
	int number = 0;
	std::vector<int> needs;
	std::string name, type, schema;  // as the header has them: unquoted; schema "-" when it has none
	std::string sql;
};

using TableNames = std::vector<std::pair<std::string, std::string>>;  // schema, name

// In the order of the script.
std::vector<SchemaItem> ParseSchemaScript(const std::string &script);

// The tables (schema, name), everything that belongs to them (partitions, indexes, constraints,
// triggers, owned sequences, policies, privileges, comments) and everything that one of these needs
// (types, functions, schemas, extensions ...), in the order of the script. Triggers whose function is
// in the schema homing are left out. Tables that the script does not have are ignored. Tables in `present`
// are there already: neither they nor what belongs to them is selected, even if others need it.
std::vector<SchemaItem> SelectTables(const std::vector<SchemaItem> &items, const TableNames &tables,
                                     const TableNames &present = {});

}  // namespace homing::core
