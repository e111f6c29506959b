# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch in user space: bridges of the netdev datapath in one namespace, linked in a line.

A database, a daemon, sockets and pid files of their own, in one folder: whatever Open vSwitch the machine runs is not
touched.  Both processes stay in the foreground and end with the lab, by their pids.  Together the switches are the router
of all subnets: the first that a packet meets writes its host's address into the frame, the others go by that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.tool import ToolFailed, run
from lab.topologies import GATEWAY_MAC, Topology
from middleboxes.box import Place

READY_TIMEOUT_S = 10
FIRST_TRUNK = 101  # OpenFlow's numbers of ports: hosts from 1 on, links to the switch before and to the next from here
ANY_COOKIE = 0xFFFF_FFFF_FFFF_FFFF


class Switches:
    """All switches of a topology, in the namespace of `place`, where the hosts' links to-HOST end."""

    def __init__(self, place: Place, folder: Path, topology: Topology) -> None:
        self._place, self._folder, self._topology = place, folder, topology
        self.names = tuple(switch.name for switch in topology.switches)

    # ---- up ----

    def start(self) -> None:
        """All bridges with their ports, linked, forwarding plainly.  ToolFailed says which process ended and why."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        database = self._folder / "conf.db"
        run(["ovsdb-tool", "create", str(database)])
        socket = self._folder / "db.sock"
        server = self._daemon("ovsdb-server", str(database), f"--remote=punix:{socket}")
        self._await(server, socket.exists)
        self._vsctl("--no-wait", "init")
        self._await(self._daemon("ovs-vswitchd", f"unix:{socket}"), lambda: self._folder.joinpath("ovs-vswitchd.ctl").exists())
        self._link()
        for number, name in enumerate(self.names, 1):
            self._bridge(number, name)
            self.set_rules(name, [])

    def _daemon(self, name: str, *words: str) -> subprocess.Popen[str]:
        files = [f"--unixctl={self._folder / name}.ctl", f"--pidfile={self._folder / name}.pid", "-vconsole:warn"]
        where = {key: str(self._folder) for key in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR")}
        with self._log(name).open("w") as log:
            return self._place.popen(
                [name, *words, *files], env=os.environ | where, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _await(self, daemon: subprocess.Popen[str], up: Callable[[], bool]) -> None:
        until = time.monotonic() + READY_TIMEOUT_S
        while not up():
            name = str(daemon.args[4])  # type: ignore[index]
            if daemon.poll() is not None or time.monotonic() > until:
                said = self._log(name).read_text().strip().splitlines()
                raise ToolFailed([name], daemon.poll() or 0, said[-1] if said else "")
            time.sleep(0.01)

    def _link(self) -> None:
        """A pair of interfaces between each switch and the next."""
        lines = []
        for here, there in zip(self.names, self.names[1:], strict=False):
            lines += [f"link add {here}-{there} type veth peer name {there}-{here}"]
            lines += [f"link set {one} up" for one in (f"{here}-{there}", f"{there}-{here}")]
        self._place.run(["ip", "-batch", "-"], "\n".join(lines))

    def _bridge(self, number: int, name: str) -> None:
        words = []
        for port, number_ in self.ports(name).items():
            words += ["--", "add-port", name, port, "--", "set", "interface", port, f"ofport_request={number_}"]
        identity = f"other-config:datapath-id={number:016x}"
        self._vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail-mode=secure",
                    "protocols=OpenFlow13", identity, *words)  # fmt: skip

    def ports(self, name: str) -> dict[str, int]:
        """OpenFlow's number of each port of a switch, by its interface."""
        at = self.names.index(name)
        found = {f"to-{host}": i for i, host in enumerate(self._topology.switches[at].hosts, 1)}
        near = [other for other in (at - 1, at + 1) if 0 <= other < len(self.names)]
        return found | {f"{name}-{self.names[other]}": FIRST_TRUNK + i for i, other in enumerate(near)}

    def towards(self, name: str, host: str) -> int:
        """OpenFlow's number of the port of a switch at which a host is, or what leads to it."""
        at, ports = self.names.index(name), self.ports(name)
        its = next(i for i, switch in enumerate(self._topology.switches) if host in switch.hosts)
        return ports[f"to-{host}" if its == at else f"{name}-{self.names[at + (1 if its > at else -1)]}"]

    # ---- use ----

    def _plain(self, name: str) -> list[str]:
        """Two rules for each host: what is for the router goes to it, and what has its address already."""
        rules = []
        for host in self._topology.hosts:
            port = self.towards(name, host.name)
            routed = f"ip,dl_dst={GATEWAY_MAC},nw_dst={host.address}"
            rules.append(f"priority=1,dl_dst={host.mac},actions=output:{port}")
            rules.append(f"priority=0,{routed},actions=mod_dl_dst:{host.mac},output:{port}")
        return rules

    def _vsctl(self, *words: str) -> str:
        return run(["ovs-vsctl", f"--db=unix:{self._folder / 'db.sock'}", f"--timeout={READY_TIMEOUT_S}", *words])

    def _ofctl(self, command: str, name: str, *words: str, stdin: str | None = None) -> str:
        return run(["ovs-ofctl", "-O", "OpenFlow13", command, f"unix:{self._folder / name}.mgmt", *words], stdin)

    def set_rules(self, name: str, rules: Sequence[str]) -> None:
        """A switch has these rules (in the words of ovs-ofctl) besides plain forwarding, and no others."""
        self._ofctl("replace-flows", name, "-", stdin="\n".join([*self._plain(name), *rules]) + "\n")

    def drop_rules(self, cookie: int) -> None:
        """No switch has rules of that cookie any more."""
        for name in self.names:
            self._ofctl("del-flows", name, f"cookie={cookie:#x}/{ANY_COOKIE:#x}")

    def rules(self, name: str, cookie: int | None = None) -> int:
        """How many rules a switch has, of a cookie or all, plain forwarding included."""
        which = [] if cookie is None else [f"cookie={cookie:#x}/{ANY_COOKIE:#x}"]
        found = re.search(r"flow_count=(\d+)", self._ofctl("dump-aggregate", name, *which))
        assert found
        return int(found[1])

    def follow(self, controller: str) -> None:
        """All switches take rules from a controller, such as tcp:127.0.0.1:6653.  It begins with no rules at all."""
        for name in self.names:
            self._vsctl("set-controller", name, controller)

    def unfollow(self) -> None:
        """They obey nobody, and have no rules."""
        for name in self.names:
            self._vsctl("del-controller", name)
