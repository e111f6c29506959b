# SPDX-License-Identifier: Apache-2.0
"""The paper's Fig. 15: clients behind a strict firewall and a NAT that have no agents; a flow monitor, two rate limiters
and a server beyond a long line.

client1, client2 - firewall - nat - line - r0 - monitor, limiter1, limiter2, server
"""

from __future__ import annotations

from lab.topologies import Host, Policy, Settings, Topology

PORTS = "5001-5010"
CLIENTS = ("client1", "client2")
PROPORTIONS = {"limiter1": 1.0, "limiter2": 2.5, "client": 4.4}  # the paper's 1, 2.5 and about 4.4 Gbit/s


def build(settings: Settings) -> Topology:
    """Settings: unit (Mbit/s; a client's link has 4.4 of it), dysco, hmac, shaper, congestion.

    What limits, monitors and delays is the experiment's to start: lab/experiments/nat_firewall.py."""
    rate = settings.integer("unit", 10, 1, 10_000) * PROPORTIONS["client"]
    clients = tuple(Host(name, i, rate_mbps=rate, behind="firewall") for i, name in enumerate(CLIENTS, 1))
    server = Host("server", 9)
    boxes = (
        Host("firewall", 3, "firewall", behind="nat", agent=False),
        Host("nat", 4, "nat", behind="line", agent=False),
        Host("line", 8, "router", agent=False),
        Host("monitor", 5, "router"),
        Host("limiter1", 6, "router"),
        Host("limiter2", 7, "router"),
    )
    chains = {"client1": ("monitor",), "client2": ("limiter1", "monitor")}
    return Topology(
        "border",
        (*clients, *boxes, server),
        agents=settings.switch("dysco", True),
        sign=settings.switch("hmac", True),
        shaper=settings.choice("shaper", "htb", ("htb", "tbf")),
        congestion=settings.choice("congestion", "cubic", ("cubic", "bbr", "reno")),
        policies=tuple(
            Policy(name, f"tcp dst portrange {PORTS} and dst host {server.address}", chain) for name, chain in chains.items()
        ),
        settings=settings.used,
    )
