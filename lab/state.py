# SPDX-License-Identifier: Apache-2.0
"""What the running lab has made, on disk before the next step is taken: so that `down` works after a crash too."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RUN = Path("/run/dysco")
FILE = RUN / "lab.json"
GRACE_S = 2.0


class LabBusy(Exception):
    """A lab is running already."""


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none (or only its zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


@dataclass
class Process:
    pid: int
    started: int
    name: str

    @classmethod
    def of(cls, pid: int, name: str) -> Process:
        return cls(pid, start_time(pid) or 0, name)

    def alive(self) -> bool:
        return self.started != 0 and start_time(self.pid) == self.started


@dataclass
class State:
    """The lab on this machine."""

    holder: Process
    topology: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    ready: bool = False
    hosts: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, int] = field(default_factory=dict)
    agents: dict[str, Process] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def save(self) -> None:
        RUN.mkdir(parents=True, exist_ok=True)
        fresh = FILE.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(FILE)


def load() -> State | None:
    """The lab that the state file tells of, running or crashed."""
    try:
        data: dict[str, Any] = json.loads(FILE.read_text())
    except (OSError, ValueError):
        return None
    for name in ("hosts", "agents"):
        data[name] = {key: Process(**value) for key, value in data[name].items()}
    data["holder"] = Process(**data["holder"])
    data["processes"] = [Process(**p) for p in data["processes"]]
    return State(**data)


def begin() -> State:
    """Claims the machine for a new lab.  LabBusy if one runs; what a crashed one left is removed first."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at the same moment, one waits
        old = load()
        if old and old.holder.alive():
            raise LabBusy(f"a lab is running already (topology {old.topology}, pid {old.holder.pid}): `dysco-lab down` ends it")
        if old:
            clean(old)
        state = State(Process.of(os.getpid(), "lab"))
        state.save()
        return state


def end_processes(processes: list[Process], first: signal.Signals = signal.SIGTERM) -> None:
    for number in (first, signal.SIGKILL):
        for process in processes:
            if process.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        until = time.monotonic() + GRACE_S
        while any(p.alive() for p in processes) and time.monotonic() < until:
            _reap(processes)
            time.sleep(0.01)
        _reap(processes)  # our own children would stay as zombies


def _reap(processes: list[Process]) -> None:
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def clean(state: State, including_holder: bool = False) -> None:
    """Removes exactly what the lab of this state made.  May run twice."""
    from dysco_ns.agent.daemon import forget_namespace
    from dysco_ns.netns import remove_bpffs

    if including_holder and state.holder.pid != os.getpid():
        end_processes([state.holder])
    end_processes(state.processes)
    end_processes(list(state.agents.values()))
    for namespace in state.namespaces.values():
        forget_namespace(namespace)
    end_processes(list(state.hosts.values()), signal.SIGHUP)  # Mininet's shells are interactive: they ignore SIGTERM
    remove_bpffs()
    for path in state.files:
        Path(path).unlink(missing_ok=True)
    for path in state.folders:
        shutil.rmtree(path, ignore_errors=True)
    FILE.unlink(missing_ok=True)
    (RUN / "lab.lock").unlink(missing_ok=True)
