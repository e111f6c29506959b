# SPDX-License-Identifier: Apache-2.0
"""Keeps the next hops of the data path true: neighbours that were unknown when a SYN asked, or have moved."""

from __future__ import annotations

import struct
import socket

from pyroute2 import IPRoute

from dysco_ns.agent.core import Core

MAX_NEXT_HOPS = 1024


def _neighbours(ip: IPRoute) -> dict[tuple[int, str], bytes]:
    table = {}
    for n in ip.get_neighbours(family=socket.AF_INET):
        mac = n.get_attr("NDA_LLADDR")
        if mac:
            table[(n["ifindex"], n.get_attr("NDA_DST"))] = bytes.fromhex(mac.replace(":", ""))
    return table


def _via(ip: IPRoute, address: str) -> str:
    routes = ip.route("get", dst=address)
    return str(routes[0].get_attr("RTA_GATEWAY") or address) if routes else address


def refresh(core: Core) -> None:
    """Writes the neighbours that the kernel knows now into the next hops in use."""
    raw = core.programs.map("next_hop_count").raw(bytes(4), 4)
    used = struct.unpack("<I", raw)[0] if raw else 0
    table = core.programs.map("next_hop_table")
    stale = []
    for index in range(1, min(used, MAX_NEXT_HOPS - 1) + 1):
        hop = table.get(index)
        if hop and hop["ifindex"]:
            stale.append((index, hop))
    if not stale:
        return
    with IPRoute() as ip:
        known = _neighbours(ip)
        for index, hop in stale:
            mac = known.get((hop["ifindex"], _via(ip, hop["address"])))
            source = next((i.mac for i in core.interfaces if i.index == hop["ifindex"]), None)
            if mac and source and (mac != hop["destination"] or not hop["resolved"]):
                table.put(index, {**hop, "destination": mac, "source": source, "resolved": 1})
