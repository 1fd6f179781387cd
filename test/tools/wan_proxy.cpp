// A wide area network on loopback: a TCP proxy in user space that delays, and can be cut.
//
//   wan_proxy [--control SOCKET] LINK...
//   LINK = NAME,DELAY,LISTEN,TARGET     DELAY in ms each way, fractions allowed;
//                                       LISTEN, TARGET = [HOST:]PORT, HOST an IPv4 address
//
// Prints "ready" when all links listen. Commands come as lines on standard input and on the control
// socket (Unix); each is answered by "ok" or "error: why". LINK may be * for all links.
//
//   delay LINK MS          delay each way, for bytes read from now on (none overtakes an older one)
//   drop LINK [DIRECTION]  forward | back | both: bytes vanish into a hole, connections stay open and
//                          new ones hang: what a broken route looks like
//   reset LINK             connections are reset and new ones refused, as a rebooted host does it
//   heal LINK              as at the beginning; what was held back by drop is delivered (TCP would
//                          retransmit it)
//   list                   one line for each link, then ok
//   quit
//
// "forward" is from who connected to the target. The proxy ends with the process that started it, and,
// when it has no control socket, with its standard input.
//
// One thread, epoll. Each chunk read is stamped with its time of delivery; a timerfd rings at the
// earliest one. Bandwidth is not limited: up to kWindow bytes are in flight per direction.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

constexpr std::size_t kChunk = 64 * 1024;
constexpr std::size_t kWindow = 16 * 1024 * 1024;  // bytes on the way, each direction
constexpr int kBacklog = 128;

[[noreturn]] void Fail(const std::string &what)
{
	throw std::runtime_error(what + ": " + std::strerror(errno));
}

class Fd {
public:
	Fd() = default;
	explicit Fd(int fd) : fd_(fd) {}
	Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
	Fd &operator=(Fd &&other) noexcept
	{
		std::swap(fd_, other.fd_);
		return *this;
	}
	~Fd() { Close(); }
	void Close()
	{
		if (fd_ >= 0)
			close(fd_);
		fd_ = -1;
	}
	int get() const { return fd_; }
	explicit operator bool() const { return fd_ >= 0; }

private:
	int fd_ = -1;
};

// Calls back when a descriptor is ready.
class Poller {
public:
	using Handler = std::function<void(std::uint32_t)>;

	Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC))
	{
		if (!epoll_)
			Fail("epoll_create1");
	}

	void Watch(int fd, std::uint32_t events, Handler handler)
	{
		epoll_event event{};
		event.events = events;
		event.data.fd = fd;
		if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
			Fail("epoll_ctl");
		handlers_[fd] = std::make_shared<Handler>(std::move(handler));
	}

	void Change(int fd, std::uint32_t events)
	{
		epoll_event event{};
		event.events = events;
		event.data.fd = fd;
		epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
	}

	void Forget(int fd)
	{
		epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
		handlers_.erase(fd);
	}

	void Turn()
	{
		epoll_event events[64];
		const int count = epoll_wait(epoll_.get(), events, 64, -1);
		if (count < 0 && errno != EINTR)
			Fail("epoll_wait");
		for (int i = 0; i < count; ++i) {
			auto found = handlers_.find(events[i].data.fd);  // an earlier one may have closed it
			if (found == handlers_.end())
				continue;
			const auto handler = found->second;
			(*handler)(events[i].events);
		}
	}

private:
	Fd epoll_;
	std::map<int, std::shared_ptr<Handler>> handlers_;
};

// Rings once for the earliest of many times.
class Alarm {
public:
	Alarm() : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC))
	{
		if (!fd_)
			Fail("timerfd_create");
	}
	int fd() const { return fd_.get(); }

	void At(Clock::time_point when, std::function<void()> action)
	{
		queue_.emplace(when, std::move(action));
		Arm();
	}

	void Ring()
	{
		std::uint64_t count;
		(void) !read(fd_.get(), &count, sizeof count);
		while (!queue_.empty() && queue_.begin()->first <= Clock::now()) {
			auto action = std::move(queue_.begin()->second);
			queue_.erase(queue_.begin());
			action();
		}
		armed_ = Clock::time_point::max();
		Arm();
	}

private:
	void Arm()
	{
		if (queue_.empty() || queue_.begin()->first >= armed_)
			return;
		armed_ = queue_.begin()->first;
		const auto left = std::max(nanoseconds(armed_ - Clock::now()), nanoseconds(1)).count();
		itimerspec spec{};
		spec.it_value.tv_sec = left / 1000000000;
		spec.it_value.tv_nsec = left % 1000000000;
		timerfd_settime(fd_.get(), 0, &spec, nullptr);
	}

	Fd fd_;
	Clock::time_point armed_ = Clock::time_point::max();
	std::multimap<Clock::time_point, std::function<void()>> queue_;
};

sockaddr_in Address(const std::string &text)
{
	const auto colon = text.rfind(':');
	const std::string host = colon == std::string::npos ? "127.0.0.1" : text.substr(0, colon);
	const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
	sockaddr_in address{};
	address.sin_family = AF_INET;
	char *end = nullptr;
	const long number = std::strtol(port.c_str(), &end, 10);
	if (port.empty() || *end != '\0' || number < 1 || number > 65535 ||
	    inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1)
		throw std::runtime_error("\"" + text + "\" is no [HOST:]PORT");
	address.sin_port = htons(static_cast<std::uint16_t>(number));
	return address;
}

nanoseconds Milliseconds(const std::string &text)
{
	char *end = nullptr;
	const double value = std::strtod(text.c_str(), &end);
	if (text.empty() || *end != '\0' || !(value >= 0) || value > 3600000)
		throw std::runtime_error("\"" + text + "\" is no delay in ms");
	return nanoseconds(static_cast<std::int64_t>(value * 1e6));
}

Fd Listen(const sockaddr_in &address)
{
	Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	const int on = 1;
	setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0)
		Fail("could not bind port " + std::to_string(ntohs(address.sin_port)));
	if (listen(fd.get(), kBacklog) != 0)
		Fail("listen");
	return fd;
}

void NoDelay(int fd)
{
	const int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Closes with RST instead of FIN.
void Reset(Fd &fd)
{
	const linger hard{1, 0};
	setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	fd.Close();
}

struct Network {
	Poller poller;
	Alarm alarm;
	bool ending = false;
};

struct Link {
	std::string name;
	nanoseconds delay;
	sockaddr_in listen_address, target_address;
	bool dropped[2] = {false, false};  // forward, back
	bool reset = false;
	Fd listener;
};

// A client and the target's side of it. Two pipes: pipe 0 carries forward, from end 0 to end 1.
class Pair : public std::enable_shared_from_this<Pair> {
public:
	Pair(Network &network, Link &link, Fd client) : network_(network), link_(link)
	{
		ends_[0] = std::move(client);
	}

	// The handshake crosses the link too: connecting costs one round trip.
	void Start()
	{
		auto self = shared_from_this();
		network_.alarm.At(Clock::now() + link_.delay * 2, [self] { self->Connect(); });
	}

	bool closed() const { return closed_; }
	const Link &link() const { return link_; }

	// Delivers what a healed link held back.
	void Resume()
	{
		for (int pipe = 0; pipe < 2; ++pipe)
			Deliver(pipe);
		if (ends_[1])
			UpdateInterest();
	}

	void ResetBoth()
	{
		for (Fd &end : ends_) {
			if (!end)
				continue;
			network_.poller.Forget(end.get());
			Reset(end);
		}
		closed_ = true;
	}

private:
	struct Packet {
		Clock::time_point due;
		std::string bytes;
		std::size_t sent = 0;
		bool end_of_stream = false;
	};

	struct Pipe {
		std::deque<Packet> packets;
		std::size_t bytes = 0;
		bool read_all = false;  // its source sent FIN
		bool finished = false;  // and that was passed on
		Clock::time_point last_due{};
		bool blocked = false;  // the receiver takes no more for now
	};

	void Connect()
	{
		if (closed_)
			return;
		if (link_.reset)
			return ResetBoth();
		// A dropped link swallows the handshake: it is tried again as TCP would.
		if (link_.dropped[0] || link_.dropped[1]) {
			pollfd client{ends_[0].get(), POLLRDHUP, 0};
			if (poll(&client, 1, 0) > 0)
				return ResetBoth();  // it gave up
			auto self = shared_from_this();
			network_.alarm.At(Clock::now() + std::chrono::milliseconds(100),
			                  [self] { self->Connect(); });
			return;
		}
		ends_[1] = Fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
		const auto *address = reinterpret_cast<const sockaddr *>(&link_.target_address);
		if (connect(ends_[1].get(), address, sizeof link_.target_address) != 0 &&
		    errno != EINPROGRESS)
			return ResetBoth();
		NoDelay(ends_[0].get());
		NoDelay(ends_[1].get());
		pipes_[0].blocked = true;  // until the target has answered
		UpdateInterest();
	}

	void OnReady(int end, std::uint32_t events)
	{
		if (closed_)
			return;
		if (events & EPOLLERR)
			return ResetBoth();
		if (events & (EPOLLIN | EPOLLHUP))
			Read(end);
		if (!closed_ && (events & EPOLLOUT)) {
			Pipe &incoming = pipes_[1 - end];
			incoming.blocked = false;
			Deliver(1 - end);
		}
		UpdateInterest();
	}

	void Read(int from)
	{
		Pipe &pipe = pipes_[from];
		char buffer[kChunk];
		while (!pipe.read_all && pipe.bytes < kWindow) {
			const ssize_t got = recv(ends_[from].get(), buffer, sizeof buffer, 0);
			if (got < 0) {
				if (errno == EINTR)
					continue;
				if (errno != EAGAIN)
					ResetBoth();
				return;
			}
			Packet packet;
			packet.due = std::max(Clock::now() + link_.delay, pipe.last_due);
			packet.end_of_stream = got == 0;
			packet.bytes.assign(buffer, static_cast<std::size_t>(got));
			pipe.read_all = got == 0;
			pipe.bytes += static_cast<std::size_t>(got);
			pipe.last_due = packet.due;
			const auto due = packet.due;
			pipe.packets.push_back(std::move(packet));
			auto self = shared_from_this();
			network_.alarm.At(due, [self, from] {
				self->Deliver(from);
				self->UpdateInterest();
			});
			if (got < static_cast<ssize_t>(sizeof buffer))
				break;
		}
	}

	void Deliver(int index)
	{
		Pipe &pipe = pipes_[index];
		if (closed_ || !ends_[1] || pipe.blocked || link_.dropped[index])
			return;
		while (!pipe.packets.empty() && pipe.packets.front().due <= Clock::now()) {
			Packet &packet = pipe.packets.front();
			if (packet.end_of_stream) {
				shutdown(ends_[1 - index].get(), SHUT_WR);
				pipe.finished = true;
			} else if (!Send(ends_[1 - index].get(), packet, pipe)) {
				return;
			}
			pipe.packets.pop_front();
		}
		if (pipes_[0].finished && pipes_[1].finished)
			Close();
	}

	// False when the receiver takes no more now, or is gone.
	bool Send(int to, Packet &packet, Pipe &pipe)
	{
		while (packet.sent < packet.bytes.size()) {
			const ssize_t sent = send(to, packet.bytes.data() + packet.sent,
			                          packet.bytes.size() - packet.sent, MSG_NOSIGNAL);
			if (sent < 0) {
				if (errno == EINTR)
					continue;
				if (errno == EAGAIN || errno == ENOTCONN)
					pipe.blocked = true;
				else
					ResetBoth();
				return false;
			}
			packet.sent += static_cast<std::size_t>(sent);
			pipe.bytes -= static_cast<std::size_t>(sent);
		}
		return true;
	}

	void UpdateInterest()
	{
		if (closed_)
			return;
		for (int end = 0; end < 2; ++end) {
			const bool want_read = !pipes_[end].read_all && pipes_[end].bytes < kWindow;
			const bool want_write = pipes_[1 - end].blocked;
			Watch(end, (want_read ? EPOLLIN : 0u) | (want_write ? EPOLLOUT : 0u));
		}
	}

	// An end of which nothing is wanted is not watched at all: a hangup would be reported without end.
	void Watch(int end, std::uint32_t events)
	{
		if (events == interest_[end])
			return;
		const int fd = ends_[end].get();
		if (events == 0)
			network_.poller.Forget(fd);
		else if (interest_[end] != 0)
			network_.poller.Change(fd, events);
		else
			network_.poller.Watch(fd, events, [self = shared_from_this(), end](std::uint32_t ready) {
				self->OnReady(end, ready);
			});
		interest_[end] = events;
	}

	void Close()
	{
		for (Fd &end : ends_) {
			network_.poller.Forget(end.get());
			end.Close();
		}
		closed_ = true;
	}

	Network &network_;
	Link &link_;
	Fd ends_[2];
	Pipe pipes_[2];
	std::uint32_t interest_[2] = {0, 0};  // what the poller watches
	bool closed_ = false;
};

class Proxy {
public:
	explicit Proxy(Network &network) : network_(network)
	{
		network_.poller.Watch(network_.alarm.fd(), EPOLLIN,
		                      [this](std::uint32_t) { network_.alarm.Ring(); });
	}

	void AddLink(const std::string &text)
	{
		std::vector<std::string> parts;
		std::stringstream stream(text);
		for (std::string part; std::getline(stream, part, ',');)
			parts.push_back(part);
		if (parts.size() != 4)
			throw std::runtime_error("\"" + text + "\" is no NAME,DELAY,LISTEN,TARGET");
		Link &link = links_.emplace_back();
		link.name = parts[0];
		link.delay = Milliseconds(parts[1]);
		link.listen_address = Address(parts[2]);
		link.target_address = Address(parts[3]);
		Open(link);
	}

	// Executes one command and returns its answer.
	std::string Command(const std::string &line)
	{
		try {
			std::stringstream words(line);
			std::string verb, name, argument;
			words >> verb >> name >> argument;
			if (verb == "quit") {
				network_.ending = true;
				return "ok\n";
			}
			if (verb == "list")
				return List() + "ok\n";
			bool known = false;
			for (Link &link : links_) {
				if (name != "*" && name != link.name)
					continue;
				known = true;
				Execute(link, verb, argument);
			}
			return known ? "ok\n" : "error: unknown link \"" + name + "\"\n";
		} catch (const std::exception &error) {
			return std::string("error: ") + error.what() + "\n";
		}
	}

private:
	void Execute(Link &link, const std::string &verb, const std::string &argument)
	{
		if (verb == "delay") {
			link.delay = Milliseconds(argument);
		} else if (verb == "drop") {
			if (!argument.empty() && argument != "forward" && argument != "back" &&
			    argument != "both")
				throw std::runtime_error("unknown direction \"" + argument + "\"");
			link.dropped[0] = link.dropped[0] || argument != "back";
			link.dropped[1] = link.dropped[1] || argument != "forward";
		} else if (verb == "reset") {
			link.reset = true;
			if (link.listener) {
				network_.poller.Forget(link.listener.get());
				link.listener.Close();
			}
			ForEachPair(link, [](Pair &pair) { pair.ResetBoth(); });
		} else if (verb == "heal") {
			link.dropped[0] = link.dropped[1] = link.reset = false;
			if (!link.listener)
				Open(link);
			ForEachPair(link, [](Pair &pair) { pair.Resume(); });
		} else {
			throw std::runtime_error("unknown command \"" + verb + "\"");
		}
	}

	void Open(Link &link)
	{
		link.listener = Listen(link.listen_address);
		network_.poller.Watch(link.listener.get(), EPOLLIN,
		                      [this, &link](std::uint32_t) { Accept(link); });
	}

	void Accept(Link &link)
	{
		for (;;) {
			Fd client(accept4(link.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
			if (!client)
				return;
			pairs_.remove_if([](const auto &pair) { return pair->closed(); });
			pairs_.push_back(std::make_shared<Pair>(network_, link, std::move(client)));
			pairs_.back()->Start();
		}
	}

	template <typename Action>
	void ForEachPair(const Link &link, Action action)
	{
		pairs_.remove_if([](const auto &pair) { return pair->closed(); });
		const auto pairs = pairs_;
		for (const auto &pair : pairs) {
			if (&pair->link() == &link)
				action(*pair);
		}
	}

	std::string List() const
	{
		std::ostringstream out;
		for (const Link &link : links_) {
			const auto count = std::count_if(pairs_.begin(), pairs_.end(), [&](const auto &pair) {
				return &pair->link() == &link && !pair->closed();
			});
			out << link.name << " delay=" << static_cast<double>(link.delay.count()) / 1e6
				<< " drop=" << (link.dropped[0] ? "forward" : "") << (link.dropped[1] ? "back" : "")
				<< " reset=" << link.reset << " connections=" << count << "\n";
		}
		return out.str();
	}

	Network &network_;
	std::list<Link> links_;
	std::list<std::shared_ptr<Pair>> pairs_;
};

// Reads command lines from a descriptor and writes the answers to another one.
class Console {
public:
	Console(Network &network, Proxy &proxy, int in, int out, std::function<void()> at_end)
		: network_(network), proxy_(proxy), in_(in), out_(out), at_end_(std::move(at_end))
	{
		network_.poller.Watch(in_, EPOLLIN, [this](std::uint32_t) { OnReady(); });
	}

private:
	void OnReady()
	{
		char buffer[4096];
		const ssize_t got = read(in_, buffer, sizeof buffer);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) {
			network_.poller.Forget(in_);
			at_end_();
			return;
		}
		pending_.append(buffer, static_cast<std::size_t>(got));
		for (auto end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
			const std::string answer = proxy_.Command(pending_.substr(0, end));
			pending_.erase(0, end + 1);
			(void) !write(out_, answer.data(), answer.size());
		}
	}

	Network &network_;
	Proxy &proxy_;
	int in_, out_;
	std::function<void()> at_end_;
	std::string pending_;
};

class ControlSocket {
public:
	ControlSocket(Network &network, Proxy &proxy, std::string path)
		: network_(network), proxy_(proxy), path_(std::move(path))
	{
		sockaddr_un address{};
		address.sun_family = AF_UNIX;
		if (path_.size() >= sizeof address.sun_path)
			throw std::runtime_error("the path of the control socket is too long");
		std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
		unlink(path_.c_str());
		listener_ = Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
		if (bind(listener_.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 ||
		    listen(listener_.get(), kBacklog) != 0)
			Fail("could not listen on " + path_);
		network_.poller.Watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { Accept(); });
	}
	~ControlSocket() { unlink(path_.c_str()); }

private:
	struct Session {
		Fd fd;
		std::unique_ptr<Console> console;
	};

	void Accept()
	{
		Fd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
		if (!fd)
			return;
		sessions_.remove_if([](const Session &session) { return !session.fd; });
		Session &session = sessions_.emplace_back();
		session.fd = std::move(fd);
		const int raw = session.fd.get();
		session.console = std::make_unique<Console>(network_, proxy_, raw, raw,
		                                            [&session] { session.fd.Close(); });
	}

	Network &network_;
	Proxy &proxy_;
	std::string path_;
	Fd listener_;
	std::list<Session> sessions_;
};

int Run(int argc, char **argv)
{
	Network network;
	Proxy proxy(network);
	std::unique_ptr<ControlSocket> control;
	int first = 1;
	if (argc > 2 && std::strcmp(argv[1], "--control") == 0) {
		control = std::make_unique<ControlSocket>(network, proxy, argv[2]);
		first = 3;
	}
	if (first >= argc)
		throw std::runtime_error("usage: wan_proxy [--control SOCKET] NAME,DELAY,LISTEN,TARGET...");
	for (int i = first; i < argc; ++i)
		proxy.AddLink(argv[i]);

	// Without a control socket standard input is the only way in, and its end is ours.
	std::unique_ptr<Console> console;
	if (!control)
		console = std::make_unique<Console>(network, proxy, STDIN_FILENO, STDOUT_FILENO,
		                                    [&] { network.ending = true; });
	std::printf("ready\n");
	std::fflush(stdout);
	while (!network.ending)
		network.poller.Turn();
	return 0;
}

}  // namespace

int main(int argc, char **argv)
{
	std::signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_TIMERSLACK, 1);  // ns; the default of 50 µs would show in every delay
	try {
		return Run(argc, argv);
	} catch (const std::exception &error) {
		std::fprintf(stderr, "wan_proxy: %s\n", error.what());
		return 1;
	}
}
