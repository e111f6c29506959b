# SPDX-License-Identifier: Apache-2.0
"""Sessions that are over leave the tables, after a while in which late segments still find a silent tombstone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LINGER_S = 60.0
IDLE_S = 2 * 3600.0
SCAN_S = 30.0
FIN_BOTH, RST, LEFT_CHAIN = 16 | 32, 64, 8


def is_over(flags: int) -> bool:
    """Whether a session's flags (enum session_flag) say that it has ended at this agent."""
    return bool(flags & (RST | LEFT_CHAIN)) or flags & FIN_BOTH == FIN_BOTH


class Expiry:
    """Which sessions to forget, and when."""

    def __init__(self, forget: Callable[[int], Any], linger_s: float = LINGER_S, idle_s: float = IDLE_S) -> None:
        self._forget = forget
        self._linger_s, self._idle_s = linger_s, idle_s
        self._over: dict[int, float] = {}
        self._traffic: dict[int, tuple[int, float]] = {}

    def over(self, nonce: int, now: float) -> None:
        self._over.setdefault(nonce, now + self._linger_s)

    def scan(self, packets: dict[int, int], now: float) -> None:
        """Packets of each session so far: one that has carried none for idle_s is over."""
        seen = {}
        for nonce, count in packets.items():
            before, since = self._traffic.get(nonce, (-1, now))
            seen[nonce] = (count, since if before == count else now)
            if now - seen[nonce][1] > self._idle_s:
                self.over(nonce, now - self._linger_s)
        self._traffic = seen

    def tick(self, now: float) -> None:
        for nonce in [n for n, at in self._over.items() if at <= now]:
            self._forget(nonce)
            del self._over[nonce]
