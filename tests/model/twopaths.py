# SPDX-License-Identifier: Apache-2.0
"""Configurations of twopaths.pml: the paper's changes of a chain, with data in one direction or both."""

from __future__ import annotations

from dataclasses import replace

from tests.model import Configuration

DEFAULTS = {"BYTES_LEFT": 0, "BYTES_RIGHT": 0, "OLD_BOXES": 0, "NEW_BOXES": 0, "DELTA": 0, "DELTA_BACK": 0, "SEGMENT": 1,
            "LOSSES": 0, "SPURIOUS": 0, "EARLY": 1, "RECONFIGS": 1, "CAPACITY": 4}  # fmt: skip
OFFSET = {"DELTA": 2, "DELTA_BACK": 1}  # of a middlebox that adds to sequence numbers

PHRASES = {"SEGMENT": "segments of up to {}", "LOSSES": "{} lost", "SPURIOUS": "{} without need", "EARLY": "{} early releases",
           "RECONFIGS": "{} times"}  # fmt: skip

# What the paper changes.  An old path's middlebox that can leave has deltas; a new one has none.
CHANGES: dict[str, dict[str, int]] = {
    "delete": {"OLD_BOXES": 1, **OFFSET},
    "insert": {"NEW_BOXES": 1},
    "replace": {"OLD_BOXES": 1, "NEW_BOXES": 1, **OFFSET},
    "delete two": {"OLD_BOXES": 2, **OFFSET},
}
# What the core does today and the model has otherwise (docs/verification.md); the last does not survive losses.
AS_THE_CORE_IS = ("BROKEN_PROBE", "BROKEN_COPY", "BROKEN_ANSWER", "BROKEN_SETTLE", "BROKEN_HANDSHAKE")


def session(change: str, left: int, right: int, *switches: str, note: str = "", large: bool = False,
            **more: int) -> Configuration:  # fmt: skip
    """One that sends so many bytes from the left and from the right, and a FIN each."""
    words = [f"{left}+{right} bytes", *(PHRASES[key].format(value) for key, value in more.items() if key in PHRASES and value)]
    words += [note] if note else []
    numbers = {**DEFAULTS, **CHANGES.get(change, {}), "BYTES_LEFT": left, "BYTES_RIGHT": right, **more}
    return Configuration("twopaths", f"{change}: {', '.join(words)}", tuple(numbers.items()), switches, large=large)


def control(broken: str, change: str, left: int = 1, large: bool = False, **more: int) -> Configuration:
    return replace(session(change, left, 0, broken, note=broken, large=large, **more), control=True)


CONTROLS = (
    control("BROKEN_BETA", "delete"),
    control("BROKEN_GAP", "insert"),
    control("BROKEN_COMPLETION", "delete"),
    control("BROKEN_CUTOFF", "delete"),
    control("BROKEN_ACK", "delete"),
    control("BROKEN_HELD", "insert"),
    control("BROKEN_PROBE", "delete"),
    control("BROKEN_ANSWER", "no middlebox", SPURIOUS=1),
    control("BROKEN_SETTLE", "insert"),
    control("BROKEN_HANDSHAKE", "no middlebox", LOSSES=1),
)
LARGE_CONTROLS = (control("BROKEN_COPY", "no middlebox", left=2, large=True, SPURIOUS=1, CAPACITY=5),)


def quick() -> list[Configuration]:
    """Every change, data in either direction, none or one message lost."""
    return [
        *(session(change, *data, LOSSES=losses) for change in CHANGES for data in ((1, 0), (0, 1)) for losses in (0, 1)),
        session("no middlebox", 2, 0, SEGMENT=2),
        session("delete", 1, 0, RECONFIGS=2),
        session("insert", 0, 1, RECONFIGS=2),
        session("delete", 1, 0, *AS_THE_CORE_IS, "LENIENT", note="as the core is"),
        session("delete", 1, 0, *AS_THE_CORE_IS[:-1], "LENIENT", LOSSES=1, note="as the core is, but ready"),
    ]


def full() -> list[Configuration]:
    return [*quick(), *larger()]


def larger() -> list[Configuration]:
    """Data both ways; more of it; segments across the cutoff; repetitions without need; twice."""
    return [
        *(session(change, 1, 1, large=True) for change in CHANGES),
        *(session(change, *data, large=True) for change in CHANGES for data in ((2, 0), (0, 2))),
        *(session(change, 1, 0, large=True, LOSSES=2) for change in CHANGES),
        *(session("no middlebox", *data, large=True, SPURIOUS=1, CAPACITY=5) for data in ((1, 0), (0, 1))),
        *(session(change, 1, 1, large=True, LOSSES=1) for change in ("no middlebox", "delete", "insert")),
        session("no middlebox", 2, 1, large=True),
        session("no middlebox", 3, 0, large=True, SEGMENT=2),
        session("no middlebox", 2, 0, large=True, SPURIOUS=1, CAPACITY=5),
        session("no middlebox", 2, 0, large=True, EARLY=3),
        *(session(change, 2, 0, large=True, RECONFIGS=2) for change in ("insert", "replace")),
        session("delete", 0, 2, large=True, RECONFIGS=2),
        session("no middlebox", 1, 1, *AS_THE_CORE_IS, "LENIENT", note="as the core is", large=True),
        session("delete", 1, 1, *AS_THE_CORE_IS, "LENIENT", note="as the core is", large=True),
    ]
