# SPDX-License-Identifier: Apache-2.0
"""The load of proxy-removal: all sessions of all pairs from their start to their end, and the removals meanwhile."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.collect import collecting
from lab.experiments.framework.recorder import Recorder
from lab.faults import CONTROL, rule
from lab.measure import Sampler, cpu_ticks, interface_packets, tcp_counters, with_children
from lab.network import Lab, LabFailed, end, wait_for, wait_until
from lab.tools import bulk, echo
from lab.topologies import ROUTER, Topology
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.box import ProcessBox
from middleboxes.control import Leaves
from middleboxes.haproxy import HAProxy
from middleboxes.nginx import Nginx
from middleboxes.tcp_proxy import TcpProxy

DRAIN_TIMEOUT_S = 20.0
ACCEPT_TIMEOUT_S = 10.0
ECHO_PORTS = (7001, 7002)  # at the proxy, at server1: one more session of pair 1, for the round trip
ECHO_EVERY_MS = 20
THROTTLES = {"off": None, "zero": 0, "16k": 16384}  # bytes of window offered while an old path lives


@dataclass(frozen=True)
class Plan:
    """When what happens, in seconds; how many sessions in each pair."""

    topology: Topology
    pairs: int
    sessions: int
    removals: tuple[float, ...]
    seconds: float
    interval_s: float
    trigger: str  # proxy: it asks to leave; client: it only joins, the client's agent is told
    proxy: str  # tcp_proxy, nginx, haproxy
    throttle: str  # one of THROTTLES
    loss_pct: int  # of control messages, at the router, while the sessions live

    @property
    def total(self) -> int:
        return self.pairs * self.sessions


@dataclass(frozen=True)
class Seen:
    """What the load has left: facts for the manifest, samples of the proxy, and reports and events in a folder."""

    facts: dict[str, Any]
    proxy: list[tuple[float, dict[str, float]]]


def carry(lab: Lab, plan: Plan, record: Recorder, raw: Path) -> Seen:
    """The whole load; files go to `raw`.  Time zero is when the clients start."""
    topology = plan.topology
    with ExitStack() as stack:
        proxy = _proxy(plan, raw)
        servers = [_server(lab, plan, raw, pair, stack) for pair in range(1, plan.pairs + 1)]
        stack.enter_context(lab.service("server1", echo.server_command(ECHO_PORTS[1])))
        stack.enter_context(lab.box(PROXY, proxy))
        collector = stack.enter_context(collecting(lab, raw))
        _tune(lab, plan)
        before = _tcp(lab)
        sampler = Sampler(plan.interval_s, _probe(proxy, lab.pid(PROXY)))
        sampler.start()
        zero = record.zero()
        asking = _echo(lab, plan, raw)
        clients = [_client(lab, plan, record, raw, pair) for pair in range(1, plan.pairs + 1)]
        for client in clients:
            wait_for(client, "connected")
        with suppress(LabFailed):  # connected is what the kernel has taken: the proxy may be behind
            wait_until(lambda: proxy.counters().get("open", plan.total + 1) > plan.total, ACCEPT_TIMEOUT_S, "all accepted")
        with _losing(lab, plan.loss_pct):
            removals, echo_session = _remove_pairs(lab, plan, proxy, zero, record)
            _wait_for_end(clients, plan, zero, record)
            record.progress(0.97, "draining")
            for client in (*clients, asking):
                client.wait(DRAIN_TIMEOUT_S + 30)
        if topology.agents:
            with suppress(LabFailed):  # the summary counts what is missing
                wait_until(lambda: len(collector.ended()) > plan.total, 3.0, "reconfigurations reported")
        time.sleep(0.3)
        rows = sampler.finish()
        sockets = lab.run(PROXY, ["ss", "-Htan", "state", "connected", "exclude", "time-wait"]).splitlines()
        _write_counters(lab, raw, before)
        for server in servers:
            end(server)
    facts = {
        "topology": topology.name, "dysco": topology.agents, "removals_s": plan.removals, "load_s": plan.seconds,
        "zero_ns": int(zero * 1e9), "removals": removals, "proxy_sockets_after": len(sockets), "echo_session": echo_session,
    }  # fmt: skip
    return Seen(facts, rows)


def _tcp(lab: Lab) -> dict[str, dict[str, int]]:
    return {name: tcp_counters(lab.pid(name)) for name in lab.topology.names}


def _write_counters(lab: Lab, raw: Path, before: dict[str, dict[str, int]]) -> None:
    (raw / "tcp.json").write_text(json.dumps({"before": before, "after": _tcp(lab)}))
    (raw / "agents.json").write_text(json.dumps({n: lab.agent(n).request("stats")["counters"] for n in lab.state.agents}))


def _proxy(plan: Plan, raw: Path) -> TcpProxy | Nginx | HAProxy:
    topology = plan.topology
    routes = {proxy_port(i): (topology.host(f"server{i}").address, server_port(i)) for i in range(1, plan.pairs + 1)}
    routes[ECHO_PORTS[0]] = (topology.host("server1").address, ECHO_PORTS[1])
    if plan.proxy == "tcp_proxy":
        return TcpProxy(routes, raw / "proxy.sock", "command" if topology.agents else "never", topology.congestion)
    relays, when = {port: [to] for port, to in routes.items()}, "command" if topology.agents else "none"
    return Nginx(raw, stream=relays, leave_when=when) if plan.proxy == "nginx" else HAProxy(raw, tcp=relays, leave_when=when)


def _tune(lab: Lab, plan: Plan) -> None:
    """What the agents are to know besides the topology's policies: the session for round trips, the throttle."""
    if lab.state.agents:
        for host, port in zip(("client1", PROXY), ECHO_PORTS, strict=True):
            lab.agent(host).request("policy_add", filter=f"tcp dst port {port}", chain=[])
    for host in lab.state.agents:
        lab.agent(host).request("tune", throttle=THROTTLES[plan.throttle])


def _probe(proxy: ProcessBox, namespace: int) -> Any:
    assert proxy.process
    processes = with_children(proxy.process.pid)

    def probe(_: float) -> dict[str, float]:
        received, sent = interface_packets(namespace, "eth0")
        return {"cpu_ticks": sum(map(cpu_ticks, processes)), "received": received, "sent": sent}

    return probe


def _server(lab: Lab, plan: Plan, raw: Path, pair: int, stack: ExitStack) -> Any:
    address = plan.topology.host(f"server{pair}").address
    command = bulk.server_command(address, server_port(pair), raw / f"server{pair}.jsonl", int(plan.interval_s * 1000))
    return stack.enter_context(lab.service(f"server{pair}", [*command, "--congestion", plan.topology.congestion]))


def _client(lab: Lab, plan: Plan, record: Recorder, raw: Path, pair: int) -> Any:
    command = bulk.client_command(
        plan.topology.host(PROXY).address, proxy_port(pair), raw / f"client{pair}.jsonl", sessions=plan.sessions,
        seconds=plan.seconds, interval_ms=int(plan.interval_s * 1000), base=pair * 10000, seed=record.seed,
    )  # fmt: skip
    command += ["--congestion", plan.topology.congestion]
    return lab.popen(f"client{pair}", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _echo(lab: Lab, plan: Plan, raw: Path) -> Any:
    """Short messages among the load of pair 1, until shortly before its end."""
    address, seconds = plan.topology.host(PROXY).address, plan.seconds - 1
    command = echo.client_command(address, ECHO_PORTS[0], seconds, ECHO_EVERY_MS, raw / "echo.txt")
    return lab.popen("client1", command, stderr=subprocess.DEVNULL)


@contextmanager
def _losing(lab: Lab, loss_pct: int) -> Iterator[None]:
    """The router loses so many of a hundred control messages, at random."""
    if not loss_pct:
        yield
        return
    sometimes = ["-m", "statistic", "--mode", "random", "--probability", f"{loss_pct / 100:g}"]
    with rule(lab, ROUTER, "PREROUTING", [*CONTROL, *sometimes, "-j", "DROP"], "raw"):
        yield


def _remove_pairs(
    lab: Lab, plan: Plan, proxy: Leaves, zero: float, record: Recorder
) -> tuple[list[dict[str, Any]], str]:
    """What the proxy has said of each pair, and the ID of the session for round trips."""
    removals, echo_session = [], ""
    for pair, at in enumerate(plan.removals, 1):
        now = time.monotonic() - zero
        record.sleep(max(at - now, 0), f"{pair - 1} of {plan.pairs} pairs without the proxy", zero, plan.seconds)
        if not plan.topology.agents:
            continue
        if pair == 1:
            echo_session = _session(lab, ECHO_PORTS[0])
        started = time.monotonic() - zero
        reply = proxy.leave(proxy_port(pair), join_only=plan.trigger == "client")
        if pair == 1:
            proxy.leave(ECHO_PORTS[0], join_only=plan.trigger == "client")
        if plan.trigger == "client":
            lab.agent(f"client{pair}").request("reconfigure", all=True, remove=PROXY, wait=False)
        removals.append({"pair": pair, "at_s": started, **reply})
    return removals, echo_session


def _session(lab: Lab, port: int) -> str:
    """The ID of the session of client1 with that port; empty if there is none."""
    found = lab.agent("client1").request("sessions")["sessions"]
    return next((str(s["id"]) for s in found if s["tuple"].endswith(f":{port}")), "")


def _wait_for_end(clients: list[Any], plan: Plan, zero: float, record: Recorder) -> None:
    while time.monotonic() - zero < plan.seconds and any(c.poll() is None for c in clients):
        record.sleep(0.1, "all pairs without the proxy", zero, plan.seconds)
