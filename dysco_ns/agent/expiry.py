# SPDX-License-Identifier: Apache-2.0
"""When sessions that are over leave the tables: late while there is room, soon when there is little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dysco_ns.agent.core import Core

LINGER_S, LEAST_LINGER_S = 60.0, 1.0
CALM, FULL = 0.25, 0.75  # shares of the session table: full patience up to the first, the least from the second on
LOOK_S, CALM_PASS_S, IDLE_PASS_S = 0.25, 5.0, 30.0


def linger_s(share: float, most_s: float = LINGER_S) -> float:
    """How long a session that is over stays when this share of the table is in use."""
    patience = min(max((FULL - share) / (FULL - CALM), 0.0), 1.0)
    return max(patience * most_s, LEAST_LINGER_S)


class Expiry:
    """Passes over the session table of one agent."""

    def __init__(self, core: Core, idle_s: float, beat_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.core = core
        self.idle_s = idle_s
        self.beat_s = beat_s  # silence after which the neighbours are asked; 0: never
        self.most_linger_s = LINGER_S
        self.clock = clock
        self._pass_at = self._idle_at = 0.0

    def step(self) -> bool:
        """One pass if one is due.  True: it had to stop early, there is more to do now."""
        now, share = self.clock(), self.core.live_sessions() / self.core.most_sessions
        if share <= CALM and now < min(self._pass_at, self._idle_at):
            return False
        idle = now >= self._idle_at
        done = self.core.expire(linger_s(share, self.most_linger_s), self.idle_s if idle else 0.0, self.beat_s)
        if done:
            self._pass_at = now + min(CALM_PASS_S, self.most_linger_s)
            self._idle_at = now + self._idle_pass_s() if idle else self._idle_at
        return not done

    def ask_after(self, beat_s: float) -> None:
        """Heartbeats after this silence from now on; 0: none."""
        self.beat_s, self._idle_at = beat_s, 0.0

    def linger(self, most_s: float) -> None:
        """Sessions that are over stay no longer than this from now on."""
        self.most_linger_s, self._pass_at = max(most_s, LEAST_LINGER_S), 0.0

    def _idle_pass_s(self) -> float:
        """Often enough that neither an idle time-out nor a heartbeat is late by more than half of itself."""
        return min(IDLE_PASS_S, self.idle_s / 2, self.beat_s / 2 or IDLE_PASS_S)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.0 if self.step() else LOOK_S)
