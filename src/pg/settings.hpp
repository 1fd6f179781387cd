// The extension's settings (homing.*).
#pragma once

namespace homing::pg {

// How up to date a read is.
enum ReadConsistency { kReadEventual, kReadSession, kReadHome };

struct Settings {
	int auto_declare_lost_s;  // 0: never
	int clock_drift_ppm;
	int connect_timeout_ms;
	int connection_idle_timeout_ms;  // 0: none
	char *debug_point;               // where this process kills or stops itself; empty: nowhere
	int fencing;                     // a core::Fencing
	char *forward_settings;  // comma-separated names of settings that travel with a forwarded statement
	char *forwarded_from;  // name of the region this session executes statements for; empty: a client's own
	int handover_timeout_ms;
	int lease_duration_ms;
	bool local_ddl;
	int max_connections_per_region;  // 0: no limit
	char *orphans_beyond;  // position: decoding shows what was written here beyond it; empty: it does not
	int outcome_timeout_ms;
	bool own_ddl;  // the extension itself is changing a homed table
	int probe_interval_ms;
	int read_consistency;  // a ReadConsistency
	int read_timeout_ms;
	char *relay_beyond;  // position in the stream of relay_origin
	int relay_origin;    // this connection passes on changes of it; 0: it sends our own
	int relay_retention_mb;
	int max_retained_wal_mb;
	bool wait_second_phase;
};

extern Settings settings;

// Shows the position in WAL where this session's last commit ended, as a number.
constexpr const char *kLastCommitSetting = "homing.last_commit";

// Called once, from _PG_init.
void DefineSettings();

}  // namespace homing::pg
