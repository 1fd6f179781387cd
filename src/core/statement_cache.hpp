// Which statements a session at another region keeps prepared: those that come again, up to a limit, the
// least recently used leaving first.
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

	explicit StatementCache(std::size_t limit) : limit_(limit) {}

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

	std::size_t limit_;
	int last_number_ = 0;
	std::list<Entry> entries_;  // the least recently used first
	std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
	std::deque<std::size_t> seen_;  // hashes of keys that came once, the newest last
	std::vector<int> evicted_;
};

}  // namespace homing::core
