# SPDX-License-Identifier: Apache-2.0
"""The simulation from Python: scenarios go in, outcomes come out; the loop is C (sim.h)."""

from __future__ import annotations

import ctypes as c
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dysco_ns.model.events import Event

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "libsim.so"
REASONS = LIBRARY.parents[1] / "dysco_ns" / "core" / "reasons.h"
PAIR = c.c_uint32 * 2


class _Scenario(c.Structure):
    _fields_ = [
        *((name, c.c_uint32) for name in ("seed", "middleboxes", "chain", "sessions")),
        ("bytes", PAIR),
        *((n, c.c_uint32) for n in ("reconfigurations", "loss_ppm", "duplicate_ppm", "reorder_ppm", "delay_us", "jitter_us")),
        ("mss", c.c_uint32),
        ("window_shift", PAIR),
        *((name, c.c_uint32) for name in ("timestamps", "sack", "gso", "deaf", "calm", "sign", "slow", "ports")),
        *((name, c.c_uint32) for name in ("proxy", "nat", "dies", "moves", "replays", "resize", "trace")),
    ]


class Outcome(c.Structure):
    """What a run ended with; `wrong` is empty when every invariant held."""

    _fields_ = [
        ("_wrong", c.c_char * 400),
        *((name, c.c_uint64) for name in ("packets", "bytes", "virtual_us")),
        *((name, c.c_uint32) for name in ("closed", "done", "refused", "cancelled", "unfinished")),
        *(
            (name, c.c_uint32)
            for name in ("paws", "old_acks", "timeouts", "overshoot", "late_echoes", "too_wide", "entries_left")
        ),
        *((name, c.c_uint32) for name in ("proxies_gone", "moved", "replayed", "lost", "judged", "invalid")),
    ]

    @property
    def wrong(self) -> str:
        return bytes(self._wrong).decode()


@dataclass(frozen=True)
class Scenario:
    """Everything that a run depends on; bytes and window_shift are (rightward, leftward)."""

    seed: int = 1
    middleboxes: int = 3
    chain: int = 1
    sessions: int = 4
    bytes: tuple[int, int] = (200_000, 200_000)
    reconfigurations: int = 10
    loss_ppm: int = 0
    duplicate_ppm: int = 0
    reorder_ppm: int = 0
    delay_us: int = 500
    jitter_us: int = 0
    mss: int = 1400
    window_shift: tuple[int, int] = (7, 7)
    timestamps: int = 1
    sack: int = 1
    gso: int = 1
    deaf: int = 0
    calm: int = 0
    sign: int = 0
    slow: int = 0
    ports: int = 0
    proxy: int = 0
    nat: int = 0
    dies: int = 0
    moves: int = 0
    replays: int = 0
    resize: int = 0
    trace: int = field(default=0, compare=False)


def scenario_of(seed: int) -> Scenario:
    """The scenario that `build/sim` draws from a seed."""
    drawn = _Scenario()
    c.CDLL(str(LIBRARY)).sim_scenario(c.c_uint32(seed), c.byref(drawn))
    fields = {name: getattr(drawn, name) for name, _ in drawn._fields_}
    return Scenario(**{name: tuple(value) if name in ("bytes", "window_shift") else value for name, value in fields.items()})


def run(scenario: Scenario, record: Path | None = None) -> Outcome:
    """One run, the same each time; every packet and event is written to the file `record`."""
    library = c.CDLL(str(LIBRARY))
    if record and library.sim_record(str(record).encode()):
        raise OSError(f"{record} cannot be written")
    values = {k: PAIR(*v) if isinstance(v, tuple) else v for k, v in asdict(scenario).items()}
    given, outcome = _Scenario(**values), Outcome()
    library.sim_run(c.byref(given), c.byref(outcome))
    if record:
        library.sim_record(None)
    return outcome


def events(first: int, last: int, written: Path) -> dict[int, list[Event]]:
    """What the agents of a range of seeds have told, by seed; `written` is where the simulator puts it."""
    subprocess.run([LIBRARY.parent / "sim", str(first), str(last), "events", written], capture_output=True, check=False)
    kinds = re.search(r"enum event_kind \{(.*?)\}", REASONS.read_text(), re.S)
    names = [name.lower() for name in re.findall(r"EVENT_(\w+)", kinds[1] if kinds else "")]
    names[0] = "event_lost"
    names.append("spliced")  # the simulator's own, sim.h
    runs: dict[int, list[Event]] = {seed: [] for seed in range(first, last + 1)}
    for line in written.read_text().splitlines():
        seed, time_ns, host, kind, nonce, txid, value, side = line.split(",")
        runs[int(seed)].append(Event(int(time_ns), f"host {host}", names[int(kind)], nonce, int(txid, 16), int(value),
                                     ("left", "right")[int(side) & 1]))  # fmt: skip
    return runs
