# SPDX-License-Identifier: Apache-2.0
"""The paper's Fig. 12: client-server pairs that talk through one TCP-terminating proxy."""

from __future__ import annotations

from lab.topologies import Host, Policy, Settings, Topology

PROXY = "proxy"


def proxy_port(pair: int) -> int:
    """Where the proxy listens for client `pair` (1..)."""
    return 8000 + pair


def server_port(pair: int) -> int:
    return 9000 + pair


def build(settings: Settings) -> Topology:
    """Settings: pairs 1..8, proxy_mbps and direct_mbps (each direction of a link), dysco, hmac, shaper, congestion."""
    pairs = settings.integer("pairs", 4, 1, 8)
    proxy_mbps, direct_mbps = settings.rate("proxy_mbps", 120), settings.rate("direct_mbps", 60)
    proxy = Host(PROXY, 0, rate_mbps=proxy_mbps)
    clients = tuple(Host(f"client{i}", i, rate_mbps=direct_mbps) for i in range(1, pairs + 1))
    servers = tuple(Host(f"server{i}", 10 + i, rate_mbps=direct_mbps) for i in range(1, pairs + 1))
    inward = tuple(Policy(c.name, f"tcp dst port {proxy_port(i)} and dst host {proxy.address}") for i, c in enumerate(clients, 1))
    outward = tuple(Policy(PROXY, f"tcp dst port {server_port(i)}") for i in range(1, pairs + 1))
    return Topology(
        "proxy",
        (*clients, proxy, *servers),
        agents=settings.switch("dysco", True),
        sign=settings.switch("hmac", True),
        shaper=settings.choice("shaper", "htb", ("htb", "tbf")),
        congestion=settings.choice("congestion", "cubic", ("cubic", "bbr", "reno")),
        policies=inward + outward,
        settings=settings.used,
    )
