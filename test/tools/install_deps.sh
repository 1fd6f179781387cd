#!/usr/bin/env bash
# Installs the Debian packages that building and testing need. Says what it does; does nothing when all
# are there. Root, or a user who may use sudo.
set -euo pipefail

packages=(
	postgresql-15 postgresql-server-dev-15 libpq-dev  # server, its headers, libpq
	g++ make cmake                                    # building
	libgtest-dev libipc-run-perl perl pgbouncer       # unit and TAP tests
	clang-format-14                                   # format check
	spin gcc cpp                                      # model
)

# Empty when the package is not installed.
installed_version()
{
	{ dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null || true; } | sed -n 's/^installed //p'
}

missing=()
for package in "${packages[@]}"; do
	[ -n "$(installed_version "$package")" ] || missing+=("$package")
done

# Headers newer than the server would build a library that the server may refuse.
server=$(installed_version postgresql-15)
if [ -n "$server" ] && [ "$server" != "$(installed_version postgresql-server-dev-15)" ]; then
	missing+=(postgresql-15 postgresql-server-dev-15)
fi

if [ ${#missing[@]} -eq 0 ]; then
	echo "deps: all packages are installed"
	exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing packages: ${missing[*]}" >&2
		echo "deps: install them as root (neither root nor sudo here)" >&2
		exit 1
	fi
	as_root=(sudo)
fi

install()
{
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install --yes --no-install-recommends "${missing[@]}"
}

known()
{
	local package
	for package in "${missing[@]}"; do
		[ -n "$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: *\([^(]\)/\1/p')" ] || return 1
	done
}

echo "deps: installing ${missing[*]}"
if ! known || ! install; then
	echo "deps: refreshing the package lists"
	"${as_root[@]}" apt-get update
	install
fi
echo "deps: done"
