#include "remote/connection.hpp"

#include "fake_server.hpp"

#include <gtest/gtest.h>

using namespace homing::remote;
using std::chrono::milliseconds;

namespace {

using Session = FakeServer::Session;

struct Cancelled {};

// Waits as a backend does, but on poll, and never longer than a test may last.
class PollWaiter : public Waiter {
public:
	bool cancel = false;

	bool Wait(int socket, bool for_read, bool for_write, milliseconds timeout) override
	{
		if (cancel)
			throw Cancelled{};
		pollfd fd{socket, static_cast<short>((for_read ? POLLIN : 0) | (for_write ? POLLOUT : 0)),
		          0};
		const int limit = timeout.count() < 0 ? 10000 : static_cast<int>(timeout.count());
		const bool ready = poll(&fd, 1, limit) > 0;
		if (!ready && timeout.count() < 0)
			throw std::runtime_error("test waits for ever");
		return ready;
	}
};

ConnectionOptions To(const FakeServer &server)
{
	return {{"hostaddr", "127.0.0.1"},
	        {"port", std::to_string(server.port())},
	        {"user", "u"},
	        {"dbname", "d"},
	        {"sslmode", "disable"},
	        {"gssencmode", "disable"}};
}

class ConnectionTest : public testing::Test {
protected:
	PollWaiter waiter;

	Connection Connect(const FakeServer &server)
	{
		return Connection(To(server), waiter, milliseconds(5000));
	}
};

// Sends a message in each field that an error has.
const FakeServer::Fields kFullError = {{'S', "FEHLER"},     {'V', "ERROR"},      {'C', "23505"},
                                       {'M', "duplicate"},  {'D', "the detail"}, {'H', "the hint"},
                                       {'W', "context"},    {'s', "the_schema"}, {'t', "the_table"},
                                       {'c', "the_column"}, {'d', "the_type"},   {'n', "the_key"}};

TEST_F(ConnectionTest, ReturnsRows)
{
	FakeServer server([](Session &session) {
		session.Start();
		EXPECT_EQ(session.ReadUpTo('S'), "PBDES");
		session.Rows({"one", "two"}, "SELECT 2");
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	const Result result = connection.Execute("SELECT $1", {{std::nullopt, 0}});
	ASSERT_EQ(PQntuples(result.get()), 2);
	EXPECT_STREQ(PQgetvalue(result.get(), 1, 0), "two");
	EXPECT_EQ(connection.BackendPid(), 4711);
	EXPECT_FALSE(connection.Broken());
}

TEST_F(ConnectionTest, AGroupIsOneFlush)
{
	FakeServer server([](Session &session) {
		session.Start();
		// Nothing is answered before the Sync: the client must not wait in between.
		EXPECT_EQ(session.ReadUpTo('S'), "PBDEPBDES");
		session.Rows({"a"}, "SELECT 1");
		session.ParsedWithoutRows();
		session.Done("UPDATE 3");
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	connection.Send("SELECT 1");
	connection.Send("UPDATE t SET a = 1");
	connection.Sync();
	EXPECT_TRUE(connection.Broken()) << "in the middle of a conversation";
	EXPECT_EQ(PQresultStatus(connection.Receive().get()), PGRES_TUPLES_OK);
	EXPECT_EQ(connection.Receive(), nullptr);
	EXPECT_STREQ(PQcmdTuples(connection.Receive().get()), "3");
	EXPECT_EQ(connection.Receive(), nullptr);
	EXPECT_EQ(PQresultStatus(connection.Receive().get()), PGRES_PIPELINE_SYNC);
	EXPECT_FALSE(connection.Broken());
}

TEST_F(ConnectionTest, AnErrorKeepsItsIdentity)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('S');
		session.Report('E', kFullError);
		session.Ready();
		session.ReadUpTo('S');
		session.Rows({"after"}, "SELECT 1");
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	try {
		connection.Execute("INSERT INTO t VALUES (1)");
		FAIL() << "no error";
	} catch (const Error &error) {
		EXPECT_EQ(error.sqlstate, "23505");
		EXPECT_STREQ(error.what(), "duplicate");
		EXPECT_EQ(error.severity, "ERROR") << "not localised";
		EXPECT_EQ(error.detail, "the detail");
		EXPECT_EQ(error.hint, "the hint");
		EXPECT_EQ(error.context, "context");
		EXPECT_EQ(error.schema, "the_schema");
		EXPECT_EQ(error.table, "the_table");
		EXPECT_EQ(error.column, "the_column");
		EXPECT_EQ(error.datatype, "the_type");
		EXPECT_EQ(error.constraint, "the_key");
	}
	EXPECT_FALSE(connection.Broken()) << "an error of a statement leaves the connection whole";
	EXPECT_STREQ(PQgetvalue(connection.Execute("SELECT 1").get(), 0, 0), "after");
}

TEST_F(ConnectionTest, NoticesAreKeptInOrder)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('S');
		session.Reply('1');
		session.Reply('2');
		session.Reply('n');
		session.Report('N', {{'S', "NOTICE"}, {'V', "NOTICE"}, {'C', "00000"}, {'M', "first"}});
		session.Report(
			'N', {{'S', "WARNING"}, {'V', "WARNING"}, {'C', "01000"}, {'M', "second"}, {'H', "do"}});
		session.Done("DO");
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	connection.Execute("DO $$$$");
	const std::vector<Error> notices = connection.TakeNotices();
	ASSERT_EQ(notices.size(), 2u);
	EXPECT_STREQ(notices[0].what(), "first");
	EXPECT_EQ(notices[1].severity, "WARNING");
	EXPECT_EQ(notices[1].hint, "do");
	EXPECT_TRUE(connection.TakeNotices().empty());
}

TEST_F(ConnectionTest, NobodyListensIsCannotConnect)
{
	int port = 0;
	{
		FakeServer server([](Session &) {});
		port = server.port();
		const int fd = socket(AF_INET, SOCK_STREAM, 0);
		sockaddr_in address{};
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		address.sin_port = htons(static_cast<std::uint16_t>(port));
		EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address), 0);
		close(fd);
	}
	try {
		Connection connection({{"hostaddr", "127.0.0.1"}, {"port", std::to_string(port)}}, waiter,
		                      milliseconds(5000));
		FAIL() << "connected to nobody";
	} catch (const CannotConnect &error) {
		EXPECT_EQ(error.sqlstate, "08001");
	}
}

TEST_F(ConnectionTest, ASilentServerTimesOut)
{
	FakeServer server([](Session &session) {
		session.ReadStartup();
		session.AwaitClose();
	});
	const auto begin = std::chrono::steady_clock::now();
	EXPECT_THROW(Connection(To(server), waiter, milliseconds(150)), CannotConnect);
	const auto took = std::chrono::steady_clock::now() - begin;
	EXPECT_GE(took, milliseconds(140));
	EXPECT_LT(took, milliseconds(5000));
}

TEST_F(ConnectionTest, ARefusedLoginIsCannotConnect)
{
	FakeServer server([](Session &session) {
		session.ReadStartup();
		session.Report('E', {{'S', "FATAL"},
		                     {'V', "FATAL"},
		                     {'C', "28P01"},
		                     {'M', "password authentication failed"}});
	});
	try {
		Connect(server);
		FAIL() << "let in";
	} catch (const CannotConnect &error) {
		EXPECT_NE(std::string(error.what()).find("password authentication failed"),
		          std::string::npos);
	}
}

TEST_F(ConnectionTest, ALostConnectionIsReportedAndStaysBroken)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('S');
	});
	Connection connection = Connect(server);
	EXPECT_THROW(connection.Execute("UPDATE t SET a = 1"), ConnectionLost);
	EXPECT_TRUE(connection.Broken());
}

TEST_F(ConnectionTest, ACancelledWaitLeavesItBroken)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('S');
		session.AwaitClose();
	});
	{
		Connection connection = Connect(server);
		waiter.cancel = true;
		EXPECT_THROW(connection.Execute("SELECT pg_sleep(1000)"), Cancelled);
		EXPECT_TRUE(connection.Broken()) << "its answer is still to come";
	}  // closing must not wait for the server
}

TEST_F(ConnectionTest, ConnectingCanBeCancelled)
{
	FakeServer server([](Session &session) {
		session.ReadStartup();
		session.AwaitClose();
	});
	waiter.cancel = true;
	EXPECT_THROW(Connection(To(server), waiter, milliseconds(5000)), Cancelled);
}

TEST_F(ConnectionTest, CopyOutAndIn)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('Q');
		session.Reply('H', std::string(1, '\0') + Session::Int16(1) + Session::Int16(0));
		session.Reply('d', "1\n");
		session.Reply('d', "2\n");
		session.Reply('c');
		session.Done("COPY 2");
		session.Ready();
		session.ReadUpTo('Q');
		session.Reply('G', std::string(1, '\0') + Session::Int16(1) + Session::Int16(0));
		EXPECT_EQ(session.ReadUpTo('c'), "ddc");
		session.Report('E', {{'S', "ERROR"},
		                     {'V', "ERROR"},
		                     {'C', "22P02"},
		                     {'M', "bad line"},
		                     {'W', "COPY t, line 2"}});
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	connection.BeginCopy("COPY t TO STDOUT");
	EXPECT_EQ(connection.ReceiveCopyData(), "1\n");
	EXPECT_EQ(connection.ReceiveCopyData(), "2\n");
	EXPECT_EQ(connection.ReceiveCopyData(), std::nullopt);
	EXPECT_FALSE(connection.Broken());

	connection.BeginCopy("COPY t FROM STDIN");
	connection.SendCopyData("1\n", 2);
	connection.SendCopyData("x\n", 2);
	try {
		connection.EndCopyIn();
		FAIL() << "no error";
	} catch (const Error &error) {
		EXPECT_EQ(error.sqlstate, "22P02");
		EXPECT_EQ(error.context, "COPY t, line 2");
	}
	EXPECT_FALSE(connection.Broken());
}

TEST_F(ConnectionTest, ACopyThatIsRefused)
{
	FakeServer server([](Session &session) {
		session.Start();
		session.ReadUpTo('Q');
		session.Report('E', kFullError);
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	EXPECT_THROW(connection.BeginCopy("COPY nothing TO STDOUT"), Error);
	EXPECT_FALSE(connection.Broken());
}

TEST_F(ConnectionTest, SimpleProtocolRefusesCopy)
{
	FakeServer server([](Session &session) {
		session.Start();
		EXPECT_EQ(session.ReadUpTo('Q'), "Q");
		session.Reply('G', std::string(1, '\0') + Session::Int16(0));
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	try {
		connection.ExecuteSimple("COPY t FROM STDIN");
		FAIL() << "no error";
	} catch (const Error &error) {
		EXPECT_EQ(error.sqlstate, "0A000");
	}
	EXPECT_TRUE(connection.Broken());
}

// More than the socket buffers hold, while the server answers at length before it reads on: neither side
// may wait for the other.
TEST_F(ConnectionTest, ALargeGroupDoesNotDeadlock)
{
	constexpr int kStatements = 400;
	FakeServer server([](Session &session) {
		session.Start();
		const std::string large(20000, 'r');
		for (int i = 0; i < kStatements; ++i) {
			session.ReadUpTo('E');
			session.Rows({large}, "SELECT 1");
		}
		session.ReadUpTo('S');
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	const std::string large(20000, 's');
	for (int i = 0; i < kStatements; ++i)
		connection.Send("SELECT $1", {{large, 25}});
	connection.Sync();
	int rows = 0;
	for (;;) {
		const Result result = connection.Receive();
		if (!result)
			continue;
		if (PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC)
			break;
		rows += PQntuples(result.get());
	}
	EXPECT_EQ(rows, kStatements);
}

TEST_F(ConnectionTest, DrainReadsUpToTheLastSync)
{
	FakeServer server([](Session &session) {
		session.Start();
		for (int i = 0; i < 2; ++i) {
			session.ReadUpTo('S');
			session.Rows({"a", "b"}, "SELECT 2");
			session.Ready();
		}
		session.ReadUpTo('S');
		session.Rows({"mine"}, "SELECT 1");
		session.Ready();
		session.AwaitClose();
	});
	Connection connection = Connect(server);
	for (int i = 0; i < 2; ++i) {
		connection.Send("SELECT 1");
		connection.Sync();
	}
	connection.Drain();
	EXPECT_FALSE(connection.Broken());
	EXPECT_STREQ(PQgetvalue(connection.Execute("SELECT 2").get(), 0, 0), "mine");
}

}  // namespace
