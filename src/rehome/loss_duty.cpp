#include "core/lease.hpp"
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
constexpr milliseconds kTimeout{90000};
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

void LossDuty::Round(bool wanted, int before, remote::Waiter &waiter, Oid administrator)
{
	if (declaring_ != nullptr) {
		Hear();
		return;
	}
	if (!wanted) {
		due_.reset();
		return;
	}
	const milliseconds wait(core::DeclareAfter(before).us / 1000);
	if (!due_)
		due_ = Clock::now() + wait;
	if (Clock::now() < *due_)
		return;
	due_ = Clock::now() + kPause + wait;
	Begin(waiter, administrator);
	Hear();
}

void LossDuty::Begin(remote::Waiter &waiter, Oid administrator)
{
	pg::RegionConnection connection = pg::Connect(OptionsForHere(administrator), waiter);
	connection->Execute(
		"SELECT set_config('search_path', 'pg_catalog, pg_temp', false), set_config('jit', 'off', false)");
	connection->Send("SELECT homing._declare_by_itself($1::bigint)::text",
	                 {{std::to_string(static_cast<std::int64_t>(pg::settings.auto_declare_lost_s) *
	                                  1000)}});
	connection->Sync();
	declaring_ = std::move(connection);
	declare_until_ = Clock::now() + kTimeout;
}

// Whether what was asked for is done.
void LossDuty::Hear()
{
	std::string outcome;
	try {
		declaring_->SetPause(Clock::now() + kGlance);
		while (declaring_->AwaitsSync()) {
			const remote::Result result = declaring_->Receive();
			if (!result)
				continue;
			if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR)
				throw remote::Error::FromResult(result.get());
			if (PQresultStatus(result.get()) == PGRES_TUPLES_OK && PQntuples(result.get()) == 1 &&
			    PQgetisnull(result.get(), 0, 0) == 0)
				outcome = PQgetvalue(result.get(), 0, 0);
		}
	} catch (const remote::NotYet &) {
		if (Clock::now() < declare_until_)
			return;
		declaring_.reset();
		throw Failure("no answer in time");
	} catch (const remote::Error &) {
		declaring_.reset();
		throw;
	}
	declaring_.reset();
	due_.reset();
	if (!outcome.empty())
		pg::PgCall([&] {
			ereport(LOG, (errmsg("declared a loss"), errdetail_internal("%s", outcome.c_str())));
		});
}

}  // namespace homing::rehome
