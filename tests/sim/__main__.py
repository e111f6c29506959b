# SPDX-License-Identifier: Apache-2.0
"""Replays a seed, or a scenario as a failed test prints it: make replay SEED=4711.

    python -m tests.sim 4711                       what goes wrong
    python -m tests.sim 4711 --trace               and every packet and event
    python -m tests.sim 4711 --shrink              and the smallest scenario that fails in the same way
    python -m tests.sim 4711 --picture x.png       and the run as a time-sequence picture
    python -m tests.sim 'Scenario(seed=1, ...)'
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.sim import LIBRARY, Scenario, picture, run, scenario_of
from tests.sim.shrink import shrink


def given_scenario(text: str) -> Scenario:
    """ValueError: it is neither a seed nor a scenario."""
    if text.isdigit() and 0 < int(text) < 1 << 32:
        return scenario_of(int(text))
    if not text.startswith("Scenario("):
        raise ValueError(f"'{text}' is neither a seed (1 to 4294967295) nor 'Scenario(...)'")
    try:
        found = eval(text, {"__builtins__": {}, "Scenario": Scenario})
    except (SyntaxError, TypeError, NameError) as error:
        raise ValueError(f"not a scenario: {error}") from None
    if not isinstance(found, Scenario):
        raise ValueError(f"not a scenario: {text}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="a seed of build/sim, or 'Scenario(...)'")
    parser.add_argument("--trace", action="store_true", help="print every packet and event")
    parser.add_argument("--shrink", action="store_true", help="reduce a failing scenario first")
    parser.add_argument("--picture", type=Path, help="where the picture goes (default build/replay/<seed>.png)", nargs="?",
                        const=Path())  # fmt: skip
    parser.add_argument("--session", type=int, default=0, help="which session the picture shows (default 0)")
    given = parser.parse_args()
    try:
        scenario = given_scenario(given.scenario)
        if given.shrink:
            scenario, _ = shrink(scenario)
            print(f"reduced: .venv/bin/python -m tests.sim '{scenario}'")
    except ValueError as error:
        print(f"tests.sim: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        record = Path(work) / "record" if given.picture is not None else None
        outcome = run(replace(scenario, trace=int(given.trace)), record)
        sys.stdout.flush()
        if record:
            target = given.picture if given.picture != Path() else LIBRARY.parent / "replay" / f"{scenario.seed}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            sides = picture.read(record, given.session, scenario.middleboxes + 2)
            picture.draw(sides, outcome.wrong or f"nothing is wrong: {scenario}", target)
            print(f"picture: {target}")
    print(f"{scenario}\n{outcome.wrong or 'nothing is wrong'} ({outcome.packets} packets)")
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    raise SystemExit(main())
