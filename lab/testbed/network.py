# SPDX-License-Identifier: Apache-2.0
"""The hosts of a chain on machines: what lab/network.py does with namespaces, done over ssh.

Whatever changes a machine is noted there before it is done (far.sh), so that a later `clean` undoes it if we cannot.
"""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dysco_ns.agent.client import AgentClient
from dysco_ns.dpdk.process import PROGRAM as DYSCO_DPDK
from lab import state
from lab.network import FORWARD, SYSCTLS, Lab, LabFailed, end, wait_for
from lab.results import ROOT
from lab.testbed.inventory import Inventory, Machine
from lab.testbed.ssh import NOTES, Far, FarProcess
from lab.tool import ToolFailed
from lab.topologies import Topology

DYSCO = str(ROOT / ".venv" / "bin" / "dysco")
TAP = "dysco0"
FORGET_S = 20.0  # for an agent to take its data path away
OFF = ("generic-receive-offload", "large-receive-offload")  # frames as they came, before DPDK reads them from the kernel
BUSY = "a run is under way there, or has left something: `dysco-lab testbed clean` ends it"


def _as_path(sysctl: str) -> str:
    """Names of interfaces have dots, too: what has slashes is a path already."""
    return sysctl if "/" in sysctl else sysctl.replace(".", "/")


def placed(topology: Topology, inventory: Inventory) -> Topology:
    """The topology with the machines' addresses and backends.  LabFailed if it is none that a testbed can be."""
    machines = {name: inventory.hosts[own] for name, own in inventory.chain.items()}
    unknown = [h.name for h in topology.hosts if h.name not in machines or h.kind not in ("host", "router") or h.rate_mbps]
    if unknown:
        raise LabFailed(f"this testbed has no host like {unknown[0]}: it has {', '.join(machines)}, which only forward")
    hosts = tuple(replace(h, placed=machines[h.name].own, backend=machines[h.name].backend) for h in topology.hosts)
    now = {old.address: new.address for old, new in zip(topology.hosts, hosts, strict=True)}
    policies = tuple(replace(p, filter=" ".join(now.get(w, w) for w in p.filter.split())) for p in topology.policies)
    return replace(topology, hosts=hosts, policies=policies)


class Testbed(Lab):
    """A chain on machines.  Leaving the `with` block leaves them as they were."""

    local = False

    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        super().__init__(placed(topology, inventory))
        self._machines: dict[str, Machine] = {}
        self._far: dict[str, Far] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="dysco-")  # of sockets and the key
        self._key = Path(self._folder.name) / "key"
        self._claimed: list[Far] = []  # those that are ours to clean
        self._cores: dict[str, list[int]] = {}
        self._agents_noted: set[str] = set()
        self._running: dict[str, FarProcess] = {}  # agents by host
        self._paths: dict[str, FarProcess] = {}  # and dysco-dpdk where it has a NIC
        for name in self.topology.names:
            own = inventory.chain[name]
            machine = self._machines[name] = inventory.hosts[own]
            self._far[name] = Far(own, machine.ssh, inventory.ssh_config, Path(self._folder.name), inventory.tree)

    def _claim(self) -> state.State:
        """Each machine is claimed on its own, when it is reached."""
        return state.State(state.Process.of(os.getpid(), "testbed"))

    # ---- up ----

    def start(self) -> None:
        for name, far in self._far.items():
            far.open()
            notes = f"{NOTES}/{far.name}"
            if not far.run(["sh", "-c", f"mkdir -p {notes}; mkdir {notes}/run 2>/dev/null && echo new || true"]):
                raise LabFailed(f"{far.name}: {BUSY}")
            self._claimed.append(far)
            self.state.namespaces[name] = far.namespace()
            self._prepare(name, far)
        for far, words in self._steering_there():
            far.note(*words)
        self.state.addresses = self.topology.names
        if self.topology.agents:
            self.start_agents(self.topology.sign)
        self.state.ready = True

    def _prepare(self, name: str, far: Far) -> None:
        """Sysctls and the address; offloads that DPDK cannot do without."""
        machine = self._machines[name]
        if machine.interface:  # first: a new default reaches interfaces without an address, and does not come back from them
            self.sysctl(name, {f"net/ipv4/conf/{machine.interface}/{key}": "0" for key in ("rp_filter", "send_redirects")})
        sysctls = {key: value for key, value in SYSCTLS.items() if "ipv6" not in key}
        self.sysctl(name, sysctls | (FORWARD if machine.role == "middlebox" else {}))
        if machine.pci:
            self._start_data_path(name)
        else:
            far.note("address", str(machine.interface), str(machine.address))
            for feature in OFF if machine.backend == "dpdk" else ():
                far.note("off", str(machine.interface), feature)

    def _steering_there(self) -> list[tuple[Far, list[str]]]:
        """Without agents, host routes send the same traffic through the same machines, both ways."""
        if not self.topology.steer:
            return []
        path = ["client", *self.topology.steer, "server"]
        notes: list[tuple[Far, list[str]]] = []
        for way in (path, path[::-1]):
            last = self.topology.host(way[-1]).address
            for here, there in itertools.pairwise(way[:-1]):
                route = f"{last}/32 via {self.topology.host(there).address}"
                notes.append((self._far[here], ["do", f"ip route del {route}", "ip", "route", "replace", *route.split()]))
        return notes

    # ---- agents ----

    def start_agents(self, sign: bool, only: Sequence[str] = ()) -> None:
        names = [h.name for h in self.topology.hosts if h.agent and (not only or h.name in only)]
        started = {name: self._start_agent(name, sign) for name in names}  # all at once, then each is awaited
        for name, process in started.items():
            wait_for(process, "ready")
            self._far[name].forward_agent(self.state.namespaces[name])
            self.state.agents[name] = state.Process(process.pid, 0, f"agent of {name}")
        for policy in (p for p in self.topology.policies if p.at in names):
            chain = [self.topology.host(name).address for name in policy.chain]
            self.agent(policy.at).request("policy_add", filter=policy.filter, chain=chain, ends_at=policy.ends_at)

    def _start_agent(self, name: str, sign: bool) -> FarProcess:
        machine, far = self._machines[name], self._far[name]
        words = [DYSCO, "agent", "run", "--forget", "--name", name, "--backend", machine.backend]
        words += ["--interface", self.device(name)]
        if machine.backend == "dpdk":
            words += ["--workers", str(machine.workers), *(["--poll"] if machine.poll else [])]
        if sign:
            words += ["--key", self._give_key(far)]
        if name not in self._agents_noted:  # for one that cannot do it itself when it ends
            far.note("do", f"{' '.join(far.there([DYSCO]))} agent forget", "true")
            self._agents_noted.add(name)
        process = far.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._running[name] = process
        return process

    def _give_key(self, far: Far) -> str:
        if not self._key.exists():
            self._key.write_text(secrets.token_hex(16))
        path = f"{NOTES}/{far.name}/run/key"
        far.run(["sh", "-c", f"umask 077; cat >{path}"], self._key.read_text())
        return path

    def _start_data_path(self, name: str) -> None:
        """DPDK on a NIC of its own: without it the host has no network, so it runs without agents, too."""
        machine, far = self._machines[name], self._far[name]
        words = [str(DYSCO_DPDK), "--wire", str(machine.pci), "--host", f"net_tap0,iface={TAP}", "--socket",
                 f"/run/dysco/{self.state.namespaces[name]}.dpdk"]  # fmt: skip
        words += ["--workers", str(machine.workers)]
        if machine.cores:
            words += ["--core", ",".join(map(str, machine.cores))]
        if machine.poll:
            words.append("--poll")
        process = far.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(process, "ready")
        self._paths[name] = process
        far.run(["ip", "address", "add", str(machine.address), "dev", TAP])
        far.run(["ip", "link", "set", TAP, "up"])

    def _stop_agents(self, names: Sequence[str]) -> None:
        for name in names:
            self._far[name].end_forward(self.state.namespaces[name])
            self._running[name].terminate()
        for name in names:
            end(self._running.pop(name), FORGET_S)
            del self.state.agents[name]
            if path := self._paths.pop(name, None):
                end(path)
                self._start_data_path(name)  # with empty tables

    # ---- use ----

    def pid(self, name: str) -> int:
        raise LabFailed(f"{name} is a machine of its own: this experiment needs the lab")

    def inside(self, name: str, argv: Sequence[str]) -> list[str]:
        return self._far[name].ssh(argv)

    def popen(self, name: str, argv: Sequence[str], **options: Any) -> FarProcess:
        return self._far[name].popen(argv, **options)

    def sysctl(self, name: str, values: dict[str, str]) -> None:
        self._far[name].note("sysctl", *(f"{_as_path(key)}={value}" for key, value in values.items()))

    def device(self, name: str) -> str:
        machine = self._machines[name]
        return TAP if machine.pci else str(machine.interface)

    def processors(self, name: str) -> list[int]:
        if name not in self._cores:
            given = self._machines[name].cores
            self._cores[name] = list(given) or list(range(int(self.run(name, ["nproc"]))))
        return self._cores[name]

    def file(self, name: str, label: str) -> Path:
        return Path(f"{NOTES}/{self._far[name].name}/run/{label}")

    def read(self, name: str, path: Path) -> str:
        return self.run(name, ["cat", str(path)])

    def agent(self, name: str) -> AgentClient:
        return AgentClient(self._far[name].agent)

    # ---- down ----

    def stop(self) -> None:
        complaints = []
        for far in self._claimed:
            try:
                complaints += far.note("clean").splitlines()
            except ToolFailed as error:
                complaints.append(f"{far.name}: {error}")
        for far in self._far.values():
            far.close()
        for process in (*self._running.values(), *self._paths.values()):
            end(process)
        self._claimed, self._running, self._paths = [], {}, {}
        self._folder.cleanup()
        if complaints and self.state.ready:
            raise LabFailed(f"not everything was cleaned up ({complaints[0]}): `dysco-lab testbed clean` tries again")
