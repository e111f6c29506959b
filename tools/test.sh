#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The representative tests: real networks, and beside them, with less right to the processor, all that needs none.
cd "$(dirname "$0")/.." || exit 1
said=build/test-beside.log

nice -n 19 .venv/bin/pytest -m "not long" --ignore=tests/net tests >"$said" 2>&1 &
beside=$!
trap 'kill $beside 2>/dev/null' INT TERM
.venv/bin/pytest -m "not long" tests/net
failed=$?
echo "beside the networks (units, simulator, models, fuzzing):"
wait $beside || failed=1
cat "$said"
exit $failed
