# SPDX-License-Identifier: Apache-2.0
"""A transcoder: it changes the size of both directions, then reports by how much and leaves."""

from __future__ import annotations

import sys
from pathlib import Path

from middleboxes.box import ProcessBox
from middleboxes.control import Leaves

ROOT = Path(__file__).resolve().parents[2]


class Transcoder(Leaves, ProcessBox):
    """Sends what comes in compressed form expanded, and what goes back compressed, for the first `pieces` pieces of each
    direction (__main__.py has the format); then it only relays."""

    def __init__(self, folder: Path, port: int, to: tuple[str, int], pieces: int, name: str = "transcoder") -> None:
        super().__init__(name, folder)
        self.port, self.to, self.pieces = port, to, pieces

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    def command(self) -> list[str]:
        arguments = [str(self.port), self.to[0], str(self.to[1]), str(self.pieces), str(self._control)]
        return [sys.executable, "-m", "middleboxes.transcoder", *arguments]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}

    @property
    def _control(self) -> Path:
        return self.folder / f"{self.name}.sock"

    def sockets(self) -> list[Path]:
        return [self._control]
