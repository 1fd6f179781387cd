# Sourced. Runs things that start servers as a user that may: PostgreSQL refuses to run as root.
#
#   make_work_dir          sets work_dir: a new directory that this user, and only it, can write
#   unprivileged CMD ...   runs CMD as that user inside work_dir
#   remove_work_dir
#
# The source tree may lie where that user cannot read: copy what is needed into work_dir.

test_user=$(id -un)
[ "$(id -u)" -ne 0 ] || test_user=${PG_TEST_USER:-postgres}

make_work_dir()
{
	# Short: the path of a Unix socket has at most 107 bytes.
	work_dir=$(mktemp -d "${TMPDIR:-/tmp}/homing.XXXXXX")
	chmod 755 "$work_dir"
	own_work_dir
}

own_work_dir()
{
	[ "$(id -u)" -ne 0 ] || chown -R "$test_user" "$work_dir"
}

remove_work_dir()
{
	[ -z "${work_dir:-}" ] || rm -rf "$work_dir"
}

unprivileged()
{
	if [ "$(id -u)" -eq 0 ]; then
		(cd "$work_dir" && runuser -u "$test_user" -- env HOME="$work_dir" "$@")
	else
		(cd "$work_dir" && "$@")
	fi
}
