# SPDX-License-Identifier: Apache-2.0
"""Steering by rules of the switches, as most of service chaining does it (paper I and VI-A): what Dysco is compared with.

One rule a hop: what a host sends into its switch goes to the next middlebox of the chain, whose address the rule writes
into the frame; beyond this switch plain forwarding goes by that.  Either a few static rules match all sessions, or a
controller makes rules for each session when its first packet comes.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.network import READY_TIMEOUT_S, Lab, LabFailed, end, wait_for, wait_until
from lab.switches import Switches
from lab.tools import controller
from lab.topologies import ROUTER, Host, Topology
from lab.topologies.switched import CLIENT, FIRST_PORT, PORTS_MASK, SERVER
from middleboxes.box import listening


@dataclass(frozen=True)
class Hop:
    """What comes into a switch by a port is to go to the next middlebox; ports by OpenFlow's numbers."""

    switch: str
    port: int
    to: str  # MAC address of the next
    out: int

    @property
    def actions(self) -> str:
        return f"mod_dl_dst:{self.to},output:{self.out}"


def hops(topology: Topology, switches: Switches) -> tuple[list[Hop], list[Hop]]:
    """Rightward and leftward.  The last hop to either end needs no rule: plain forwarding goes there."""
    path = [topology.host(name) for name in (CLIENT, *topology.policies[0].chain, SERVER)]
    return _way(path, topology, switches), _way(path[::-1], topology, switches)


def _way(path: list[Host], topology: Topology, switches: Switches) -> list[Hop]:
    at = {host: switch.name for switch in topology.switches for host in switch.hosts}
    pairs = [(at[here.name], here, there) for here, there in itertools.pairwise(path[:-1])]
    return [
        Hop(switch, switches.towards(switch, here.name), there.mac, switches.towards(switch, there.name))
        for switch, here, there in pairs
    ]


def _match(hop: Hop, way: str) -> str:
    """All sessions of the policy, in the words of ovs-ofctl, at one hop."""
    return f"in_port={hop.port},tcp,{'tp_dst' if way == 'rightward' else 'tp_src'}={FIRST_PORT:#x}/{PORTS_MASK:#x}"


Rules = dict[str, list[str]]  # by switch


def _gathered(rules: list[tuple[str, str]], switches: Switches) -> Rules:
    return {name: [rule for at, rule in rules if at == name] for name in switches.names}


def static_rules(topology: Topology, switches: Switches) -> Rules:
    """Rules for all sessions at once: what steering costs a packet, without what it costs a session."""
    ways = zip(("rightward", "leftward"), hops(topology, switches), strict=True)
    return _gathered([
        (hop.switch, f"priority={controller.ASKING},{_match(hop, way)},actions={hop.actions}")
        for way, found in ways for hop in found
    ], switches)  # fmt: skip


def asking_rules(topology: Topology, switches: Switches, unknown: str) -> Rules:
    """New sessions come up to the controller from the client's port.  `unknown`: what matches the policy and leaves a
    middlebox, but is of no session that has rules, is forwarded plainly (forward) or not at all (drop)."""
    rightward, leftward = hops(topology, switches)
    first, later = rightward[0], [("rightward", hop) for hop in rightward[1:]] + [("leftward", hop) for hop in leftward]
    rules = [(first.switch, f"priority={controller.ASKING},{_match(first, 'rightward')},actions=controller")]
    if unknown == "drop":
        rules += [(hop.switch, f"priority={controller.UNKNOWN},{_match(hop, way)},actions=drop") for way, hop in later]
    return _gathered(rules, switches)


def _set(switches: Switches, rules: Rules) -> None:
    for name in switches.names:
        switches.set_rules(name, rules.get(name, []))


def switches_of(lab: Lab) -> Switches:
    if not lab.switches:
        raise LabFailed(f"topology {lab.topology.name} has no switches")
    return lab.switches


@contextmanager
def by_static_rules(lab: Lab) -> Iterator[None]:
    """The switches steer all sessions of the policy, while the block lasts."""
    switches = switches_of(lab)
    _set(switches, static_rules(lab.topology, switches))
    try:
        yield
    finally:
        _set(switches, {})


@contextmanager
def by_session_rules(lab: Lab, folder: Path, unknown: str = "forward") -> Iterator[None]:
    """A controller beside the switches gives each session rules of its own, while the block lasts."""
    switches = switches_of(lab)
    told = folder / "controller.json"
    told.write_text(json.dumps(_told(lab.topology, switches)))
    with (folder / "controller.log").open("w") as log:
        process = lab.popen(ROUTER, controller.command(told), stdout=subprocess.PIPE, stderr=log)
    try:
        heard = lambda: process.poll() is not None or controller.PORT in listening(lab.pid(ROUTER))  # noqa: E731
        wait_until(heard, READY_TIMEOUT_S, "the controller listens")  # switches that come earlier wait a second
        switches.follow(controller.ADDRESS)
        wait_for(process, "ready")
        _set(switches, asking_rules(lab.topology, switches, unknown))
        yield
    finally:
        switches.unfollow()
        end(process)
        _set(switches, {})


def _told(topology: Topology, switches: Switches) -> dict[str, object]:
    ways = zip(("rightward", "leftward"), hops(topology, switches), strict=True)
    numbered = {way: [(switches.names.index(hop.switch) + 1, hop.port, hop.to, hop.out) for hop in found] for way, found in ways}
    return {"switches": len(switches.names), **numbered}
