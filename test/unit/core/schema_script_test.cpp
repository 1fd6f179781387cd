#include "core/schema_script.hpp"

#include <gtest/gtest.h>

#include <algorithm>

using namespace homing::core;

namespace {

struct Entry {
	int number;
	std::string needs, name, type, schema, sql;
};

// As pg_restore --verbose prints an archive.
std::string Script(const std::vector<Entry> &entries)
{
	std::string script =
		"--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nSET statement_timeout = 0;\n\n";
	for (const Entry &entry : entries) {
		script += "--\n-- TOC entry " + std::to_string(entry.number) + " (class 1259 OID 1)\n";
		if (!entry.needs.empty())
			script += "-- Dependencies: " + entry.needs + "\n";
		script += "-- Name: " + entry.name + "; Type: " + entry.type + "; Schema: " + entry.schema +
		          "; Owner: app\n-- Data Pos: 0\n--\n\n" + entry.sql + "\n\n\n";
	}
	return script +
	       "-- Completed on 2026-01-01\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n";
}

std::vector<int> Numbers(const std::vector<SchemaItem> &items)
{
	std::vector<int> numbers;
	for (const SchemaItem &item : items)
		numbers.push_back(item.number);
	return numbers;
}

std::vector<int> Select(const std::vector<Entry> &entries, const TableNames &tables,
                        const TableNames &present = {})
{
	return Numbers(SelectTables(ParseSchemaScript(Script(entries)), tables, present));
}

TEST(SchemaScript, ItemsAreParsedWithWhatTheyNeed)
{
	const auto items =
		ParseSchemaScript(Script({{7, "", "s", "SCHEMA", "-", "CREATE SCHEMA s;"},
	                              {12, "7 9", "My Table", "TABLE", "s", "CREATE TABLE x ();"}}));
	ASSERT_EQ(items.size(), 2u);
	EXPECT_EQ(items[0].schema, "-");
	EXPECT_EQ(items[1].number, 12);
	EXPECT_EQ(items[1].needs, (std::vector<int>{7, 9}));
	EXPECT_EQ(items[1].name, "My Table");
	EXPECT_EQ(items[1].type, "TABLE");
	EXPECT_EQ(items[1].schema, "s");
	EXPECT_NE(items[1].sql.find("CREATE TABLE x ();"), std::string::npos);
}

TEST(SchemaScript, TheEndIsNoPartOfTheLastItem)
{
	const auto items = ParseSchemaScript(Script({{7, "", "s", "SCHEMA", "-", "CREATE SCHEMA s;"}}));
	ASSERT_EQ(items.size(), 1u);
	EXPECT_EQ(items[0].sql.find("unrestrict"), std::string::npos);
	EXPECT_EQ(items[0].sql.find("Completed"), std::string::npos);
}

TEST(SchemaScript, NothingIsParsedFromNothing)
{
	EXPECT_TRUE(ParseSchemaScript("").empty());
	EXPECT_TRUE(ParseSchemaScript(Script({})).empty());
}

TEST(SchemaScript, CommentsInAFunctionAreNoHeaders)
{
	const auto items = ParseSchemaScript(
		Script({{7, "", "f()", "FUNCTION", "s", "AS $$\n--\n-- Name: x; Type: TABLE\n--\n$$;"}}));
	ASSERT_EQ(items.size(), 1u);
	EXPECT_EQ(items[0].type, "FUNCTION");
}

TEST(SchemaScript, ATableComesWithItsPartsAndTheirNeeds)
{
	EXPECT_EQ(Select({{1, "", "s", "SCHEMA", "-", ""},
	                  {2, "1", "mood", "TYPE", "s", ""},
	                  {3, "1", "unrelated", "TYPE", "s", ""},
	                  {4, "1", "f()", "FUNCTION", "s", ""},
	                  {5, "1 2", "t", "TABLE", "s", ""},
	                  {6, "1 2", "other", "TABLE", "s", ""},
	                  {7, "5 1", "t_id_seq", "SEQUENCE", "s", ""},
	                  {8, "7", "t_id_seq", "SEQUENCE OWNED BY", "s", ""},
	                  {9, "5 7", "t id", "DEFAULT", "s", ""},
	                  {10, "5", "t t_pkey", "CONSTRAINT", "s", ""},
	                  {11, "6", "other other_pkey", "CONSTRAINT", "s", ""},
	                  {12, "5", "t_idx", "INDEX", "s", ""},
	                  {13, "4 5", "t touch", "TRIGGER", "s",
	                   "CREATE TRIGGER touch ON s.t EXECUTE FUNCTION s.f();"},
	                  {14, "5", "TABLE t", "ACL", "s", ""},
	                  {15, "1", "SCHEMA s", "ACL", "-", ""},
	                  {16, "6", "TABLE other", "ACL", "s", ""}},
	                 {{"s", "t"}}),
	          (std::vector<int>{1, 2, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15}));
}

TEST(SchemaScript, PartitionsComeWithTheirRoot)
{
	EXPECT_EQ(Select({{1, "", "root", "TABLE", "public", ""},
	                  {2, "1", "leaf", "TABLE", "public", ""},
	                  {3, "", "child", "TABLE", "public", ""},
	                  {4, "2 1", "leaf", "TABLE ATTACH", "public", ""},
	                  {5, "1", "root root_pkey", "CONSTRAINT", "public", ""},
	                  {6, "2 5", "leaf leaf_pkey", "CONSTRAINT", "public", ""},
	                  {7, "6 5 2 1", "leaf_pkey", "INDEX ATTACH", "public", ""}},
	                 {{"public", "root"}}),
	          (std::vector<int>{1, 2, 4, 5, 6, 7}));
}

TEST(SchemaScript, ATableThatRefersToOursStaysAway)
{
	const std::vector<Entry> entries = {{1, "", "t", "TABLE", "public", ""},
	                                    {2, "", "other", "TABLE", "public", ""},
	                                    {3, "1", "t t_pkey", "CONSTRAINT", "public", ""},
	                                    {4, "2 1 3", "other other_fkey", "FK CONSTRAINT", "public",
	                                     ""},
	                                    {5, "2 1", "other view_t", "RULE", "public", ""}};
	EXPECT_EQ(Select(entries, {{"public", "t"}}), (std::vector<int>{1, 3}));
	// The other way round the table that is referred to is needed.
	EXPECT_EQ(Select(entries, {{"public", "other"}}), (std::vector<int>{1, 2, 3, 4, 5}));
}

TEST(SchemaScript, ATableThatIsThereIsNotBrought)
{
	const std::vector<Entry> entries = {{1, "", "parent", "TABLE", "public", ""},
	                                    {2, "", "child", "TABLE", "public", ""},
	                                    {3, "1", "parent parent_pkey", "CONSTRAINT", "public", ""},
	                                    {4, "1", "parent_i", "INDEX", "public", ""},
	                                    {5, "2 1 3", "child child_fkey", "FK CONSTRAINT", "public",
	                                     ""}};
	EXPECT_EQ(Select(entries, {{"public", "child"}}, {{"public", "parent"}}),
	          (std::vector<int>{2, 5}));
}

TEST(SchemaScript, TheGuardIsLeftOut)
{
	EXPECT_EQ(
		Select(
			{{1, "", "t", "TABLE", "public", ""},
	         {2, "1", "t homing_guard", "TRIGGER", "public",
	          "CREATE TRIGGER homing_guard ON public.t FOR EACH STATEMENT EXECUTE FUNCTION homing._guard();"},
	         {3, "1", "t mine", "TRIGGER", "public",
	          "CREATE TRIGGER mine ON public.t WHEN (new.x = ' EXECUTE FUNCTION homing.') EXECUTE FUNCTION public.f();"}},
			{{"public", "t"}}),
		(std::vector<int>{1, 3}));
}

TEST(SchemaScript, AnUnknownTableSelectsNothing)
{
	EXPECT_TRUE(Select({{1, "", "t", "TABLE", "public", ""}}, {{"s", "t"}, {"public", "T"}}).empty());
}

}  // namespace
