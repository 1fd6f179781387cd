#!/usr/bin/env bash
# Builds the extension and installs it into the PostgreSQL that PG_CONFIG names.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PG_CONFIG:?}"

version=$("$PG_CONFIG" --version)
case $version in
	"PostgreSQL 15."*) ;;
	*) echo "build: $PG_CONFIG is $version, PostgreSQL 15 is needed" >&2; exit 1 ;;
esac

# Of make's options for its caller, none is meant for this build.
unset MAKEFLAGS MFLAGS MAKELEVEL
echo "build: $version, $PG_CONFIG"
make --silent --jobs="$(nproc)" PG_CONFIG="$PG_CONFIG" all

target=$("$PG_CONFIG" --pkglibdir)
if [ -w "$target" ]; then
	make --silent PG_CONFIG="$PG_CONFIG" install
else
	sudo make --silent PG_CONFIG="$PG_CONFIG" install
fi
echo "build: installed into $target"
