# SPDX-License-Identifier: Apache-2.0
"""One session's reconfiguration from the request to its end: tried again by itself when another was in the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dysco_ns.agent.leader import Outcome
from dysco_ns.agent.migration import Migration

if TYPE_CHECKING:
    from dysco_ns.agent.daemon import Daemon

Json = dict[str, Any]
DEFAULT_TIMEOUT_S = 30.0
RETRIES, RETRY_PAUSE_S = 7, 0.05  # the pause doubles, and varies by half: contenders part, a dead anchor's lease runs out
MOST_PAUSE_S = 5.0
RETRY_BY_ITSELF = {"locked", "busy", "stale"}
MISFIT = "is not the right neighbour here"  # another change has come first: somebody else must lead now


class Misfit(Exception):
    """The session does not lie as the change assumes; says how."""


@dataclass(frozen=True)
class Patience:
    """How often a reconfiguration that met another is tried again, after which pause, and how long each try may take."""

    retries: int = RETRIES
    pause_s: float = RETRY_PAUSE_S
    timeout_s: float = DEFAULT_TIMEOUT_S


async def change_session(
    daemon: Daemon, nonce: int, fields: Callable[[Json], Json], patience: Patience, migration: Migration | None = None
) -> Outcome:
    """Leads a change of one session; `fields` gives those of struct command for the session as it lies now (Misfit)."""
    for turn in range(patience.retries):
        outcome = await _once(daemon, nonce, fields, patience.timeout_s, migration)
        if outcome.outcome != "refused" or outcome.reason not in RETRY_BY_ITSELF:
            return outcome
        await asyncio.sleep(random.uniform(0.5, 1.5) * min(patience.pause_s * 2**turn, MOST_PAUSE_S))
    return await _once(daemon, nonce, fields, patience.timeout_s, migration)


async def _once(
    daemon: Daemon, nonce: int, fields: Callable[[Json], Json], timeout_s: float, migration: Migration | None
) -> Outcome:
    finished: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def end(outcome: Outcome) -> None:
        if not finished.done():
            finished.set_result(outcome)

    s = daemon.core.session(nonce)
    if not s:
        return Outcome(nonce, "refused", "no_session")
    try:
        daemon.reconfigure(nonce, fields(s), end, migration)
    except Misfit as error:
        return Outcome(nonce, "refused", str(error))
    try:
        return await asyncio.wait_for(finished, timeout_s)
    except TimeoutError:
        return Outcome(nonce, "failed", f"not finished after {timeout_s:g} s; it goes on")
