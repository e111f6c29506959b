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
for backend in dpdk mixed; do
	part "chain-on-$backend" env DYSCO_BACKEND=$backend .venv/bin/pytest -q tests/net/test_chain.py tests/net/test_reconfigure.py \
		tests/net/test_sessions.py tests/net/test_types.py tests/net/test_heartbeat.py
done
part seeds build/sim 100001 "${SEEDS:-200000}"
part sanitized-seeds build/sim-sanitized 300001 303000
part experiments make -s experiments
part notebooks make -s notebooks
part mutants make -s mutants SEED=1
part verify make -s verify PROFILE=full
part fuzz make -s fuzz TIME=600
echo "all parts have ended well ($state)"
