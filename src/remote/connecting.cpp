#include "remote/connecting.hpp"

#include <new>

#include "remote/connection.hpp"

namespace homing::remote {

Connecting::Connecting(const ConnectionOptions &options)
{
	std::vector<const char *> keywords, values;
	for (const auto &[keyword, value] : options) {
		keywords.push_back(keyword.c_str());
		values.push_back(value.c_str());
	}
	keywords.push_back(nullptr);
	values.push_back(nullptr);

	conn_ = PQconnectStartParams(keywords.data(), values.data(), 0);
	if (conn_ == nullptr)
		throw std::bad_alloc();
	if (PQstatus(conn_) == CONNECTION_BAD)
		status_ = PGRES_POLLING_FAILED;
	try {
		Check();
	} catch (...) {
		PQfinish(conn_);
		throw;
	}
}

Connecting::~Connecting()
{
	if (conn_ != nullptr)
		PQfinish(conn_);
}

Connecting::Connecting(Connecting &&other) noexcept
	: conn_(std::exchange(other.conn_, nullptr)), status_(other.status_)
{
}

void Connecting::Step()
{
	status_ = PQconnectPoll(conn_);
	Check();
}

bool Connecting::Advance(Waiter &waiter)
{
	while (!Done() && waiter.Wait(Socket(), ForRead(), !ForRead(), std::chrono::milliseconds(0)))
		Step();
	return Done();
}

void Connecting::Check() const
{
	if (status_ != PGRES_POLLING_FAILED)
		return;
	std::string message = PQerrorMessage(conn_);
	while (!message.empty() && message.back() == '\n')
		message.pop_back();
	throw CannotConnect(message);
}

}  // namespace homing::remote
