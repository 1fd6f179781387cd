#include "core/schema_script.hpp"

#include <algorithm>
#include <set>
#include <sstream>
#include <unordered_map>

namespace homing::core {

namespace {

constexpr const char *kHeader = "--\n-- TOC entry ";
constexpr const char *kEnd = "\n-- Completed on ";
constexpr const char *kEndWithoutDate = "\n--\n-- PostgreSQL database dump complete";

bool StartsWith(const std::string &text, const std::string &start)
{
	return text.compare(0, start.size(), start) == 0;
}

std::string Between(const std::string &text, const std::string &before, const std::string &after,
                    std::size_t &position)
{
	const std::size_t start = text.find(before, position);
	if (start == std::string::npos)
		return {};
	const std::size_t from = start + before.size();
	std::size_t to = text.find(after, from);
	if (to == std::string::npos)
		to = text.size();
	position = to;
	return text.substr(from, to - from);
}

// "-- Name: orders; Type: TABLE; Schema: public; Owner: app"
void ParseNameLine(const std::string &line, SchemaItem &item)
{
	std::size_t position = 0;
	item.name = Between(line, "Name: ", "; Type: ", position);
	item.type = Between(line, "; Type: ", "; Schema: ", position);
	item.schema = Between(line, "; Schema: ", "; Owner: ", position);
}

SchemaItem ParseItem(const std::string &text)
{
	SchemaItem item;
	std::istringstream lines(text);
	std::string line;
	std::getline(lines, line);  // "--"
	while (std::getline(lines, line) && line != "--") {
		if (StartsWith(line, "-- TOC entry "))
			item.number = std::stoi(line.substr(13));
		else if (StartsWith(line, "-- Dependencies:")) {
			std::istringstream numbers(line.substr(16));
			for (int number; numbers >> number;)
				item.needs.push_back(number);
		} else if (StartsWith(line, "-- Name: "))
			ParseNameLine(line, item);
	}
	std::ostringstream rest;
	rest << lines.rdbuf();
	item.sql = rest.str();
	return item;
}

using Types = std::set<std::string>;

// Parts of the table that they need: none of these needs a table that is not its own.
const Types kPartsOfTables = {"INDEX", "INDEX ATTACH", "SEQUENCE", "STATISTICS", "TABLE ATTACH"};

// Parts of the table that their name starts with. They may need things of other tables as well.
const Types kNamedAfterTables = {"CHECK CONSTRAINT", "CONSTRAINT",   "DEFAULT", "FK CONSTRAINT",
                                 "POLICY",           "ROW SECURITY", "RULE",    "TRIGGER"};

// Parts of the one thing that they need.
const Types kPartsOfAnything = {"ACL", "COMMENT", "SECURITY LABEL", "SEQUENCE OWNED BY"};

bool IsGuard(const SchemaItem &item)
{
	const std::string call = " EXECUTE FUNCTION ";
	const std::size_t found = item.sql.rfind(call);
	return item.type == "TRIGGER" && found != std::string::npos &&
	       item.sql.compare(found + call.size(), 7, "homing.") == 0;
}

class Selection {
public:
	Selection(const std::vector<SchemaItem> &items, const TableNames &present)
		: items_(items), chosen_(items.size(), false), present_(present.begin(), present.end())
	{
		for (std::size_t i = 0; i < items.size(); ++i)
			by_number_[items[i].number] = i;
	}

	// Chooses an item and all that it needs.
	void Choose(std::size_t index)
	{
		std::vector<std::size_t> open{index};
		while (!open.empty()) {
			const std::size_t next = open.back();
			open.pop_back();
			if (chosen_[next] || IsPresent(items_[next]))
				continue;
			chosen_[next] = true;
			const SchemaItem &item = items_[next];
			if (item.type == "TABLE")
				tables_.insert({item.schema, item.name});
			for (int number : item.needs) {
				auto found = by_number_.find(number);
				if (found != by_number_.end())
					open.push_back(found->second);
			}
		}
	}

	// Chooses what belongs to the chosen ones. Returns whether there was any.
	bool ChooseParts()
	{
		bool any = false;
		for (std::size_t i = 0; i < items_.size(); ++i) {
			if (chosen_[i] || IsGuard(items_[i]) || !IsPart(items_[i]) || IsPresent(items_[i]))
				continue;
			Choose(i);
			any = true;
		}
		return any;
	}

	std::vector<SchemaItem> Chosen() const
	{
		std::vector<SchemaItem> result;
		for (std::size_t i = 0; i < items_.size(); ++i) {
			if (chosen_[i])
				result.push_back(items_[i]);
		}
		return result;
	}

private:
	// A table that is there already, or a part of one.
	bool IsPresent(const SchemaItem &item) const
	{
		for (const auto &[schema, table] : present_) {
			if (item.schema != schema)
				continue;
			if (item.type == "TABLE"
			        ? item.name == table
			        : kNamedAfterTables.count(item.type) > 0 && StartsWith(item.name, table + " "))
				return true;
		}
		if (kPartsOfTables.count(item.type) == 0)
			return false;
		return std::any_of(item.needs.begin(), item.needs.end(), [&](int number) {
			auto found = by_number_.find(number);
			return found != by_number_.end() && items_[found->second].type == "TABLE" &&
			       present_.count({items_[found->second].schema, items_[found->second].name}) > 0;
		});
	}

	bool IsPart(const SchemaItem &item) const
	{
		if (kPartsOfTables.count(item.type) > 0)
			return NeedsChosen(item, "TABLE");
		if (kPartsOfAnything.count(item.type) > 0)
			return NeedsChosen(item, nullptr);
		if (kNamedAfterTables.count(item.type) == 0)
			return false;
		for (const auto &[schema, table] : tables_) {
			if (item.schema == schema && (item.name == table || StartsWith(item.name, table + " ")))
				return NeedsChosen(item, "TABLE");
		}
		return false;
	}

	bool NeedsChosen(const SchemaItem &item, const char *type) const
	{
		for (int number : item.needs) {
			auto found = by_number_.find(number);
			if (found != by_number_.end() && chosen_[found->second] &&
			    (type == nullptr || items_[found->second].type == type))
				return true;
		}
		return false;
	}

	const std::vector<SchemaItem> &items_;
	std::vector<bool> chosen_;
	std::unordered_map<int, std::size_t> by_number_;
	std::set<std::pair<std::string, std::string>> tables_;
	const std::set<std::pair<std::string, std::string>> present_;
};

}  // namespace

std::vector<SchemaItem> ParseSchemaScript(const std::string &script)
{
	std::vector<SchemaItem> items;
	std::size_t start = script.find(kHeader);
	while (start != std::string::npos) {
		const std::size_t next = script.find(std::string("\n") + kHeader, start + 1);
		std::size_t end = next;
		if (next == std::string::npos)
			end = std::min(script.rfind(kEnd), script.rfind(kEndWithoutDate));
		items.push_back(
			ParseItem(script.substr(start, end == std::string::npos ? end : end - start)));
		start = next == std::string::npos ? next : next + 1;
	}
	return items;
}

std::vector<SchemaItem> SelectTables(const std::vector<SchemaItem> &items, const TableNames &tables,
                                     const TableNames &present)
{
	Selection selection(items, present);
	for (std::size_t i = 0; i < items.size(); ++i) {
		for (const auto &[schema, table] : tables) {
			if (items[i].type == "TABLE" && items[i].schema == schema && items[i].name == table)
				selection.Choose(i);
		}
	}
	while (selection.ChooseParts())
		;
	return selection.Chosen();
}

}  // namespace homing::core
