# SPDX-License-Identifier: Apache-2.0
"""Keeps the next hops of the data path true: interface, neighbour and our address towards each host that it sends to.

The core adds a next hop when a SYN asks for one, as well as it can from inside the kernel; the daemon knows routes and
neighbours, adds those of its policies beforehand and corrects all of them once a second.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from dysco_ns.agent.core import Core

FIRST_OF_DAEMON, END_OF_DAEMON = 512, 1024
SHARED = FIRST_OF_DAEMON - 8  # SHARED_NEXT_HOPS: below it those of one neighbour each
DISCARD_PORT = 9
ANY = "0.0.0.0"
READY_TRIES, READY_S = 50, 0.01


@dataclass(frozen=True)
class Route:
    ifindex: int
    via: str
    source: str


class Hops:
    """The next-hop tables of one agent."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._table = core.programs.map("next_hop_table")
        self._index = core.programs.map("next_hop_index")
        self._next = FIRST_OF_DAEMON

    def prepare(self, addresses: Iterable[str], source: str | None = None) -> None:
        """Adds next hops before a SYN asks for them, and makes the kernel look for the neighbours.  `source`: the address
        of this host that is to be used towards them."""
        with IPRoute() as ip:
            for address in addresses:
                key = {"address": address, "from": source or ANY}
                if self._index.get(key) is not None or self._next >= END_OF_DAEMON:
                    continue
                route = _route(ip, address, source)
                if not route or route.ifindex not in {i.index for i in self._core.interfaces}:
                    continue
                _ask_for(route)
                self._table.put(self._next, self._hop(address, route, _neighbours(ip), source is not None))
                self._index.put(key, self._next)
                self._next += 1

    def ready(self, addresses: Collection[str], source: str) -> None:
        """The same, and waits a little until the neighbours are known: who is not will be found by the kernel."""
        self.prepare(addresses, source)
        for _ in range(READY_TRIES):
            self.refresh()
            hops = [self._index.get({"address": address, "from": source}) for address in addresses]
            if all(hop is None or (self._table.get(hop) or {}).get("resolved") for hop in hops):
                return
            time.sleep(READY_S)

    def refresh(self) -> None:
        """Writes what the kernel knows now over what is in use."""
        raw = self._core.programs.map("next_hop_count").raw(bytes(4), 4)
        used = struct.unpack("<I", raw)[0] if raw else 0
        indices = [*range(1, min(used, SHARED - 1) + 1), *range(FIRST_OF_DAEMON, self._next)]
        if not indices:
            return
        with IPRoute() as ip:
            known = _neighbours(ip)
            for index in indices:
                hop = self._table.get(index)
                route = _route(ip, hop["address"], hop["from"] if hop["bound"] else None) if hop and hop["ifindex"] else None
                if not hop or not route:
                    continue
                fresh = self._hop(hop["address"], route, known, hop["bound"])
                if fresh["resolved"] and fresh != hop:
                    self._table.put(index, fresh)

    def _hop(self, address: str, route: Route, known: dict[tuple[int, str], bytes], bound: bool) -> dict[str, Any]:
        mac = known.get((route.ifindex, route.via))
        own = next((i.mac for i in self._core.interfaces if i.index == route.ifindex), bytes(6))
        return {
            "address": address,
            "ifindex": route.ifindex,
            "destination": mac or bytes(6),
            "source": own,
            "resolved": int(mac is not None),
            "from": route.source,
            "bound": int(bound),
        }


def _neighbours(ip: IPRoute) -> dict[tuple[int, str], bytes]:
    table = {}
    for n in ip.get_neighbours(family=socket.AF_INET):
        mac = n.get_attr("NDA_LLADDR")
        if mac:
            table[(n["ifindex"], n.get_attr("NDA_DST"))] = bytes.fromhex(mac.replace(":", ""))
    return table


def _route(ip: IPRoute, address: str, source: str | None = None) -> Route | None:
    try:
        routes = ip.route("get", dst=address, **({"src": source} if source else {}))
    except Exception:  # pyroute2 has one exception for "no route" and another for the rest
        return None
    if not routes:
        return None
    r = routes[0]
    return Route(r.get_attr("RTA_OIF"), r.get_attr("RTA_GATEWAY") or address, source or r.get_attr("RTA_PREFSRC") or ANY)


def _ask_for(route: Route) -> None:
    """An empty datagram to the discard port makes the kernel resolve the neighbour."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        try:
            s.bind((route.source, 0))
            s.sendto(b"", (route.via, DISCARD_PORT))
        except OSError:
            return
