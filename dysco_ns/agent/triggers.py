# SPDX-License-Identifier: Apache-2.0
"""Triggers: what a middlebox, or a host that moves, asks of its left neighbour (paper II-B).

The message may get lost, so it is repeated, as the same transaction: the neighbour acts on it once.  It has acted when a
transaction that is newer has come here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from dysco_ns.agent.core import Core
from dysco_ns.agent.leader import CONTROL_RIGHT_OF
from dysco_ns.agent.view import LEFT_CHAIN

FIRST_REPEAT_S, REPEATS = 0.1, 6  # the pause doubles: six seconds in all


@dataclass(frozen=True)
class Asked:
    nonce: int
    txid: int
    flags: int


class Triggers:
    """The triggers of one agent."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def take_out(self, nonce: int) -> str:
        """Asks for a path without this middlebox.  "not", or why it cannot be asked."""
        return self._ask(nonce, CONTROL_RIGHT_OF)

    def new_path(self, nonce: int) -> str:
        """Asks for a new path to this host."""
        return self._ask(nonce, 0)

    def _ask(self, nonce: int, flags: int) -> str:
        asked = Asked(nonce, self._core.new_txid(nonce), flags)
        reason = self._core.command("trigger", nonce=nonce, txid=asked.txid, flags=flags)
        if reason == "not":
            asyncio.get_running_loop().call_later(FIRST_REPEAT_S, self._again, asked, FIRST_REPEAT_S, REPEATS)
        return reason

    def _again(self, asked: Asked, pause_s: float, left: int) -> None:
        s = self._core.session(asked.nonce)
        if not left or not s or heard(s, asked.txid):
            return
        if self._core.command("trigger", nonce=asked.nonce, txid=asked.txid, flags=asked.flags) == "not":
            asyncio.get_running_loop().call_later(2 * pause_s, self._again, asked, 2 * pause_s, left - 1)


def heard(s: dict[str, Any], txid: int) -> bool:
    """Whether the neighbour has acted: a newer transaction has come, or all is over."""
    return bool(s["over_ns"] or s["flags"] & LEFT_CHAIN or s["newest"] != txid)
