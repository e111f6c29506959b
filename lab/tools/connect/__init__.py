# SPDX-License-Identifier: Apache-2.0
"""connect: how long do connect() and the end of a session take?  Command lines, and what is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

BINARY = Path(__file__).resolve().parents[3] / "build" / "connect"
LAST_LINES_S = 1.0


def server_command(address: str, port: int, times: Path | None = None) -> list[str]:
    """`times`: where it writes how long each last FIN took."""
    return [str(BINARY), "server", address, str(port), *([str(times)] if times else [])]


def client_command(address: str, port: int, count: int, hold_ms: int = 0) -> list[str]:
    """`hold_ms`: between the last connect() and the first end."""
    return [str(BINARY), "client", address, str(port), str(count), str(hold_ms)]


class Closings:
    """Reads the server's file while it grows; `text` gives what it holds by now."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text, self._read = text, 0

    def next(self, count: int) -> list[float]:
        """Microseconds of the next so many last FINs; fewer if they do not come."""
        until = time.monotonic() + LAST_LINES_S
        while len(lines := self._text().split()) < self._read + count and time.monotonic() < until:
            time.sleep(0.01)
        found = [float(line) for line in lines[self._read : self._read + count]]
        self._read += count
        return found
