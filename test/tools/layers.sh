#!/usr/bin/env bash
# Includes point one way: pg_homing.cpp → write, rehome, replicate → pg → remote → core.
# core and remote know nothing of the server.
# usage: layers.sh [SOURCE_DIRECTORY]
set -euo pipefail
cd "${1:-$(dirname "$0")/../../src}"

violations=$(find . -name '*.hpp' -o -name '*.cpp' | sed 's,^\./,,' | LC_ALL=C sort | xargs awk '
	BEGIN {
		split("core remote pg", low)
		for (i in low) rank[low[i]] = i
		rank["write"] = rank["rehome"] = rank["replicate"] = 4
		rank["top"] = 5
	}
	function complain(why) { print "src/" FILENAME ":" FNR ": " why ": " $0 }
	FNR == 1 {
		folder = FILENAME ~ /\// ? FILENAME : "top"
		sub(/\/.*/, "", folder)
		files++
		if (!(folder in rank)) complain("folder without a layer")
	}
	/^[ \t]*#[ \t]*include[ \t]*["<]/ {
		target = $0
		sub(/^[^"<]*["<]/, "", target); sub(/[">].*/, "", target)
		of = target ~ /\// ? target : ""
		sub(/\/.*/, "", of)
		own = of in rank
		if (own && of != folder && rank[of] >= rank[folder]) complain("include points up or sideways")
		# Below pg there are the C++ library, and libpq for remote.
		if (rank[folder] <= 2 && !own && target != "libpq-fe.h" && target !~ /^[a-z_]+$/)
			complain("server or system header below pg")
		if (folder == "core" && target == "libpq-fe.h") complain("libpq in core")
	}
	END { if (!files) print "no source file found" }
')
if [ -n "$violations" ]; then
	echo "$violations"
	echo "layers: violated"
	exit 1
fi
echo "layers: one way"
