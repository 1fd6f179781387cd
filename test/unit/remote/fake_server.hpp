// A PostgreSQL server that says what a test tells it to: one connection, one script, one thread.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace homing::remote {

class FakeServer {
public:
	using Fields = std::vector<std::pair<char, std::string>>;

	class Session {
	public:
		explicit Session(int fd) : fd_(fd) {}

		// The startup packet; answers that all is well.
		void Start()
		{
			Read(Length());
			Reply('R', Int32(0));
			Reply('K', Int32(4711) + Int32(99));
			Ready();
		}
		void ReadStartup() { Read(Length()); }

		// Reads messages up to one of this type; returns the types read, such as "PBDES".
		std::string ReadUpTo(char type)
		{
			std::string types;
			do {
				types += Read(1)[0];
				last_body_ = Read(Length());
			} while (types.back() != type);
			return types;
		}
		const std::string &last_body() const { return last_body_; }

		void Reply(char type, const std::string &body = "")
		{
			const std::string message =
				type + Int32(static_cast<std::uint32_t>(body.size() + 4)) + body;
			(void) !send(fd_, message.data(), message.size(), MSG_NOSIGNAL);
		}
		void Ready(char status = 'I') { Reply('Z', std::string(1, status)); }
		// An error or notice.
		void Report(char type, const Fields &fields)
		{
			std::string body;
			for (const auto &[code, text] : fields)
				body += code + text + '\0';
			Reply(type, body + '\0');
		}
		// The answers to Parse, Bind and Describe of a statement without rows.
		void ParsedWithoutRows()
		{
			Reply('1');
			Reply('2');
			Reply('n');
		}
		// The same for one column of text, and the rows.
		void Rows(const std::vector<std::string> &values, const std::string &tag)
		{
			Reply('1');
			Reply('2');
			Reply('T', Int16(1) + "value" + '\0' + Int32(0) + Int16(0) + Int32(25) + Int16(-1) +
			               Int32(static_cast<std::uint32_t>(-1)) + Int16(0));
			for (const std::string &value : values)
				Reply('D', Int16(1) + Int32(static_cast<std::uint32_t>(value.size())) + value);
			Done(tag);
		}
		void Done(const std::string &tag) { Reply('C', tag + '\0'); }
		// Returns when the client is gone.
		void AwaitClose()
		{
			char byte;
			while (recv(fd_, &byte, 1, 0) > 0)
				continue;
		}

		static std::string Int32(std::uint32_t value)
		{
			value = htonl(value);
			return std::string(reinterpret_cast<const char *>(&value), 4);
		}
		static std::string Int16(int value)
		{
			const std::uint16_t bits = htons(static_cast<std::uint16_t>(value));
			return std::string(reinterpret_cast<const char *>(&bits), 2);
		}

	private:
		std::size_t Length()
		{
			std::uint32_t length;
			std::memcpy(&length, Read(4).data(), 4);
			return ntohl(length) - 4;
		}
		std::string Read(std::size_t size)
		{
			std::string bytes(size, '\0');
			std::size_t done = 0;
			while (done < size) {
				const ssize_t got = recv(fd_, &bytes[done], size - done, 0);
				if (got <= 0)
					throw std::runtime_error("the client is gone");
				done += static_cast<std::size_t>(got);
			}
			return bytes;
		}

		int fd_;
		std::string last_body_;
	};

	using Script = std::function<void(Session &)>;

	explicit FakeServer(Script script) : listener_(socket(AF_INET, SOCK_STREAM, 0))
	{
		sockaddr_in address{};
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		socklen_t size = sizeof address;
		if (bind(listener_, reinterpret_cast<sockaddr *>(&address), size) != 0 ||
		    listen(listener_, 1) != 0 ||
		    getsockname(listener_, reinterpret_cast<sockaddr *>(&address), &size) != 0)
			throw std::runtime_error("fake server cannot listen");
		port_ = ntohs(address.sin_port);
		thread_ = std::thread([this, script = std::move(script)] { Serve(script); });
	}
	// Waits for the end of the script.
	~FakeServer()
	{
		thread_.join();
		close(listener_);
	}
	int port() const { return port_; }

private:
	void Serve(const Script &script) const
	{
		pollfd incoming{listener_, POLLIN, 0};
		if (poll(&incoming, 1, 10000) != 1)
			return;
		const int fd = accept(listener_, nullptr, nullptr);
		Session session(fd);
		try {
			script(session);
		} catch (const std::runtime_error &) {
			// The client closed in the middle: the test looks at what the client saw.
		}
		close(fd);
	}

	int listener_;
	int port_ = 0;
	std::thread thread_;
};

}  // namespace homing::remote
