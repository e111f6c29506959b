# SPDX-License-Identifier: Apache-2.0
"""Configurations of core.pml: the shipping core, reconfigured, refused, cancelled, with messages lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from tests.model import Configuration
from tests.sim.mutants.by_hand import BY_HAND
from tests.sim.mutants.mutant import Mutant

DEFAULTS = {"BESIDE": 0, "ATTEMPTS": 1, "THROUGH1": 0, "LEFT2": 0, "RIGHT2": 0, "THROUGH2": 0, "MOVES": 0, "LOSSES": 0,
            "HASTE": 0, "CANCELS": 0, "BYTES_LEFT": 0, "BYTES_RIGHT": 0, "FINS": 0, "REPEATS": 2}  # fmt: skip
PHRASES = {"LOSSES": "{} lost", "HASTE": "{} too early", "CANCELS": "{} cancelled"}
MOST_HOSTS = 4
Segment = tuple[int, int]


def configuration(hosts: int, name: str, numbers: dict[str, int], more: dict[str, int], **others: object) -> Configuration:
    words = [PHRASES[key].format(value) for key, value in more.items() if key in PHRASES and value]
    if more.get("BYTES_LEFT") or more.get("BYTES_RIGHT"):
        words.append(f"{more.get('BYTES_LEFT', 0)}+{more.get('BYTES_RIGHT', 0)} bytes")
    words += [("", "client moves", "server moves")[more["MOVES"]]] if more.get("MOVES") else []
    words += ["FINs"] if more.get("FINS") else []
    defines = {**DEFAULTS, "HOSTS": hosts, **numbers, **more}
    return Configuration("core", ", ".join([f"core: {hosts} hosts, {name}", *words]), tuple(defines.items()), **others)  # type: ignore[arg-type]


def one(hosts: int, segment: Segment, through: bool = False, **more: int) -> Configuration:
    """One left anchor replaces what is in its segment by nothing, or by a host beside the chain."""
    numbers = {"LEFT1": segment[0], "RIGHT1": segment[1]}
    numbers |= {"BESIDE": 1, "THROUGH1": hosts} if through else {}
    return configuration(hosts, f"{segment[0]}-{segment[1]}{' through another' if through else ''}", numbers, more)


def two(hosts: int, first: Segment, second: Segment, **more: int) -> Configuration:
    """Two left anchors contend."""
    numbers = {"ATTEMPTS": 2, "LEFT1": first[0], "RIGHT1": first[1], "LEFT2": second[0], "RIGHT2": second[1]}
    return configuration(hosts, f"{first[0]}-{first[1]} against {second[0]}-{second[1]}", numbers, more)


def segments(hosts: int) -> list[Segment]:
    return list(itertools.combinations(range(hosts), 2))


def contentions(**more: int) -> Iterator[Configuration]:
    """All pairs of segments over chains of three and four hosts."""
    for hosts in range(3, MOST_HOSTS + 1):
        for first, second in itertools.combinations_with_replacement(segments(hosts), 2):
            yield two(hosts, first, second, **more)


def quick() -> list[Configuration]:
    """Chains of two to four hosts with any one message lost; attempts that are given up; contention."""
    return [
        *(one(hosts, (0, hosts - 1), LOSSES=1) for hosts in range(2, MOST_HOSTS + 1)),
        *(one(hosts, (0, hosts - 1), through=True, LOSSES=1) for hosts in (2, 3)),
        one(4, (1, 2), LOSSES=1, HASTE=1),
        one(3, (0, 2), LOSSES=1, CANCELS=1),
        one(3, (0, 2), through=True, CANCELS=1),
        one(3, (0, 1), MOVES=1, LOSSES=1),
        one(3, (1, 2), MOVES=2, LOSSES=1),
        one(2, (0, 1), BYTES_LEFT=1, LOSSES=1),
        one(2, (0, 1), BYTES_RIGHT=1),
        two(3, (0, 2), (0, 2), LOSSES=1),
        two(3, (0, 2), (1, 2), LOSSES=1),
        two(3, (0, 1), (1, 2)),
        two(4, (0, 2), (1, 3), LOSSES=1),
        two(4, (0, 3), (1, 2)),
        two(4, (0, 2), (1, 3), CANCELS=1),
    ]


def larger() -> list[Configuration]:
    """All contentions with any one message lost or an attempt given up; more losses; data on two paths."""
    return [
        *contentions(LOSSES=1),
        *contentions(CANCELS=1),
        two(4, (0, 2), (1, 3), LOSSES=2),
        two(4, (0, 2), (1, 3), LOSSES=1, CANCELS=1),
        *(one(hosts, (0, hosts - 1), LOSSES=2, HASTE=1) for hosts in range(2, MOST_HOSTS + 1)),
        *(one(hosts, (0, hosts - 1), through=True, LOSSES=1, CANCELS=1, HASTE=1) for hosts in range(2, MOST_HOSTS + 1)),
        *(one(2, (0, 1), MOVES=who, BYTES_LEFT=1, LOSSES=1) for who in (1, 2)),
        one(2, (0, 1), BYTES_LEFT=1, BYTES_RIGHT=1),
        one(2, (0, 1), BYTES_LEFT=2),
        one(2, (0, 1), BYTES_LEFT=1, FINS=1),
        one(2, (0, 1), BYTES_LEFT=1, LOSSES=1, CANCELS=1),
        *(one(2, (0, 1), through=True, LOSSES=1, **{side: 1}) for side in ("BYTES_LEFT", "BYTES_RIGHT")),
        *(one(3, (0, 2), through=through, BYTES_LEFT=1) for through in (False, True)),
    ]


def by_hand(name: str) -> Mutant:
    return next(m for m in BY_HAND if m.name == name)


def control(of: Configuration, mutant: Mutant) -> Configuration:
    return replace(of, name=f"{of.name}: {mutant.name}", control=True, mutant=mutant)


CONTROLS = (
    control(two(4, (0, 2), (1, 3)), by_hand("a lock that two can have")),
    control(two(4, (0, 3), (1, 2)), by_hand("a held request forgotten")),
    control(two(4, (0, 3), (2, 3)), by_hand("a middlebox that keeps its lock")),
    control(two(4, (0, 3), (2, 3)), by_hand("a lost nack")),
    control(one(3, (0, 2), CANCELS=1),
            Mutant("cancel leaves the left lock", "release.h", "\ts->lock = UNLOCKED;\n\tattempt_undo(r, nonce, SIDE_RIGHT);",
                   "\tattempt_undo(r, nonce, SIDE_RIGHT);")),
    control(one(3, (0, 2), CANCELS=1),
            Mutant("cancel leaves a middlebox locked", "release.h", "return lock_answer_passes(p, x, s, nonce, 0);",
                   "return lock_answer_passes(p, x, s, nonce, 1);")),
    control(one(3, (0, 2), CANCELS=1),
            Mutant("a cancelled attempt goes on", "newpath.h", "u32 cancelled = r->flags & RECONFIG_CANCEL;",
                   "u32 cancelled = 0;")),
    control(two(4, (0, 2), (1, 3), CANCELS=1),
            Mutant("cancel forgets a held request", "release.h", "return held_refuse(p, nonce);", "return VERDICT_DROP;")),
    control(one(2, (0, 1), BYTES_LEFT=2), by_hand("cutoff one byte early")),
    control(one(2, (0, 1), BYTES_LEFT=1), by_hand("beta off by one")),
    replace(two(3, (0, 2), (1, 2), SEEDED_SHARED=1), control=True, name="core: tables that two processors change at once"),
    Configuration("shared", "shared: two agents change a variable of C", (), control=True),
)  # fmt: skip
