# SPDX-License-Identifier: Apache-2.0
"""The interface behind which every middlebox of the lab stands."""

from __future__ import annotations

from typing import Protocol


class Middlebox(Protocol):
    """Real software in a host: a command line, the word with which it says that it is up, and its counters."""

    ready_word: str

    def command(self) -> list[str]:
        """The command line that runs it in the foreground until SIGTERM."""
        ...

    def counters(self) -> dict[str, int]:
        """What it has counted so far."""
        ...
