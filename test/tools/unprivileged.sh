# Sourced, in the top directory. Runs things that start servers as a user that may: PostgreSQL refuses to
# run as root.
#
#   make_work_dir          sets work_dir: a new directory, with what servers and their tests read
#   unprivileged CMD ...   runs CMD there as that user
#   remove_work_dir
#
# In work_dir: tree (a copy of test, sql, expected, as the source tree may lie where that user cannot read),
# server.conf, wan_proxy, libstalling_disk.so, out (results that are worth keeping).

test_user=$(id -un)
[ "$(id -u)" -ne 0 ] || test_user=${PG_TEST_USER:-postgres}
pg_bindir=$("$PG_CONFIG" --bindir)
pg_test_dir=$(dirname "$("$PG_CONFIG" --pgxs)")/../test

cmake_build()
{
	local log
	log=$(mktemp)
	# A cache made by another clone or compiler is of no use: the second try starts anew.
	cmake -S . -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPG_CONFIG="$PG_CONFIG" >"$log" 2>&1 ||
		{ rm -rf build && cmake -S . -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPG_CONFIG="$PG_CONFIG" >"$log" 2>&1; } ||
		{ cat "$log"; rm -f "$log"; return 1; }
	rm -f "$log"
	cmake --build build --parallel "$(nproc)" "$@"
}

make_work_dir()
{
	[ -z "${work_dir:-}" ] || return 0
	cmake_build --target wan_proxy stalling_disk >/dev/null || return
	# Short: the path of a Unix socket has at most 107 bytes.
	work_dir=$(mktemp -d "${TMPDIR:-/tmp}/homing.XXXXXX")
	chmod 755 "$work_dir"
	mkdir "$work_dir/tree" "$work_dir/out"
	local part
	for part in test sql expected README.md; do
		[ ! -e "$part" ] || cp -r "$part" "$work_dir/tree/"
	done
	cp build/wan_proxy build/libstalling_disk.so "$work_dir/"
	test/tools/server_settings.sh "$pg_bindir" >"$work_dir/server.conf" || return
	[ "$(id -u)" -ne 0 ] || chown -R "$test_user" "$work_dir"
}

remove_work_dir()
{
	[ -z "${work_dir:-}" ] || rm -rf "$work_dir"
}

unprivileged()
{
	local environment=(env -C "$work_dir/tree" HOME="$work_dir" LC_ALL=C.UTF-8 PATH="$pg_bindir:$PATH"
		WORK_DIR="$work_dir" HOMING_SERVER_CONF="$work_dir/server.conf" WAN_PROXY="$work_dir/wan_proxy"
		STALLING_DISK="$work_dir/libstalling_disk.so")
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u "$test_user" -- "${environment[@]}" "$@"
	else
		"${environment[@]}" "$@"
	fi
}
