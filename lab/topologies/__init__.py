# SPDX-License-Identifier: Apache-2.0
"""Topologies as data: what network.py makes real.  Each is a star of subnets around one router, or of switches that are it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

ROUTER = "r0"
GATEWAY_MAC = "02:00:0a:00:00:01"  # of the router, where switches are it


class BadSetting(Exception):
    """A setting that a topology or experiment does not have, or a value that it cannot take."""


@dataclass(frozen=True)
class Policy:
    """A policy that the lab installs: at a host, a pcap-filter predicate, the middleboxes by name."""

    at: str
    filter: str
    chain: tuple[str, ...] = ()
    ends_at: str = ""  # the edge that ends the chain for a server without an agent


@dataclass(frozen=True)
class Host:
    """A host in a subnet of its own, 10.0.<index>.0/24: it is .2, the router .1."""

    name: str
    index: int
    kind: str = "host"  # host, router, firewall, nat
    rate_mbps: float | None = None  # of its link, each direction
    behind: str = ROUTER  # the router or the edge that its link leads to
    agent: bool = True
    backend: str = "ebpf"  # of its agent
    workers: int = 1  # dpdk: cores of its agent
    placed: str = ""  # its address, where it is not ours to choose: on a testbed

    @property
    def address(self) -> str:
        return self.placed or f"10.0.{self.index}.2"

    @property
    def gateway(self) -> str:
        return f"10.0.{self.index}.1"

    @property
    def mac(self) -> str:
        """Of its link, where it is on a switch."""
        return f"02:00:0a:00:{self.index:02x}:02"


@dataclass(frozen=True)
class Switch:
    """An Open vSwitch bridge with its hosts; it is linked to the next one of the topology."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Topology:
    name: str
    hosts: tuple[Host, ...]
    agents: bool = True
    sign: bool = False
    shaper: str = "htb"
    congestion: str = "cubic"
    policies: tuple[Policy, ...] = ()
    steer: tuple[str, ...] = ()  # without agents: the router sends traffic through these, by static rules
    switches: tuple[Switch, ...] = ()  # in a line: together they are the router
    settings: dict[str, str] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise BadSetting(f"unknown host '{name}': one of {', '.join(h.name for h in self.hosts)}")

    @property
    def names(self) -> dict[str, str]:
        return {host.name: host.address for host in self.hosts}


BACKENDS = ("ebpf", "dpdk", "mixed")


def on_backend(host: Host, backend: str, workers: int = 1) -> Host:
    """The host with its agent on this backend; "mixed": every other host has DPDK."""
    dpdk = backend == "dpdk" or (backend == "mixed" and host.index % 2 == 1)
    return replace(host, backend="dpdk", workers=workers) if dpdk and host.agent else host


class Settings:
    """key=value settings with defaults; every read is checked, what is left over is an error."""

    def __init__(self, given: dict[str, str], where: str, also: tuple[str, ...] = ()) -> None:
        """`also`: settings that exist but were read elsewhere, for the message about one that does not."""
        self._given, self._where, self._also = dict(given), where, also
        self.used: dict[str, str] = {}

    def _take(self, key: str, default: str) -> str:
        self.used[key] = self._given.pop(key, default)
        return self.used[key]

    def _number(self, key: str, text: str, kind: Callable[[str], float], low: float, high: float) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise BadSetting(f"{self._where}: {key}={text} is not a number from {low:g} to {high:g}")
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        return int(self._number(key, self._take(key, str(default)), int, low, high))

    def rate(self, key: str, default: float | None) -> float | None:
        """Mbit/s, or None for a link without a limit."""
        text = self._take(key, "none" if default is None else f"{default:g}")
        return None if text == "none" else self._number(key, text, float, 0.1, 100000)

    def choice(self, key: str, default: str, among: tuple[str, ...]) -> str:
        text = self._take(key, default)
        if text not in among:
            raise BadSetting(f"{self._where}: {key}={text}: use one of {', '.join(among)}")
        return text

    def switch(self, key: str, default: bool) -> bool:
        return self.choice(key, "on" if default else "off", ("on", "off")) == "on"

    def topology(self, name: str, **fixed: object) -> Topology:
        """The topology that takes all settings not read so far; `fixed` ones are not the user's to set."""
        given, self._given = self._given, {}
        for key in fixed.keys() & given.keys():
            raise BadSetting(f"{self._where}: {key} is {fixed[key]} here and cannot be set")
        topology = build(name, given | {key: str(value) for key, value in fixed.items()}, tuple(self.used))
        self.used |= topology.settings
        return topology

    def finish(self) -> None:
        if self._given:
            unknown, known = next(iter(self._given)), ", ".join((*self._also, *self.used)) or "none"
            raise BadSetting(f"{self._where} has no setting '{unknown}': it has {known}")


def build(name: str, given: dict[str, str], also: tuple[str, ...] = ()) -> Topology:
    """The topology of that name with these settings.  BadSetting names what exists, `also` other settings."""
    from lab.topologies import border, chain, proxy, shared, switched

    builders = {
        "chain": chain.build, "proxy": proxy.build, "border": border.build, "shared": shared.build, "switched": switched.build,
    }  # fmt: skip
    if name not in builders:
        raise BadSetting(f"unknown topology '{name}': one of {', '.join(builders)}")
    settings = Settings(given, f"topology {name}", also)
    topology = builders[name](settings)
    settings.finish()
    return topology


DESCRIPTIONS = {
    "chain": "client, mb1..mbN, server behind one router: a service chain of 0 to 8 middleboxes",
    "proxy": "client1..4, server1..4, one TCP-terminating proxy, one router (the paper's Fig. 12)",
    "border": "client1, client2 behind firewall and nat without agents; monitor, limiter1, limiter2, server (Fig. 15)",
    "shared": "client1..N whose sessions to one server share mb1..mbK; a scrubber that no chain has yet",
    "switched": "client, mb1..mbN, server on three Open vSwitch switches in a line, which together are the router",
}
