# SPDX-License-Identifier: Apache-2.0
"""The interface behind which every middlebox of the lab stands, and what those that are processes share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class BoxFailed(Exception):
    """A middlebox did not start, or did not carry out a command: one line why."""


class Place(Protocol):
    """The host in which a middlebox runs."""

    @property
    def pid(self) -> int:
        """A process that holds its network namespace."""

    def run(self, argv: Sequence[str], stdin: str | None = None) -> str:
        """Standard output of a command in the host; raises if it fails."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process in the host."""

    def sysctl(self, values: dict[str, str]) -> None:
        """Sets kernel parameters of the host."""


class Middlebox(Protocol):
    """Real software in a host."""

    def start(self, place: Place) -> None:
        """Begins to come up.  BoxFailed if it cannot."""

    def ready(self) -> bool:
        """Whether it does its work by now.  BoxFailed if it never will."""

    def stop(self) -> None:
        """Ends it; the host is as before."""

    def counters(self) -> dict[str, int]:
        """What it has counted so far."""


class ProcessBox(ABC):
    """A middlebox that is a process: ready when it listens on its ports, ended by SIGTERM.

    `folder`: for its configuration and what it says (NAME.log).
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.process: subprocess.Popen[str] | None = None
        self._place: Place | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that runs it in the foreground."""

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports on which it listens once it is up."""
        return ()

    def environment(self) -> Mapping[str, str]:
        """What is added to its environment."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - some have no configuration
        """Writes its configuration."""

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self, place: Place) -> None:
        self._place = place
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log.open("w") as log:
            self.process = place.popen(
                self.command(), env=os.environ | self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ready(self) -> bool:
        if not self.process or not self._place:
            return False
        if self.process.poll() is not None:
            raise BoxFailed(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
        return not set(self.ports) - listening(self._place.pid)

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def stop(self, timeout_s: float = 5.0) -> None:
        if not self.process or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def counters(self) -> dict[str, int]:
        return {}


def captures(pid: int) -> bool:
    """Whether a process has a packet socket: then it sees what passes."""
    rows = Path(f"/proc/{pid}/net/packet").read_text().splitlines()[1:]
    inodes = {f"socket:[{row.split()[-1]}]" for row in rows}
    with contextlib.suppress(OSError):  # it may end meanwhile
        return any(os.readlink(fd) in inodes for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def listening(pid: int) -> set[int]:
    """The IPv4 TCP ports on which somebody listens in the network namespace of a process."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = [row.split() for row in rows]
    return {int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == "0A"}
