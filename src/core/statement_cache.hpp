// Which statements a session at another region keeps prepared: those that come again, up to a number and a total
// length, the least recently used leaving first.
#pragma once

#include <cstddef>
#include <deque>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

namespace homing::core {

class StatementCache {
public:
	// A statement that is prepared has a number, from 1; 0: send it without preparing.
	struct Use {
		int number;
		bool prepare;  // first: it has the number from now on
	};

	// So many statements, their keys this long in all. A key of more than an eighth of that is not kept.
	StatementCache(std::size_t limit, std::size_t byte_limit)
		: limit_(limit), byte_limit_(byte_limit)
	{
	}

	// What to do with a statement that is about to be sent; `key` is its text and the types of its parameters.
	Use Plan(const std::string &key);

	// The server does not have the statement (any more).
	void Forget(int number);
	// Numbers that the server may drop since the last call. One that it did not drop is given back.
	std::vector<int> TakeEvicted();
	void GiveBack(int number) { evicted_.push_back(number); }

	std::size_t size() const { return entries_.size(); }

private:
	struct Entry {
		std::string key;
		int number;
	};

	bool CameBefore(const std::string &key);
	void EvictOldest();

	std::size_t limit_, byte_limit_;
	std::size_t bytes_ = 0;  // of the keys of entries_
	int last_number_ = 0;
	std::list<Entry> entries_;  // the least recently used first
	std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
	std::deque<std::size_t> seen_;  // hashes of keys that came once, the newest last
	std::vector<int> evicted_;
};

}  // namespace homing::core
