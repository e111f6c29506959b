# SPDX-License-Identifier: Apache-2.0
"""A bridge in user space: what the host forwards goes through a process of ours (bridge.c) and back to the kernel.

eth0 --agent--> routing: rightward to left0, leftward to right0    (policy routing by the incoming interface)
       left0 == left1 --bridge-- right1 == right0                  (two veth pairs; the far ends are the bridge's)
       from right0 and left0 by ordinary routing to eth0 --agent-->

An agent of the host must tag SYNs by option if the bridge shifts ports: `dysco agent tune --tag option`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from middleboxes.box import Place, ProcessBox
from middleboxes.iptables import FORWARD

BINARY = Path(__file__).resolve().parents[2] / "build" / "bridge"
NOWHERE = "02:00:00:00:00:01"  # the kernel must not take what is the bridge's
TABLE = 300


class Bridge(ProcessBox):
    """right: the network (CIDR) of what is to the right.  port_shift: by how much client ports are raised there."""

    def __init__(self, folder: Path, right: str, port_shift: int = 0, name: str = "bridge") -> None:
        super().__init__(name, folder)
        self._right, self._port_shift = right, port_shift

    def command(self) -> list[str]:
        return [str(BINARY), "left1", "left0", "right1", "right0", str(self._port_shift)]

    def start(self, place: Place) -> None:
        place.sysctl(FORWARD)
        lines = []
        for side in ("left", "right"):
            lines += [f"link add {side}0 type veth peer name {side}1", f"link set {side}0 up", f"link set {side}1 up"]
            lines += [f"neighbour add 169.254.0.1 lladdr {NOWHERE} dev {side}0"]
        for i, side in enumerate(("left", "right")):
            lines.append(f"route add default via 169.254.0.1 dev {side}0 onlink table {TABLE + i}")
        lines.append(f"rule add pref {TABLE} iif eth0 to {self._right} lookup {TABLE}")
        lines.append(f"rule add pref {TABLE + 1} iif eth0 lookup {TABLE + 1}")
        place.run(["ip", "-batch", "-"], "\n".join(lines))
        for side in ("left", "right"):
            place.sysctl({f"net.ipv4.conf.{side}0.rp_filter": "0", f"net.ipv4.conf.{side}1.rp_filter": "0"})
        super().start(place)

    def ready(self) -> bool:
        return super().ready() and self.log.read_text().startswith("ready")

    def stop(self, timeout_s: float = 5.0) -> None:
        super().stop(timeout_s)
        if self._place:
            lines = ["link del left0", "link del right0", f"rule del pref {TABLE}", f"rule del pref {TABLE + 1}"]
            with contextlib.suppress(Exception):  # after a start that failed half-way
                self._place.run(["ip", "-force", "-batch", "-"], "\n".join(lines))

    def counters(self) -> dict[str, int]:
        """Frames that it has sent out by each side."""
        assert self._place
        shown = json.loads(self._place.run(["ip", "-j", "-s", "link", "show", "type", "veth"]))
        sent = {link["ifname"]: int(link["stats64"]["tx"]["packets"]) for link in shown}
        return {side: sent[f"{side}1"] for side in ("left", "right")}
