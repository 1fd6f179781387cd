#include "core/statement_cache.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

namespace homing::core {

// That hashes of two keys are equal only means that one is prepared a use too early.
bool StatementCache::CameBefore(const std::string &key)
{
	const std::size_t hash = std::hash<std::string>()(key);
	const auto known = std::find(seen_.begin(), seen_.end(), hash);
	if (known != seen_.end()) {
		seen_.erase(known);
		return true;
	}
	seen_.push_back(hash);
	if (seen_.size() > limit_)
		seen_.pop_front();
	return false;
}

void StatementCache::EvictOldest()
{
	const Entry &oldest = entries_.front();
	evicted_.push_back(oldest.number);
	bytes_ -= oldest.key.size();
	by_key_.erase(oldest.key);
	entries_.pop_front();
}

StatementCache::Use StatementCache::Plan(const std::string &key)
{
	const auto known = by_key_.find(key);
	if (known != by_key_.end()) {
		entries_.splice(entries_.end(), entries_, known->second);
		return {known->second->number, false};
	}
	if (key.size() > byte_limit_ / 8 || !CameBefore(key))
		return {0, false};
	while (entries_.size() >= limit_ || bytes_ + key.size() > byte_limit_)
		EvictOldest();
	bytes_ += key.size();
	entries_.push_back({key, ++last_number_});
	by_key_.emplace(key, std::prev(entries_.end()));
	return {last_number_, true};
}

void StatementCache::Forget(int number)
{
	const auto entry = std::find_if(entries_.begin(), entries_.end(),
	                                [&](const Entry &each) { return each.number == number; });
	if (entry != entries_.end()) {
		bytes_ -= entry->key.size();
		by_key_.erase(entry->key);
		entries_.erase(entry);
	}
	evicted_.erase(std::remove(evicted_.begin(), evicted_.end(), number), evicted_.end());
}

std::vector<int> StatementCache::TakeEvicted()
{
	return std::exchange(evicted_, {});
}

}  // namespace homing::core
