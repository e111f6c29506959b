# SPDX-License-Identifier: Apache-2.0
"""Configurations of lock.pml: two left anchors that contend for segments of one chain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.model import Configuration

MOST_HOSTS = 4
Segment = tuple[int, int]


def contention(hosts: int, first: Segment, second: Segment, losses: int = 0, broken: str = "",
               cancels: int = 0) -> Configuration:  # fmt: skip
    """How many agents, the segment of each anchor, how many messages get lost."""
    name = f"lock: {hosts} hosts, {first[0]}-{first[1]} against {second[0]}-{second[1]}"
    name += (f", {losses} lost" if losses else "") + (f", {cancels} cancelled" if cancels else "")
    name += (f", {broken}" if broken else "")
    numbers = (("HOSTS", hosts), ("LEFT1", first[0]), ("RIGHT1", first[1]), ("LEFT2", second[0]), ("RIGHT2", second[1]),
               ("LOSSES", losses), ("CANCELS", cancels))  # fmt: skip
    return Configuration("lock", name, numbers, (broken,) if broken else (), control=bool(broken))


def segments(hosts: int) -> list[Segment]:
    return list(itertools.combinations(range(hosts), 2))


def cancels(most_losses: int) -> Iterator[Configuration]:
    """Overlapping ones in which an attempt, or each, is given up."""
    pairs = ((3, (0, 2), (0, 2)), (3, (0, 2), (1, 2)), (4, (0, 2), (1, 3)), (4, (0, 3), (1, 2)), (4, (0, 1), (1, 3)))
    for hosts, first, second in pairs:
        for losses in range(most_losses + 1):
            for given_up in (1, 2):
                yield contention(hosts, first, second, losses, cancels=given_up)


def contentions(most_losses: int) -> Iterator[Configuration]:
    """All pairs of segments over chains of up to four hosts, with 0 to most_losses messages lost."""
    for hosts in range(2, MOST_HOSTS + 1):
        for first, second in itertools.combinations_with_replacement(segments(hosts), 2):
            for losses in range(most_losses + 1):
                yield contention(hosts, first, second, losses)


CONTROLS = (
    contention(4, (0, 2), (1, 3), broken="BROKEN_LOCK"),
    contention(4, (0, 3), (1, 2), broken="BROKEN_LOCK"),
    contention(4, (0, 3), (2, 3), broken="BROKEN_NACK"),
    contention(3, (0, 2), (1, 2), broken="BROKEN_HOLD"),
    contention(3, (0, 2), (1, 2), broken="BROKEN_CANCEL", cancels=1),
)
