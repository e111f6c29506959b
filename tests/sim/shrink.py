# SPDX-License-Identifier: Apache-2.0
"""Makes a failing scenario as small as it gets: everything that the failure does not need goes."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from tests.sim import Scenario, run

PATIENCE_S = 20
DIED = "the simulator died"
SWITCHES = ("reorder_ppm", "duplicate_ppm", "loss_ppm", "jitter_us", "sign", "slow", "ports", "deaf", "dies", "moves", "replays",
            "resize", "nat", "proxy", "gso", "calm", "sack", "timestamps")  # fmt: skip
NUMBERS = {"sessions": 1, "reconfigurations": 0, "moves": 0, "replays": 0, "middleboxes": 0, "chain": 0, "delay_us": 20}
OTHER_SEEDS = 10


def kind(wrong: str) -> str:
    """What went wrong without the numbers: two failures of one kind are taken for the same."""
    return re.sub(r"\b[0-9a-f]*\d[0-9a-f]*\b", "N", wrong.split(" ms: ", 1)[-1])


def _told(scenario: Scenario, answer: multiprocessing.SimpleQueue[str]) -> None:
    answer.put(run(scenario).wrong)


def wrong_of(scenario: Scenario) -> str:
    """What goes wrong in a process of its own: a scenario may kill it, or never end."""
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=_told, args=(scenario, answer))
    process.start()
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
        return "it never ends"
    return answer.get() if process.exitcode == 0 else DIED


def _valid(s: Scenario) -> bool:
    hosts = all(0 <= host <= s.middleboxes for host in (s.deaf, s.proxy, s.nat, s.dies))
    return hosts and s.chain <= s.middleboxes and s.sessions >= 1


def _smaller(s: Scenario) -> Iterator[Scenario]:
    """Scenarios that are simpler in one way, the boldest first."""
    values = asdict(s)
    for name in SWITCHES:
        if values[name]:
            yield replace(s, **{name: 0})
    for name, least in NUMBERS.items():
        for value in sorted({least, (values[name] + least) // 2, values[name] - 1}):
            if least <= value < values[name]:
                yield replace(s, **{name: value})
    for side in (0, 1):
        for value in (0, s.bytes[side] // 2, s.bytes[side] - 1000):
            if 0 <= value < s.bytes[side]:
                yield replace(s, bytes=(value, s.bytes[1]) if side == 0 else (s.bytes[0], value))


def shrink(scenario: Scenario, wrong: Callable[[Scenario], str] = wrong_of) -> tuple[Scenario, str]:
    """The smallest scenario found that fails in the same way, and what goes wrong in it.  ValueError: nothing does.

    A smaller scenario draws other numbers from its seed, so each is tried with a few seeds more.
    """
    found = wrong(scenario)
    if not found:
        raise ValueError("nothing goes wrong in it")
    sought, smaller = kind(found), True
    while smaller:
        smaller = False
        for simpler in filter(_valid, _smaller(scenario)):
            tries = (replace(simpler, seed=seed) for seed in (scenario.seed, *range(1, OTHER_SEEDS)))
            hit = next(((s, text) for s in tries if kind(text := wrong(s)) == sought), None)
            if hit:
                (scenario, found), smaller = hit, True
                break
    return scenario, found
