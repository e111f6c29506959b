#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every protocol case, long: each part that has ended well is noted, and skipped when the same tree is tested again.
set -e
cd "$(dirname "$0")/.."

# Names the state of the tree: the commit, and what of it has been changed or added since.
tree() {
	commit=$(git rev-parse --short HEAD 2>/dev/null) || { echo tree; return; }
	changes=$({ git diff --binary HEAD; git ls-files -z --others --exclude-standard | xargs -0 -r sha1sum; } | sha1sum | cut -c1-12)
	echo "$commit-$changes"
}

state=build/test-all/$(tree)
mkdir -p "$state"

part() {
	name=$1
	shift
	if [ -e "$state/$name" ]; then
		echo "$name: done before"
		return
	fi
	echo "$name: $*"
	started=$(date +%s)
	"$@"
	echo "$name: $(($(date +%s) - started)) s" | tee "$state/$name"
}

part static make -s static
for file in tests/unit tests/host tests/sim tests/model tests/fuzz tests/net/test_*.py; do
	part "$(echo "$file" | tr / -)" .venv/bin/pytest -q "$file"
done
part again-reconfigure .venv/bin/pytest -q tests/net/test_reconfigure.py tests/net/test_options.py tests/net/test_mobility.py
# What changes sessions, hosts and paths, on the other data paths: one file is one part.
elsewhere="chain reconfigure sessions types heartbeat setup nat proxy deltas migration mobility ends restart steering options failures split"
for file in $elsewhere; do
	for backend in dpdk mixed; do
		part "$file-on-$backend" env DYSCO_BACKEND=$backend .venv/bin/pytest -q "tests/net/test_$file.py"
	done
	part "$file-on-two-cores" env DYSCO_BACKEND=dpdk DYSCO_WORKERS=2 .venv/bin/pytest -q -m "not long" "tests/net/test_$file.py"
done
for file in chain reconfigure sessions nat proxy migration mobility; do # AddressSanitizer ends the process at the first finding
	part "$file-on-sanitized" env DYSCO_BACKEND=dpdk DYSCO_WORKERS=2 DYSCO_DPDK=dysco-dpdk-sanitized ASAN_OPTIONS=detect_leaks=0 \
		.venv/bin/pytest -q -m "not long" "tests/net/test_$file.py"
done
part seeds build/sim 100001 "${SEEDS:-200000}"
part sanitized-seeds build/sim-sanitized 300001 303000
part experiments make -s experiments
part notebooks make -s notebooks
part mutants make -s mutants SEED=1
part verify make -s verify PROFILE=full
part fuzz make -s fuzz TIME=600
echo "all parts have ended well ($state)"
