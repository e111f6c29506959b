# SPDX-License-Identifier: Apache-2.0
"""Makes a topology real: Mininet hosts, veth links, routes, shapers, agents, policies.

Mininet's Node gives each host its namespace and shell.  The Mininet class itself is not used: its start would raise
sysctls of the root namespace, its switches would live there.  Links are made directly between the hosts' namespaces, so
that the root namespace never sees an interface.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dysco_ns import netns
from dysco_ns.agent.client import AgentClient
from lab import shaping, state
from lab.switches import Switches
from lab.tool import run
from lab.topologies import GATEWAY_MAC, ROUTER, Host, Topology
from middleboxes.box import BoxFailed, Middlebox
from middleboxes.iptables import Firewall, Nat

KEY_FILE = state.RUN / "lab.key"
SWITCHES = state.RUN / "switches"
READY_TIMEOUT_S = 10.0

SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.tcp_timestamps": "1",
    "net.ipv4.tcp_sack": "1",
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "4096",
    "net.ipv4.ip_local_port_range": "32768 60999",
}
FORWARD = {"net.ipv4.ip_forward": "1"}


class LabFailed(Exception):
    """The lab could not be made, or something in it did not start."""


@dataclass(frozen=True)
class HostPlace:
    """A host of the lab as a place for a middlebox (middleboxes/box.py)."""

    lab: Lab
    name: str

    @property
    def pid(self) -> int:
        return self.lab.pid(self.name)

    def run(self, argv: Sequence[str], stdin: str | None = None) -> str:
        return run(self.lab.inside(self.name, argv), stdin)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return self.lab.popen(self.name, argv, **options)

    def sysctl(self, values: dict[str, str]) -> None:
        self.lab.sysctl(self.name, values)


class Lab:
    """A running network.  Leaving the `with` block takes it down."""

    local = True  # its hosts are namespaces of this kernel

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.state = self._claim()
        self.state.topology, self.state.settings = topology.name, topology.settings
        self._nodes: dict[str, Any] = {}
        self.switches: Switches | None = None  # of a topology that has some

    def __enter__(self) -> Lab:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _claim(self) -> state.State:
        """Nobody else has this machine until we let go of it."""
        return state.begin()

    # ---- up ----

    def start(self) -> None:
        run(["mnexec", "-cn", "true"])  # fails with a reason where a Mininet shell would hang without one
        hosts = self.topology.hosts
        self._make_node(ROUTER)
        for host in hosts:
            self._make_node(host.name)
        self._wire()
        for host in hosts:
            self._configure(host)
        if self.topology.switches:
            self._configure_switches()
        else:
            self._configure_router()
        self.state.addresses = self.topology.names
        if self.topology.agents:
            self.start_agents(self.topology.sign)
        self.state.ready = True
        self.state.save()

    def _make_node(self, name: str) -> None:
        from mininet.node import Node

        node = Node(name)
        self._nodes[name] = node
        self.state.hosts[name] = state.Process.of(node.pid, name)
        self.state.namespaces[name] = netns.inode(netns.path_of(node.pid))
        self.state.save()

    def pid(self, name: str) -> int:
        """The process that holds a host's namespace."""
        return self.state.hosts[name].pid

    def _wire(self) -> None:
        lines = [
            f"link add name eth0 netns {self.pid(h.name)} type veth peer name to-{h.name} netns {self.pid(h.behind)}"
            for h in self.topology.hosts
        ]
        run(["ip", "-batch", "-"], "\n".join(lines))

    def _configure(self, host: Host) -> None:
        sysctls = dict(SYSCTLS)
        if host.kind != "host":
            sysctls |= FORWARD
        self.sysctl(host.name, sysctls)
        self.batch(host.name, ["link set lo up", *self._addressing(host)])
        if host.rate_mbps:
            self._shape(host.name, "eth0", host.rate_mbps)
        if host.kind == "firewall":
            Firewall().start(self.place(host.name))
        elif host.kind == "nat":
            Nat().start(self.place(host.name))

    def _addressing(self, host: Host) -> list[str]:
        lines = ["link set eth0 up", f"address add {host.address}/24 dev eth0", f"route add default via {host.gateway}"]
        if self.topology.switches:  # they answer nobody's ARP
            lines[0] += f" address {host.mac}"
            lines.append(f"neighbour add {host.gateway} lladdr {GATEWAY_MAC} dev eth0 nud permanent")
        return lines

    def _configure_switches(self) -> None:
        """The switches that are the router; they see frames as on a cable, which hosts must have summed."""
        self.sysctl(ROUTER, SYSCTLS)
        self.batch(ROUTER, ["link set lo up", *(f"link set to-{host.name} up" for host in self.topology.hosts)])
        for host in self.topology.hosts:
            run(self.inside(host.name, ["ethtool", "-K", "eth0", "tx", "off"]))
            if host.rate_mbps:
                self._shape(ROUTER, f"to-{host.name}", host.rate_mbps)
        self.state.folders.append(str(SWITCHES))
        self.state.save()
        self.switches = Switches(self.place(ROUTER), SWITCHES, self.topology)
        self.switches.start()

    def _configure_router(self) -> None:
        """The router, and the edges as far as they are one: the far ends of all links, and the routes to them."""
        self.sysctl(ROUTER, SYSCTLS | FORWARD)
        lines: dict[str, list[str]] = {ROUTER: ["link set lo up"]}
        for host in self.topology.hosts:
            here = lines.setdefault(host.behind, [])
            here += [f"link set to-{host.name} up", f"address add {host.gateway}/24 dev to-{host.name}"]
        for host in self.topology.hosts:
            at = host.behind
            while at != ROUTER:  # whoever forwards to an edge knows the networks behind it
                edge = self.topology.host(at)
                lines[edge.behind].append(f"route add {host.gateway.rsplit('.', 1)[0]}.0/24 via {edge.address}")
                at = edge.behind
        lines[ROUTER] += self._steering()
        for name, batch in lines.items():
            self.batch(name, batch)
        for host in self.topology.hosts:
            if host.rate_mbps:
                self._shape(host.behind, f"to-{host.name}", host.rate_mbps)

    def _steering(self) -> list[str]:
        """Static rules that do for the baseline what Dysco does for sessions: the same hops, both ways."""
        if not self.topology.steer:
            return []
        hosts = {h.name: h for h in self.topology.hosts}
        path = [hosts["client"], *(hosts[name] for name in self.topology.steer), hosts["server"]]
        lines: list[str] = []
        for way in (path, path[::-1]):
            for here, there in itertools.pairwise(way[:-1]):
                table = 100 + len(lines)
                lines.append(f"rule add iif to-{here.name} to {way[-1].address} lookup {table}")
                lines.append(f"route add default via {there.address} dev to-{there.name} table {table}")
        return lines

    def _shape(self, name: str, device: str, rate_mbps: float) -> None:
        lines = shaping.commands(device, rate_mbps, self.topology.shaper)
        run(self.inside(name, ["tc", "-batch", "-"]), "\n".join(lines))

    def start_agents(self, sign: bool, only: Sequence[str] = ()) -> None:
        """Gives every host that is to have one an agent (or only some of them), and the agents their policies."""
        from dysco_ns.agent.launch import AgentTarget, start_agents

        key = self.key_file() if sign else None
        names = self.topology.names
        hosts = [h for h in self.topology.hosts if h.agent and h.name in (only or names)]
        having = [h.name for h in hosts]
        for host in hosts:
            if host.backend == "dpdk":
                self._without_offloads(host)
        targets = [AgentTarget(h.name, self.pid(h.name), key, names, backend=h.backend, workers=h.workers) for h in hosts]
        for handle in start_agents(targets):
            self.state.agents[handle.name] = state.Process.of(handle.pid, f"agent of {handle.name}")
        self.state.save()
        for policy in (p for p in self.topology.policies if p.at in having):
            fields = {"filter": policy.filter, "chain": list(policy.chain), "ends_at": policy.ends_at}
            self.agent(policy.at).request("policy_add", **fields)

    def _without_offloads(self, host: Host) -> None:
        """DPDK sees frames as they would be on a cable: the far ends of its links segment them, and sum them."""
        run(self.inside(host.behind, ["ethtool", "-K", f"to-{host.name}", "tx", "off"]))
        for other in self.topology.hosts:
            if other.behind == host.name:
                run(self.inside(other.name, ["ethtool", "-K", "eth0", "tx", "off"]))

    def stop_agents(self) -> None:
        """Takes the agents away, and their data path: the network is as it was without them."""
        self._stop_agents(list(self.state.agents))

    def stop_agent(self, name: str) -> None:
        """One host without an agent from now on."""
        self._stop_agents([name])

    def _stop_agents(self, names: Sequence[str]) -> None:
        from dysco_ns.agent.daemon import forget_namespace

        state.end_processes([self.state.agents.pop(name) for name in names])
        for name in names:
            forget_namespace(self.state.namespaces[name])
        self.state.save()

    def key_file(self) -> Path:
        """The key that all agents of this lab share."""
        if str(KEY_FILE) in self.state.files:
            return KEY_FILE
        KEY_FILE.write_text(os.urandom(16).hex())
        KEY_FILE.chmod(0o600)
        self.state.files.append(str(KEY_FILE))
        return KEY_FILE

    # ---- use ----

    def inside(self, name: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv in a host's network namespace."""
        return ["nsenter", "-n", "-t", str(self.pid(name)), *argv]

    def batch(self, name: str, lines: Sequence[str]) -> None:
        run(self.inside(name, ["ip", "-batch", "-"]), "\n".join(lines))

    def sysctl(self, name: str, values: dict[str, str]) -> None:
        with netns.entered(netns.path_of(self.pid(name))):
            for key, value in values.items():
                path = Path("/proc/sys") / key.replace(".", "/")
                if path.exists():
                    path.write_text(value)

    def device(self, name: str) -> str:
        """The interface of a host towards the others."""
        return "eth0"

    def processors(self, name: str) -> list[int]:
        """Those that a host may use."""
        return sorted(os.sched_getaffinity(0))

    def file(self, name: str, label: str) -> Path:
        """Where a tool in a host may write; gone with the lab."""
        path = state.RUN / f"{name}-{label}"
        self.state.files.append(str(path))
        self.state.save()
        return path

    def read(self, name: str, path: Path) -> str:
        """What a tool in a host has written so far."""
        return path.read_text()

    def agent(self, name: str) -> AgentClient:
        return AgentClient(netns.socket_path(self.state.namespaces[name]))

    def run(self, name: str, argv: Sequence[str]) -> str:
        """Standard output of a command in a host.  ToolFailed if it fails."""
        return run(self.inside(name, argv))

    def place(self, name: str) -> HostPlace:
        """A host, as middleboxes see it."""
        return HostPlace(self, name)

    @contextmanager
    def box(self, name: str, box: Middlebox) -> Iterator[None]:
        """A middlebox runs in a host until the end of the block.  LabFailed if it does not come up."""
        box.start(self.place(name))
        try:
            try:
                wait_until(box.ready, READY_TIMEOUT_S, f"the middlebox at {name} is ready")
            except BoxFailed as error:
                raise LabFailed(str(error)) from error
            yield
        finally:
            box.stop()

    def popen(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process in a host; `stop` ends it with the lab."""
        process = subprocess.Popen(self.inside(name, argv), text=True, **options)
        self.state.processes.append(state.Process.of(process.pid, argv[0]))
        self.state.save()
        return process

    @contextmanager
    def service(self, name: str, argv: Sequence[str], word: str = "ready") -> Iterator[subprocess.Popen[str]]:
        """A process that says `word` when it is up, and gets SIGTERM at the end of the block."""
        process = self.popen(name, argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for(process, word)
            yield process
        finally:
            end(process)

    # ---- down ----

    def stop(self) -> None:
        for node in self._nodes.values():
            node.waiting = False
        state.clean(self.state)
        for node in self._nodes.values():
            node.terminate()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """The line with which a process says that it is up.  LabFailed with its own words if it ends instead."""
    out: IO[str] | None = process.stdout
    line = out.readline() if out else ""
    if not line.startswith(word):
        process.wait(READY_TIMEOUT_S)
        said = process.stderr.read().strip() if process.stderr else ""
        raise LabFailed(f"{' '.join(map(str, process.args[4:5]))}: {said or line or 'ended'}")  # type: ignore[index]
    return line


def end(process: subprocess.Popen[str], timeout_s: float = 5.0) -> int:
    """Ends a process: SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
    return process.returncode


def wait_until(condition: Any, timeout_s: float, what: str) -> None:
    """Polls until condition() is true.  LabFailed when it is not so in time."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise LabFailed(f"{what}: not so after {timeout_s:g} s")
        time.sleep(0.02)
