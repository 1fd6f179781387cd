#!/usr/bin/env bash
# Runs a script that starts servers, as a user that may, in a directory of its own that is removed at the
# end. What the script leaves in $WORK_DIR/out is copied to build/.
# usage: with_servers.sh SCRIPT [ARGUMENT...]      SCRIPT relative to the top directory
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${PG_CONFIG:?}"
unset MAKEFLAGS MFLAGS MAKELEVEL
. test/tools/unprivileged.sh

trap remove_work_dir EXIT
# The script has the same signal, and stops its servers first.
trap : INT TERM

make_work_dir || exit
unprivileged bash "$@"
status=$?
find "$work_dir/out" -type f -exec cp {} build/ \;
exit $status
