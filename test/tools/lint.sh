#!/usr/bin/env bash
# Runs clang-tidy over the sources, with the compile commands that CMake writes.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang-tidy-14 >/dev/null || { echo "lint: install the package clang-tidy-14" >&2; exit 1; }
cmake -S . -B build -DPG_CONFIG="$PG_CONFIG" >/dev/null
find src test -name '*.cpp' -print0 | xargs -0 -n 4 -P "$(nproc)" clang-tidy-14 -p build --quiet
