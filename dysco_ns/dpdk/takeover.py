# SPDX-License-Identifier: Apache-2.0
"""Puts a DPDK data path between an interface and the kernel of its namespace, and takes it away again.

The interface becomes the wire side: its addresses and routes move to a tap device that DPDK has made, which also gets its
Ethernet address.  The kernel sees the frames of the wire as well; that it does nothing about them, the wire side has no
address of IPv4, does not speak ARP, and has another Ethernet address than what the frames are sent to.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyroute2 import IPRoute

from dysco_ns.netns import Interface

IFF_NOARP = 0x80
KERNEL_PROTOCOL = 2  # routes that come and go with an address
MOST = 8  # pairs of ports that dysco-dpdk has room for
OTHER_BIT = 0x40  # of the first byte of an Ethernet address: no vendor's, not a group's
NOTHING: dict[str, Any] = {"addresses": [], "routes": []}
ROUTE_FIELDS = ("RTA_DST", "RTA_GATEWAY", "RTA_PREFSRC", "RTA_PRIORITY", "RTA_TABLE")


@dataclass(frozen=True)
class Pair:
    """An interface and the tap that stands for it."""

    wire: str
    tap: str
    mac: str

    @property
    def wire_device(self) -> str:
        """Frames pass the interface's queueing discipline, as the kernel's do: links are shaped there, captures see them."""
        return f"net_af_packet{self.tap.removeprefix('dysco')},iface={self.wire},framecnt=1024,qdisc_bypass=0"

    @property
    def host_device(self) -> str:
        return f"net_tap{self.tap.removeprefix('dysco')},iface={self.tap},mac={self.mac}"

    @property
    def devices(self) -> list[str]:
        """What dysco-dpdk is told when it starts."""
        return ["--wire", self.wire_device, "--host", self.host_device]

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def pairs_for(interfaces: Sequence[Interface], first: int = 0) -> list[Pair]:
    """One for each interface that has an address; their numbers begin at `first`."""
    found = {i.name: i for i in interfaces}
    names = taps(first + len(found))[first:]
    return [Pair(name, tap, i.mac.hex(":")) for tap, (name, i) in zip(names, found.items(), strict=True)]


def taps(count: int) -> list[str]:
    """Names of the devices that stand for the first so many interfaces."""
    return [f"dysco{number}" for number in range(count)]


def _index(ip: Any, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise OSError(19, f"interface {name} has gone")
    return int(found[0])


def _settings(ip: Any, index: int) -> dict[str, Any]:
    """Addresses of an interface, and the routes over it that were set by hand or by a daemon."""
    addresses = [(a.get_attr("IFA_LOCAL"), a["prefixlen"]) for a in ip.get_addr(family=socket.AF_INET, index=index)]
    routes = []
    for r in ip.get_routes(family=socket.AF_INET, oif=index):
        if r["proto"] == KERNEL_PROTOCOL:
            continue
        route = {name.removeprefix("RTA_").lower(): r.get_attr(name) for name in ROUTE_FIELDS if r.get_attr(name) is not None}
        route["dst"] = f"{route['dst']}/{r['dst_len']}" if "dst" in route else "default"
        routes.append(route)
    return {"addresses": addresses, "routes": routes}


def _apply(ip: Any, settings: dict[str, Any], index: int) -> None:
    for address, length in settings["addresses"]:
        ip.addr("add", index=index, address=address, prefixlen=length)
    for route in settings["routes"]:
        ip.route("replace", oif=index, **route)


def _strip(ip: Any, settings: dict[str, Any], index: int) -> None:
    for address, length in settings["addresses"]:
        ip.addr("del", index=index, address=address, prefixlen=length)


def _other(mac: str) -> str:
    data = bytearray.fromhex(mac.replace(":", ""))
    data[0] ^= OTHER_BIT
    return data.hex(":")


def take(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The taps are there: from here on the kernel talks to them.  Returns what each wire side had."""
    had = []
    with IPRoute() as ip:
        for pair in pairs:
            wire, tap = _index(ip, pair.wire), _index(ip, pair.tap)
            mtu = ip.get_links(wire)[0].get_attr("IFLA_MTU")
            ip.link("set", index=tap, mtu=mtu, state="up")
            settings = _settings(ip, wire)
            _strip(ip, settings, wire)
            _apply(ip, settings, tap)
            ip.link("set", index=wire, flags=IFF_NOARP, change=IFF_NOARP)
            ip.link("set", index=wire, address=_other(pair.mac))
            had.append(settings)
    return had


def give_back(pairs: Sequence[Pair], had: Sequence[dict[str, Any]]) -> None:
    """The wire sides are as the taps are now, or, if these have gone, as they were."""
    with IPRoute() as ip:
        for pair, before in zip(pairs, [*had, *[NOTHING] * (len(pairs) - len(had))], strict=True):
            wire, tap = _index(ip, pair.wire), ip.link_lookup(ifname=pair.tap)
            ip.link("set", index=wire, address=pair.mac)
            ip.link("set", index=wire, flags=0, change=IFF_NOARP)
            settings = _settings(ip, int(tap[0])) if tap else before
            if tap:
                _strip(ip, settings, int(tap[0]))
            if not _settings(ip, wire)["addresses"]:
                _apply(ip, settings, wire)
