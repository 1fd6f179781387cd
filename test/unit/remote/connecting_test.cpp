#include "remote/connecting.hpp"

#include "remote/connection.hpp"

#include "fake_server.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>

using namespace homing::remote;

namespace {

using Session = FakeServer::Session;
using Clock = std::chrono::steady_clock;

struct Finish {
	void operator()(PGconn *conn) const { PQfinish(conn); }
};

ConnectionOptions To(int port)
{
	return {{"hostaddr", "127.0.0.1"}, {"port", std::to_string(port)}, {"user", "u"},
	        {"dbname", "d"},           {"sslmode", "disable"},         {"gssencmode", "disable"}};
}

class PollWaiter : public Waiter {
public:
	bool Wait(int socket, bool for_read, bool, std::chrono::milliseconds timeout) override
	{
		pollfd fd{socket, static_cast<short>(for_read ? POLLIN : POLLOUT), 0};
		return poll(&fd, 1, static_cast<int>(timeout.count())) > 0;
	}
};

// Waits between steps that do not, and never longer than a test may last.
void AdvanceToTheEnd(Connecting *connecting)
{
	PollWaiter waiter;
	const auto until = Clock::now() + std::chrono::seconds(10);
	while (!connecting->Advance(waiter)) {
		ASSERT_LT(Clock::now(), until);
		ASSERT_TRUE(waiter.Wait(connecting->Socket(), connecting->ForRead(), !connecting->ForRead(),
		                        std::chrono::seconds(10)));
	}
}

TEST(Connecting, IsDoneWhenTheServerIsReady)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.AwaitClose();
	});
	Connecting connecting(To(server.port()));
	AdvanceToTheEnd(&connecting);
	const std::unique_ptr<PGconn, Finish> made(connecting.Release());
	EXPECT_EQ(PQstatus(made.get()), CONNECTION_OK);
	EXPECT_EQ(PQbackendPID(made.get()), 4711);
}

TEST(Connecting, AdvancesOnlyAsFarAsTheServerHasAnswered)
{
	std::promise<void> asked, allowed;
	FakeServer server([&](Session &session) {
		session.ReadStartup();
		asked.set_value();
		allowed.get_future().wait();
		session.Reply('R', Session::Int32(0));
		session.Reply('K', Session::Int32(1) + Session::Int32(2));
		session.Ready();
		session.AwaitClose();
	});
	Connecting connecting(To(server.port()));
	PollWaiter waiter;
	auto question = asked.get_future();
	while (question.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready)
		EXPECT_FALSE(connecting.Advance(waiter));
	EXPECT_FALSE(connecting.Advance(waiter)) << "no answer yet, and it does not wait for one";
	EXPECT_TRUE(connecting.ForRead());
	allowed.set_value();
	AdvanceToTheEnd(&connecting);
	EXPECT_TRUE(connecting.Advance(waiter)) << "once done, done";
}

TEST(Connecting, TellsWhatTheServerSays)
{
	FakeServer server([](Session &session) {
		session.ReadStartup();
		session.Report('E', {{'S', "FATAL"}, {'C', "53300"}, {'M', "too many clients"}});
	});
	Connecting connecting(To(server.port()));
	try {
		AdvanceToTheEnd(&connecting);
		FAIL() << "connected";
	} catch (const CannotConnect &failure) {
		const std::string message = failure.what();
		EXPECT_NE(message.find("too many clients"), std::string::npos) << message;
		EXPECT_NE(message.back(), '\n');
	}
}

TEST(Connecting, FailsWhereNobodyListens)
{
	int port;
	{
		FakeServer server([](Session &) {});
		port = server.port();
		Connecting visitor(To(port));  // lets the server end
		EXPECT_THROW(AdvanceToTheEnd(&visitor), CannotConnect);
	}
	EXPECT_THROW(
		{
			Connecting connecting(To(port));
			AdvanceToTheEnd(&connecting);
		},
		CannotConnect);
}

TEST(Connecting, ClosesWhatNobodyHasTaken)
{
	std::promise<void> closed;
	FakeServer server([&](Session &session) {
		session.Start();
		session.AwaitClose();
		closed.set_value();
	});
	{
		Connecting connecting(To(server.port()));
		AdvanceToTheEnd(&connecting);
		const Connecting moved(std::move(connecting));  // the other one owns nothing any more
	}
	EXPECT_EQ(closed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

}  // namespace
