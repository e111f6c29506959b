# SPDX-License-Identifier: Apache-2.0
"""client, mb1..mbN, server: plain routing passes only the router, Dysco steers through the middleboxes.

With edges=on client and server have no agents: they are behind edge1 and edge2, which begin and end the chain; with
edges=left or right only one of them.  With gate=nat (or on) or gate=firewall the client is behind a NAT or a strict
firewall that has no agent.
With backend=dpdk the agents are DPDK processes, with backend=mixed those of every other host.
"""

from __future__ import annotations

from dataclasses import replace

from lab.topologies import BadSetting, Host, Policy, Settings, Topology

PORTS = "5001-5010"
KINDS = ("router", "firewall", "nat")
EDGES = ("off", "on", "left", "right")
GATES = {"off": "", "on": "nat", "nat": "nat", "firewall": "firewall"}
BACKENDS = ("ebpf", "dpdk", "mixed")


def build(settings: Settings) -> Topology:
    """Settings: middleboxes 0..8, initial (the first so many are on the chain of new sessions; default all), kind,
    edges, gate, backend, workers (cores of a DPDK agent), dysco, hmac, rate (Mbit/s or none), shaper, congestion.

    Without agents the router sends the same traffic through the same middleboxes by static rules.
    """
    count = settings.integer("middleboxes", 1, 0, 8)
    initial = settings.integer("initial", count, 0, count)
    kind = settings.choice("kind", "router", KINDS)
    rate = settings.rate("rate", None)
    agents = settings.switch("dysco", True)
    boxes = tuple(Host(f"mb{i}", i, kind, rate) for i in range(1, count + 1))
    edges = settings.choice("edges", "off", EDGES)
    client, server = Host("client", 0, rate_mbps=rate), Host("server", count + 1, rate_mbps=rate)
    starts, ends = "client", ""
    if edges in ("on", "left"):
        client, starts = replace(client, behind="edge1", agent=False), "edge1"
        boxes += (Host("edge1", count + 2, "router", rate),)
    if edges in ("on", "right"):
        server, ends = replace(server, behind="edge2", agent=False), "edge2"
        boxes += (Host("edge2", count + 3, "router", rate),)
    gate = GATES[settings.choice("gate", "off", tuple(GATES))]
    if gate:
        if starts == "edge1":
            raise BadSetting(f"topology chain: the client is behind an edge or a gate, not both: edges={edges}, gate={gate}")
        client = replace(client, behind="gate")
        boxes += (Host("gate", count + 4, gate, rate, agent=False),)
    backend = settings.choice("backend", "ebpf", BACKENDS)
    workers = settings.integer("workers", 1, 1, 16)
    names = tuple(box.name for box in boxes[:initial])
    return Topology(
        "chain",
        tuple(_with_backend(host, backend, workers) for host in (client, *boxes, server)),
        agents=agents,
        sign=settings.switch("hmac", False),
        shaper=settings.choice("shaper", "htb", ("htb", "tbf")),
        congestion=settings.choice("congestion", "cubic", ("cubic", "bbr", "reno")),
        policies=(Policy(starts, f"tcp dst portrange {PORTS} and dst host {server.address}", names, ends),),
        steer=() if agents else names,
        settings=settings.used,
    )


def _with_backend(host: Host, backend: str, workers: int) -> Host:
    dpdk = backend == "dpdk" or (backend == "mixed" and host.index % 2 == 1)
    return replace(host, backend="dpdk", workers=workers) if dpdk and host.agent else host
