# SPDX-License-Identifier: Apache-2.0
"""Sampled changes that the simulator cannot see, each with the reason: the same behaviour, or another check's to find."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.mutants.mutant import Mutant

# Functions that no simulated host ever calls, and what does.  Nothing is sampled there.
ELSEWHERE: dict[str, str] = {}


@dataclass(frozen=True)
class Explained:
    """A change of a line, without its indentation, and why it lives."""

    header: str
    was: str
    now: str
    why: str


EXPLAINED: tuple[Explained, ...] = ()
_WHY = {(e.header, e.was, e.now): e.why for e in EXPLAINED}


def why(mutant: Mutant) -> str:
    """The reason that is on record for a survivor, "" if there is none."""
    return _WHY.get((mutant.header, mutant.was.strip(), mutant.now.strip()), "")
