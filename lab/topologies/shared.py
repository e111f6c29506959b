# SPDX-License-Identifier: Apache-2.0
"""Several clients whose sessions to one server share middleboxes: what a policy server changes for all of them at once.

The scrubber, a strict firewall, is on no chain to begin with.
"""

from __future__ import annotations

from lab.topologies import Host, Policy, Settings, Topology

PORTS = "5001-5020"


def build(settings: Settings) -> Topology:
    """Settings: clients 1..8, middleboxes 1..8, initial (the first so many are on the chain of new sessions), kind, rate
    (Mbit/s of each client's link, or none), dysco, hmac, shaper, congestion."""
    count = settings.integer("middleboxes", 2, 1, 8)
    initial = settings.integer("initial", 1, 0, count)
    kind, rate = settings.choice("kind", "firewall", ("router", "firewall", "nat")), settings.rate("rate", 40)
    clients = tuple(Host(f"client{i}", i, rate_mbps=rate) for i in range(1, settings.integer("clients", 4, 1, 8) + 1))
    boxes = tuple(Host(f"mb{i}", 10 + i, kind) for i in range(1, count + 1))
    scrubber, server = Host("scrubber", 20, "firewall"), Host("server", 21)
    names = tuple(box.name for box in boxes[:initial])
    return Topology(
        "shared",
        (*clients, *boxes, scrubber, server),
        agents=settings.switch("dysco", True),
        sign=settings.switch("hmac", True),
        shaper=settings.choice("shaper", "htb", ("htb", "tbf")),
        congestion=settings.choice("congestion", "cubic", ("cubic", "bbr", "reno")),
        policies=tuple(Policy(c.name, f"tcp dst portrange {PORTS} and dst host {server.address}", names) for c in clients),
        settings=settings.used,
    )
