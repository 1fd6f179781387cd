#include "pg/settings.hpp"

#include "core/lease.hpp"

#include "pg/server.hpp"

extern "C" {
#include "access/xlog.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"
}

namespace homing::pg {

Settings settings;

namespace {

const config_enum_entry kReadConsistencies[] = {
	{"eventual", kReadEventual, false},
	{"session", kReadSession, false},
	{"home", kReadHome, false},
	{nullptr, 0, false},
};

const config_enum_entry kFencings[] = {
	{"auto", static_cast<int>(core::Fencing::kAuto), false},
	{"quorum", static_cast<int>(core::Fencing::kQuorum), false},
	{"operator", static_cast<int>(core::Fencing::kOperator), false},
	{nullptr, 0, false},
};

bool last_commit;  // not used: see ShowLastCommit

const char *ShowLastCommit()
{
	static char text[24];
	snprintf(text, sizeof(text), UINT64_FORMAT, XactLastCommitEnd);
	return text;
}

}  // namespace

void DefineSettings()
{
	DefineCustomIntVariable(
		"homing.auto_declare_lost",
		"Time after which the others declare a region lost that no majority hears of.", "0: never.",
		&settings.auto_declare_lost_s, 0, 0, 86400, PGC_SIGHUP, GUC_UNIT_S, nullptr, nullptr,
		nullptr);
	DefineCustomIntVariable("homing.clock_drift",
	                        "How far the speed of a region's clock may be off, in millionths.",
	                        "A region that voted for a lease keeps its promise longer by this.",
	                        &settings.clock_drift_ppm, 1000, 0, 100000, PGC_SIGHUP, 0, nullptr,
	                        nullptr, nullptr);
	DefineCustomIntVariable("homing.connect_timeout", "Time allowed to connect to another region.",
	                        nullptr, &settings.connect_timeout_ms, 5000, 100, 600000, PGC_USERSET,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
		"homing.connection_idle_timeout",
		"Time after which a connection to another region that nothing uses is closed.",
		"0 keeps it as long as the session.", &settings.connection_idle_timeout_ms, 600000, 0,
		86400000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomStringVariable("homing.debug_point",
	                           "Step of a protocol at which this process kills itself, for tests.",
	                           "Behind \"stop:\" it stops there until it gets SIGCONT.",
	                           &settings.debug_point, "", PGC_SUSET, GUC_NOT_IN_SAMPLE, nullptr,
	                           nullptr, nullptr);
	DefineCustomEnumVariable(
		"homing.fencing", "What keeps a region from serving that was declared lost.",
		"quorum: it serves only while it holds a lease from a majority of the regions. operator: the word "
		"of who declares it lost. auto: quorum from three regions on.",
		&settings.fencing, static_cast<int>(core::Fencing::kAuto), kFencings, PGC_SIGHUP, 0,
		nullptr, nullptr, nullptr);
	DefineCustomStringVariable(
		"homing.forward_settings",
		"Further settings whose value travels with a forwarded statement.",
		"Comma-separated names, such as an application's own settings used in policies.",
		&settings.forward_settings, "", PGC_USERSET, GUC_LIST_INPUT, nullptr, nullptr, nullptr);
	DefineCustomStringVariable(
		"homing.forwarded_from", "Region for which this session executes forwarded statements.",
		"Set by the forwarding region. Such a session serves or refuses, and never "
		"forwards again.",
		&settings.forwarded_from, "", PGC_USERSET,
		GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
		"homing.handover_timeout",
		"Time that a write waits for a home that is being handed over, and a hand-over for the "
		"writers of a home.",
		nullptr, &settings.handover_timeout_ms, 10000, 100, 3600000, PGC_USERSET, GUC_UNIT_MS,
		nullptr, nullptr, nullptr);
	DefineCustomBoolVariable(kLastCommitSetting, "End of this session's last commit in WAL.",
	                         "Reported to the region that forwards to this session.", &last_commit,
	                         false, PGC_INTERNAL,
	                         GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_DISALLOW_IN_FILE, nullptr,
	                         nullptr, ShowLastCommit);
	DefineCustomIntVariable("homing.lease_duration",
	                        "Time for which a region may serve after a majority has answered it.",
	                        "It is also how long a loss takes to be declared.",
	                        &settings.lease_duration_ms, 10000, 500, 600000, PGC_SIGHUP,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("homing.local_ddl",
	                         "Allows DDL on a homed table to run in this region only.",
	                         "Every other region must run the same DDL, or replication to it stops.",
	                         &settings.local_ddl, false, PGC_USERSET, 0, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
		"homing.max_connections_per_region",
		"Number of connections that the sessions of this database may have to one region, all together.",
		"Who finds none free waits for up to homing.connect_timeout. 0: no limit.",
		&settings.max_connections_per_region, 0, 0, MAX_BACKENDS, PGC_SIGHUP, 0, nullptr, nullptr,
		nullptr);
	DefineCustomIntVariable("homing.max_retained_wal",
	                        "WAL that is kept for a region that is not connected.",
	                        "Beyond it the region is given up: it needs a new copy. 0: no limit.",
	                        &settings.max_retained_wal_mb, 32768, 0, 2147483647, PGC_SIGHUP,
	                        GUC_UNIT_MB, nullptr, nullptr, nullptr);
	DefineCustomStringVariable("homing.orphans_beyond",
	                           "Position beyond which decoding shows what was written here.",
	                           nullptr, &settings.orphans_beyond, "", PGC_SUSET,
	                           GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL |
	                               GUC_DISALLOW_IN_FILE,
	                           nullptr, nullptr, nullptr);
	DefineCustomIntVariable("homing.outcome_timeout",
	                        "Time allowed to learn how a transaction ended whose connection was lost.",
	                        "After it, the outcome is reported as unknown.",
	                        &settings.outcome_timeout_ms, 10000, 100, 3600000, PGC_USERSET,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("homing.own_ddl", "Marks DDL that the extension's own functions run.",
	                         nullptr, &settings.own_ddl, false, PGC_SUSET,
	                         GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL |
	                             GUC_DISALLOW_IN_FILE,
	                         nullptr, nullptr, nullptr);
	DefineCustomIntVariable("homing.probe_interval",
	                        "Time between two exchanges of the cluster map with each region.",
	                        nullptr, &settings.probe_interval_ms, 1000, 100, 600000, PGC_SIGHUP,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomEnumVariable(
		"homing.read_consistency", "How up to date a read of homed tables is.",
		"eventual: what is in this region. session: including all that the session has "
		"committed anywhere. home: what is at the home of the rows.",
		&settings.read_consistency, kReadSession, kReadConsistencies, PGC_USERSET, 0, nullptr,
		nullptr, nullptr);
	DefineCustomIntVariable("homing.read_timeout",
	                        "Time a read waits for what the session has committed at other regions.",
	                        nullptr, &settings.read_timeout_ms, 10000, 0, 3600000, PGC_USERSET,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomBoolVariable(
		"homing.wait_second_phase",
		"Makes COMMIT wait until every region that took part has committed its part.",
		"Without it, COMMIT returns when the decision is durable in this region.",
		&settings.wait_second_phase, false, PGC_USERSET, 0, nullptr, nullptr, nullptr);
	DefineCustomStringVariable("homing.relay_beyond",
	                           "Position beyond which a relay session sends changes.", nullptr,
	                           &settings.relay_beyond, "", PGC_SUSET,
	                           GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL |
	                               GUC_DISALLOW_IN_FILE,
	                           nullptr, nullptr, nullptr);
	DefineCustomIntVariable("homing.relay_origin",
	                        "Replication origin whose changes a relay session sends.", nullptr,
	                        &settings.relay_origin, 0, 0, 65534, PGC_SUSET,
	                        GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL |
	                            GUC_DISALLOW_IN_FILE,
	                        nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
		"homing.relay_retention",
		"WAL that a region keeps to pass on what it received of a region that may be lost.",
		"Beyond it, the end of a lost region's stream cannot be passed on from here.",
		&settings.relay_retention_mb, 4096, 64, 2147483647, PGC_SIGHUP, GUC_UNIT_MB, nullptr,
		nullptr, nullptr);
	MarkGUCPrefixReserved("homing");
}

}  // namespace homing::pg
