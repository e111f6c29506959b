# SPDX-License-Identifier: Apache-2.0
"""Who must do what so that a session's chain becomes another one.

A reconfiguration is led by the agent left of what changes.  This module follows a session from agent to agent and
finds that agent; it asks nobody to do anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_AGENTS = 10  # two ends, eight middleboxes
Description = dict[str, Any]


class BadChange(Exception):
    """A change that does not fit the session's chain; says why."""


class Network(Protocol):
    def sessions(self, host: str) -> dict[str, Description]: ...

    def host_of(self, address: str) -> str | None: ...

    def address(self, host: str) -> str: ...

    def socket(self, host: str) -> str: ...


@dataclass(frozen=True)
class Place:
    """An agent on a session's chain; `session` is the ID by which it knows what lies to its right."""

    host: str
    address: str
    session: str


@dataclass(frozen=True)
class Step:
    """One reconfiguration, asked of the agent of `host`."""

    host: str
    session: str
    request: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Change:
    """What the user wants: exactly one of remove, replace, insert (with after or before), chain; hosts by name or address."""

    remove: str | None = None
    replace: tuple[str, tuple[str, ...]] | None = None
    insert: tuple[str, ...] = ()
    after: str | None = None
    before: str | None = None
    chain: tuple[str, ...] | None = None
    migrate: bool = False  # with replace, one by one: the state of the first moves to the second


def walk(network: Network, host: str, session: str) -> list[Place]:
    """The agents of a session from left to right, wherever on its chain we begin.  BadChange: it cannot be followed."""
    start = _describe(network, host, session)
    leftward: list[Place] = []
    at, s = host, start
    while len(leftward) < MAX_AGENTS:
        if not s["neighbours"]["left"] and s["spliced_to"]:  # a proxy: its other session lies to the left
            s = _describe(network, at, s["spliced_to"])
        if not s["neighbours"]["left"]:
            break
        at = _host_of(network, s["neighbours"]["left"])
        s = _describe(network, at, s["known_as"]["left"])
        leftward.append(_place(network, at, s))
    rightward = [_place(network, host, start)]
    at, s = host, start
    while len(rightward) < MAX_AGENTS:
        if not s["neighbours"]["right"] and s["spliced_to"]:
            s = _describe(network, at, s["spliced_to"])
            rightward[-1] = _place(network, at, s)
        if not s["neighbours"]["right"]:
            break
        at = _host_of(network, s["neighbours"]["right"])
        s = _describe(network, at, s["known_as"]["right"])
        rightward.append(_place(network, at, s))
    return leftward[::-1] + rightward


def plan(network: Network, chain: Sequence[Place], change: Change, asked: str) -> list[Step]:
    """The steps, in order.  BadChange if the change does not fit; `asked` is the host at which it was asked for."""
    if change.chain is not None:
        return _to_chain(network, chain, change.chain)
    if change.insert:
        place = _index(network, chain, change.before or change.after or asked)
        at = place - 1 if change.before else place
        if not 0 <= at < len(chain) - 1:
            raise BadChange("nothing can be inserted outside the session: the ends of its chain are " + _names(chain))
        _check_new(network, chain, change.insert, ())
        return [Step(chain[at].host, chain[at].session, {"insert": _addresses(network, change.insert)})]
    leaving, new = (change.remove, ()) if change.remove else change.replace or (None, ())
    if leaving is None:
        raise BadChange("say what to change: --remove, --replace, --insert or --chain")
    at = _index(network, chain, leaving)
    if not 0 < at < len(chain) - 1:
        raise BadChange(f"{leaving} is an end of the session, not a middlebox of its chain: {_names(chain)}")
    _check_new(network, chain, new, (chain[at].address,))
    left, address = chain[at - 1], chain[at].address
    request: dict[str, Any] = {"replace": {address: _addresses(network, new)}} if new else {"remove": address}
    if change.migrate:
        request["migrate"] = [network.socket(chain[at].host), network.socket(_host_of(network, _addresses(network, new)[0]))]
    return [Step(left.host, left.session, request)]


def _to_chain(network: Network, chain: Sequence[Place], wanted: Sequence[str]) -> list[Step]:
    """What differs between the two chains changes in one step, or in two if a middlebox would be on both paths."""
    now, target = [p.address for p in chain[1:-1]], _addresses(network, wanted)
    head = 0
    while head < min(len(now), len(target)) and now[head] == target[head]:
        head += 1
    tail = 0
    while tail < min(len(now), len(target)) - head and now[-1 - tail] == target[-1 - tail]:
        tail += 1
    old, new = now[head : len(now) - tail], target[head : len(target) - tail]
    if not old and not new:
        return []
    left, right = chain[head], chain[len(chain) - 1 - tail]

    def step(boxes: list[str]) -> Step:
        return Step(left.host, left.session, {"chain": boxes, "until": right.address})

    return [step([]), step(new)] if set(old) & set(new) else [step(new)]


def _check_new(network: Network, chain: Sequence[Place], new: Sequence[str], leaving: Sequence[str]) -> None:
    there = {p.address for p in chain} - set(leaving)
    for address in _addresses(network, new):
        if address in there:
            raise BadChange(f"{network.host_of(address) or address} is on the chain already: {_names(chain)}")


def _addresses(network: Network, hosts: Sequence[str]) -> list[str]:
    return [network.address(host) for host in hosts]


def _names(chain: Sequence[Place]) -> str:
    return " ".join(p.host for p in chain)


def _index(network: Network, chain: Sequence[Place], host: str) -> int:
    address = network.address(host)
    for i, place in enumerate(chain):
        if address == place.address or host == place.host:
            return i
    raise BadChange(f"{host} is not on the session's chain: {_names(chain)}")


def _describe(network: Network, host: str, session: str) -> Description:
    try:
        return network.sessions(host)[session]
    except KeyError:
        raise BadChange(f"{host} has no session {session}: it may be over") from None


def _host_of(network: Network, address: str) -> str:
    host = network.host_of(address)
    if host is None:
        raise BadChange(f"the agent at {address} cannot be asked from here")
    return host


def _place(network: Network, host: str, s: Description) -> Place:
    return Place(host, network.address(host), s["id"])
