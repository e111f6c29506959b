# SPDX-License-Identifier: Apache-2.0
"""The state that a middlebox keeps for a session moves to the one that takes its place (paper IV-D, ANCS 2017).

The left anchor's daemon leads: while new data waits at both anchors it asks the agent of the one for the state and gives
it to the agent of the other.  Here state is what conntrack keeps that the new path's own handshake does not make again:
the connection mark, which firewalls set by what they have seen in a session.  Other kinds have a class of their own.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from dysco_ns.agent.client import AgentClient, AgentRefused, NoAgent

Json = dict[str, Any]
TIMEOUT_S = 2.0


class NoState(Exception):
    """There is none, or it cannot be put in place; says why."""


def _tuple_of(t: Json) -> NFCTAttrTuple:
    return NFCTAttrTuple(saddr=t["src"], daddr=t["dst"], proto=socket.IPPROTO_TCP, sport=t["sport"], dport=t["dport"])


def export_state(session: Json) -> Json:
    """What conntrack of this namespace knows of a session (fields of struct session).  NoState if it does not know it."""
    with NFCTSocket() as conntrack:
        try:
            found = conntrack.entry("get", tuple_orig=_tuple_of(session["left_tuple"]))
        except NetlinkError as error:
            raise NoState(f"conntrack has no entry for the session here ({error.args[-1]})") from error
    known = {"mark": found[0].get_attr("CTA_MARK") or 0, "labels": found[0].get_attr("CTA_LABELS") or 0}
    return {"conntrack": {name: int(value) for name, value in known.items()}}


def import_state(session: Json, state: Json) -> None:
    """Puts it into the entry that the new path's handshake has made.  NoState if there is none, or it cannot hold that."""
    found = state["conntrack"]
    values = {"mark": int(found["mark"])}
    if labels := int(found.get("labels", 0)):  # a firewall whose rules name none has no room for them
        values |= {"labels": labels}
    with NFCTSocket() as conntrack:
        try:
            conntrack.entry("set", tuple_orig=_tuple_of(session["left_tuple"]), **values)
        except NetlinkError as error:
            if error.code == errno.ENOSPC:
                raise NoState("conntrack here knows no connection labels (no rule uses them)") from error
            raise NoState(f"conntrack has no entry for the session here ({error.args[-1]})") from error


@dataclass(frozen=True)
class Migration:
    """From the middlebox whose agent listens at `source` to the one at `target`."""

    source: str
    target: str

    async def run(self, nonce: int) -> tuple[str, float]:
        """What went wrong ("" if nothing did), and how long it took in microseconds."""
        started = time.monotonic()
        try:
            await asyncio.to_thread(self._move, f"{nonce:016x}")
            problem = ""
        except (AgentRefused, NoAgent, OSError) as error:
            problem = str(error) or "no answer"
        except (ValueError, KeyError, TypeError) as error:
            problem = f"an agent's answer makes no sense: {error!r}"
        return problem, (time.monotonic() - started) * 1e6

    def _move(self, session: str) -> None:
        state = AgentClient(self.source, TIMEOUT_S).request("state_export", session=session)["state"]
        AgentClient(self.target, TIMEOUT_S).request("state_import", session=session, state=state)
