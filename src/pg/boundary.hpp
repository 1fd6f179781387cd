// The two doors between C++ and the server (STYLE: the boundary).
//
//   PgEntry  wraps the body of every function the server calls: no C++ exception leaves it.
//   PgCall   wraps server calls made while a C++ object is alive: no longjmp crosses that object.
//
// An error keeps its identity on the way: a server error caught by PgCall travels as ServerError and is
// re-thrown to the server unchanged; a remote::Error is raised with its own SQLSTATE, detail, hint.
#pragma once

#include <exception>
#include <type_traits>

#include "remote/error.hpp"

#include "pg/server.hpp"

namespace homing::pg {

// A server error on its way through C++ frames. The data lives in the memory context that was current
// when it was caught.
class ServerError : public std::exception {
public:
	explicit ServerError(ErrorData *data) : data(data) {}
	const char *what() const noexcept override { return data->message; }
	ErrorData *data;
};

// Calls back with the server's error handling in place. Returns the error, or nullptr. No frame between
// the handler and the caught ERROR holds a C++ object.
ErrorData *CallGuarded(void (*call)(void *), void *argument);

// Runs server calls; on ERROR, throws ServerError. The lambda holds plain data only: a longjmp out of
// it runs no destructors.
template <typename Body>
auto PgCall(const Body &body) -> decltype(body())
{
	static_assert(std::is_trivially_destructible_v<Body>, "a PgCall captures by reference");
	using Value = decltype(body());
	if constexpr (std::is_void_v<Value>) {
		ErrorData *error =
			CallGuarded([](void *argument) { (*static_cast<const Body *>(argument))(); },
		                const_cast<Body *>(&body));
		if (error != nullptr)
			throw ServerError(error);
	} else {
		static_assert(std::is_trivially_copyable_v<Value>, "a PgCall returns plain data");
		struct Frame {
			const Body *body;
			Value value;
		} frame{&body, {}};
		ErrorData *error = CallGuarded(
			[](void *argument) {
				auto *f = static_cast<Frame *>(argument);
				f->value = (*f->body)();
			},
			&frame);
		if (error != nullptr)
			throw ServerError(error);
		return frame.value;
	}
}

// The server's numbers for what the protocol spells out. An unknown SQLSTATE is HV000, an unknown severity
// NOTICE.
int SqlStateCode(const char *sqlstate);
int NoticeLevel(const char *severity);

// An exception flattened to plain data, so that it can be raised after the catch block is left.
struct PendingError {
	ErrorData *server = nullptr;  // set: re-throw this
	int sqlerrcode = 0;
	const char *message = nullptr, *detail = nullptr, *hint = nullptr, *context = nullptr;
	const char *schema = nullptr, *table = nullptr, *column = nullptr, *datatype = nullptr,
			   *constraint = nullptr;
};

// Call inside a catch block only. Allocates with malloc-free means: palloc under PgCall.
PendingError Flatten() noexcept;
[[noreturn]] void Raise(const PendingError &error);

// Runs the body; turns whatever it throws into a server error.
template <typename Body>
auto PgEntry(const Body &body) -> decltype(body())
{
	PendingError pending;
	try {
		return body();
	} catch (...) {
		pending = Flatten();
	}
	Raise(pending);
}

}  // namespace homing::pg
