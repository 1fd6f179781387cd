#!/usr/bin/env bash
# Checks the format of the C++ files (clang-format 14); with --fix, formats them.
set -euo pipefail
cd "$(dirname "$0")/../.."

mapfile -t files < <(find src test -name '*.hpp' -o -name '*.cpp' | LC_ALL=C sort)
if [ "${1:-}" = --fix ]; then
	exec clang-format-14 -i "${files[@]}"
fi
unformatted=$(for file in "${files[@]}"; do
	clang-format-14 "$file" | diff -q "$file" - >/dev/null || echo "$file"
done)
if [ -n "$unformatted" ]; then
	echo "$unformatted"
	echo "format: run make format"
	exit 1
fi
echo "format: ${#files[@]} files are formatted"
