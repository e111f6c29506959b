# SPDX-License-Identifier: Apache-2.0
"""Mobility, make-before-break: sessions of an end host get a new path that begins or ends at another address of it.

The sockets keep the address that they know.  As the session's first agent the host leads the reconfiguration itself; as
its last it asks its left neighbour to.  The old address may go when every session has moved, and stays on loopback.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from dysco_ns.agent.leader import REASONS, RETRY_HELPS
from dysco_ns.agent.view import FIRST, LAST

if TYPE_CHECKING:
    from dysco_ns.agent.daemon import Daemon

Json = dict[str, Any]
LEAD_AGAIN_S, ASK_AGAIN_S, LOOK_S = 0.5, 8.0, 0.01  # triggers are repeated by themselves


def uses(s: Json) -> str | None:
    """The address of this host that a session uses on the wire; None: this host is no end of it, or it is over."""
    if s["over_ns"]:
        return None
    if s["flags"] & FIRST:
        return str(s["right_sub"]["src"])
    return str(s["left_sub"]["dst"]) if s["flags"] & LAST else None


def candidates(daemon: Daemon, old: str) -> list[int]:
    """The sessions of this host that use an address of it."""
    return [nonce for nonce, s in daemon.core.sessions() if uses(s) == old]


def neighbours(daemon: Daemon, nonces: list[int]) -> set[str]:
    """Who must be reached from the new address."""
    found = [s for nonce in nonces if (s := daemon.core.session(nonce))]
    return {str(s["right_sub"]["dst"] if s["flags"] & FIRST else s["left_sub"]["src"]) for s in found}


async def move(daemon: Daemon, nonce: int, new: str, timeout_s: float) -> Json:
    """Moves one session; says how it ended."""
    started, asked = time.monotonic(), 0.0
    result = {"session": f"{nonce:016x}", "outcome": "done", "reason": "", "retry": False}
    reason = daemon.core.command("move", nonce=nonce, tuple={"src": new})
    while reason == "not":
        s = daemon.core.session(nonce)
        if not s or s["over_ns"]:
            reason = "session_over"
        elif uses(s) == new:
            return result
        elif time.monotonic() - started > timeout_s:
            reason = "timeout"
        elif time.monotonic() - asked > (LEAD_AGAIN_S if s["flags"] & FIRST else ASK_AGAIN_S):
            asked = time.monotonic()
            reason = _ask(daemon, nonce, s)
        else:
            await asyncio.sleep(LOOK_S)
    return result | {"outcome": "refused", "reason": REASONS.get(reason, reason), "retry": reason in RETRY_HELPS}


def _ask(daemon: Daemon, nonce: int, s: Json) -> str:
    """Begins, or asks the left neighbour to begin, unless a reconfiguration is under way."""
    if s["flags"] & FIRST:
        if nonce not in daemon.leader.attempts:
            daemon.reconfigure(nonce, {"right_anchor": s["right_sub"]["dst"]})
        return "not"
    return daemon.triggers.new_path(nonce)
