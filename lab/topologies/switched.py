# SPDX-License-Identifier: Apache-2.0
"""client, mb1..mbN, server at three switches in a line, which route: the client is at the first, the middleboxes are at the
second, the server is at the third.

Who steers is the experiment's to say (lab/steering.py): rules of the switches, or Dysco over plain forwarding.
"""

from __future__ import annotations

from lab.topologies import Host, Policy, Settings, Switch, Topology

FIRST_PORT, PORTS_MASK = 5000, 0xFFF8  # one rule matches them all
PORTS = f"{FIRST_PORT}-{FIRST_PORT + 0xFFFF - PORTS_MASK}"
CLIENT, SERVER = "client", "server"


def build(settings: Settings) -> Topology:
    """Settings: middleboxes 1..8, dysco, hmac, rate (Mbit/s or none), shaper, congestion."""
    count, rate = settings.integer("middleboxes", 4, 1, 8), settings.rate("rate", None)
    boxes = tuple(Host(f"mb{i}", i, "router", rate) for i in range(1, count + 1))
    client, server = Host(CLIENT, 0, rate_mbps=rate), Host(SERVER, count + 1, rate_mbps=rate)
    names = tuple(box.name for box in boxes)
    return Topology(
        "switched",
        (client, *boxes, server),
        agents=settings.switch("dysco", True),
        sign=settings.switch("hmac", False),
        shaper=settings.choice("shaper", "htb", ("htb", "tbf")),
        congestion=settings.choice("congestion", "cubic", ("cubic", "bbr", "reno")),
        policies=(Policy(CLIENT, f"tcp dst portrange {PORTS} and dst host {server.address}", names),),
        switches=(Switch("s1", (CLIENT,)), Switch("s2", names), Switch("s3", (SERVER,))),
        settings=settings.used,
    )
