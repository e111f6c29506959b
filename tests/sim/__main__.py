# SPDX-License-Identifier: Apache-2.0
"""Replays a scenario with every packet and event: python -m tests.sim 'Scenario(seed=1, ...)'."""

import sys
from dataclasses import replace

from tests.sim import Scenario, run

if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("Scenario("):
        raise SystemExit(__doc__)
    scenario = eval(sys.argv[1], {"Scenario": Scenario})  # what a failed test has printed
    wrong = run(replace(scenario, trace=1)).wrong
    sys.stdout.flush()
    raise SystemExit(wrong or 0)
