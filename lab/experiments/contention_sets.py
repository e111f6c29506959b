# SPDX-License-Identifier: Apache-2.0
"""Who contends with whom in the experiment contention, and what its record says of each set."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco_ns.model.events import Event, of_json
from lab.collect import read_events


@dataclass(frozen=True)
class Contender:
    """Wants `new` between itself and the right anchor; hosts by their places on the chain, 0 is the client."""

    left: int
    right: int
    new: str

    @property
    def host(self) -> str:
        return f"mb{self.left}" if self.left else "client"

    def overlaps(self, other: Contender) -> bool:
        return self.left < other.right and other.left < self.right

    def request(self) -> dict[str, Any]:
        return {"chain": [self.new], "until": f"mb{self.right}"}


PATTERNS = {
    "two": (Contender(0, 3, "mb6"), Contender(2, 5, "mb7")),
    "three": (Contender(0, 3, "mb6"), Contender(1, 4, "mb7"), Contender(2, 5, "mb8")),
    "ladder": (Contender(0, 2, "mb6"), Contender(1, 4, "mb7"), Contender(3, 5, "mb8")),
}


@dataclass(frozen=True)
class Set:
    """One session and how its contenders fared."""

    pattern: str
    session: str
    winners: tuple[Contender, ...]
    contended: bool  # who has not won has met another one

    @property
    def right(self) -> bool:
        """Somebody has won, and no two that overlap have: of requests that all overlap, exactly one."""
        return bool(self.winners) and not any(a.overlaps(b) for a, b in itertools.combinations(self.winners, 2))


def sets(samples: Any) -> Iterator[Set]:
    rows = samples[samples.quantity.isin(["won", "met_another"])]
    for (pattern, session), group in rows.groupby(rows.subject.str.rsplit(n=1).str[0].str.split().map(tuple)):
        by = {(row.subject.split()[2], row.quantity): bool(row.value) for row in group.itertuples()}
        winners = tuple(c for c in PATTERNS[pattern] if by[c.host, "won"])
        losers = [c for c in PATTERNS[pattern] if c not in winners]
        yield Set(pattern, session, winners, bool(losers) and all(by[c.host, "met_another"] for c in losers))


def told(raw: Path) -> dict[str, list[Event]]:
    """What the agents have told, by session."""
    found: dict[str, list[Event]] = defaultdict(list)
    for host, line in read_events(raw):
        event = of_json(host, line)
        if event:
            found[event.session].append(event)
    return found
