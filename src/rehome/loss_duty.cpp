#include "rehome/loss_duty.hpp"
#include "rehome/own_transaction.hpp"
#include "rehome/worker_state.hpp"

#include <string>
#include <utility>

#include "pg/settings.hpp"

extern "C" {
#include "foreign/foreign.h"
}

namespace homing::rehome {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPause{5000};
constexpr milliseconds kGlance{20};

remote::ConnectionOptions OptionsForHere(Oid administrator)
{
	remote::ConnectionOptions options;
	InTransaction([&] {
		MemoryContext context = CurrentMemoryContext;
		const Oid server = pg::PgCall([&] {
			const char *name =
				Call("SELECT m.name FROM homing.local_region l JOIN homing.member m USING (region_id)",
			         {}, context);
			return name != nullptr ? get_foreign_server_oid(name, true) : InvalidOid;
		});
		if (!OidIsValid(server) || !OidIsValid(administrator))
			throw Failure("there is no server or no role to connect to this region");
		options = pg::OptionsFor(server, administrator);
	});
	return options;
}

}  // namespace

void LossDuty::Round(bool wanted, milliseconds wait, std::optional<milliseconds> patience,
                     remote::Waiter &waiter, Oid administrator)
{
	if (busy_ != nullptr) {
		Hear();
		return;
	}
	if (!wanted) {
		due_.reset();
		return;
	}
	if (!due_)
		due_ = Clock::now() + wait;
	if (Clock::now() < *due_)
		return;
	due_ = Clock::now() + kPause + wait;
	Begin(waiter, administrator);
	give_up_.reset();
	if (patience)
		give_up_ = Clock::now() + *patience;
	Hear();
}

void LossDuty::Begin(remote::Waiter &waiter, Oid administrator)
{
	pg::RegionConnection connection = pg::Connect(OptionsForHere(administrator), waiter);
	connection->Execute(
		"SELECT set_config(s, v, false) FROM (VALUES ('search_path', 'pg_catalog, pg_temp'), ('jit', 'off'), "
		"('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), "
		"('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'), "
		"('synchronous_commit', 'local')) AS x(s, v)");
	connection->Send("SELECT homing._see_to_losses($1::bigint)",
	                 {{std::to_string(static_cast<std::int64_t>(pg::settings.auto_declare_lost_s) *
	                                  1000)}});
	connection->Sync();
	busy_ = std::move(connection);
}

int LossDuty::Leave()
{
	const int pid = busy_->BackendPid();
	busy_.reset();
	due_.reset();
	return pid;
}

// Whether what was asked for is done.
void LossDuty::Hear()
{
	std::string outcome;
	try {
		busy_->SetPause(Clock::now() + kGlance);
		while (busy_->AwaitsSync()) {
			const remote::Result result = busy_->Receive();
			if (!result)
				continue;
			if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR)
				throw remote::Error::FromResult(result.get());
			if (PQresultStatus(result.get()) == PGRES_TUPLES_OK && PQntuples(result.get()) == 1 &&
			    PQgetisnull(result.get(), 0, 0) == 0)
				outcome = PQgetvalue(result.get(), 0, 0);
		}
	} catch (const remote::NotYet &) {
		if (!give_up_ || Clock::now() < *give_up_)
			return;
		busy_.reset();
		throw Failure("no answer in time");
	} catch (const remote::Error &) {
		busy_.reset();
		throw;
	}
	busy_.reset();
	due_.reset();
	if (!outcome.empty())
		pg::PgCall([&] {
			ereport(LOG, (errmsg("saw to the loss of regions"),
			              errdetail_internal("%s", outcome.c_str())));
		});
}

}  // namespace homing::rehome
