# SPDX-License-Identifier: Apache-2.0
"""The os-ken application: a packet of a session that no rule knows comes up; its rules go down, then the packet goes on.

A rule takes a session at a switch to its next middlebox, in each direction: what comes from the hop before, with the
session's five-tuple, gets the address of the next hop, and beyond this switch plain forwarding goes by that.  The packet
waits until every switch has confirmed its rules (barrier): no switch may see it before.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from os_ken.base.app_manager import OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3

from lab.tools.controller import COOKIE, IDLE_S, SESSION

Tuple = tuple[str, int, str, int]  # source, destination


@dataclass(frozen=True)
class Told:
    """What the controller knows of the network.  A hop is [switch, port, MAC address of the next, port to it]."""

    switches: int
    rightward: list[tuple[int, int, str, int]]
    leftward: list[tuple[int, int, str, int]]

    @classmethod
    def read(cls, path: Path) -> Told:
        return cls(**json.loads(path.read_text()))


told = Told(0, [], [])  # __main__ says


def five_tuple(frame: bytes) -> Tuple:
    """Of a TCP segment in IPv4; rules send nothing else up."""
    tcp = 14 + 4 * (frame[14] & 0xF)
    source_port, port = struct.unpack_from("!HH", frame, tcp)
    return socket.inet_ntoa(frame[26:30]), source_port, socket.inet_ntoa(frame[30:34]), port


@dataclass
class Waiting:
    """The first packet of a session, at the switch where it came up, until these barriers are passed."""

    datapath: Any
    port: int
    frame: bytes
    barriers: set[tuple[int, int]]


class Steering(OSKenApp):  # type: ignore[misc]  # os-ken has no types
    """Rules for each session, when its first packet asks for them."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._datapaths: dict[int, Any] = {}
        self._waiting: dict[Tuple, Waiting] = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)  # type: ignore[untyped-decorator]
    def switch_came(self, event: Any) -> None:
        self._datapaths[event.msg.datapath.id] = event.msg.datapath
        if len(self._datapaths) == told.switches:
            print("ready", flush=True)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def session_begins(self, event: Any) -> None:
        message = event.msg
        session = five_tuple(message.data)
        if session in self._waiting:  # a repeated SYN
            return
        source, source_port, destination, port = session
        for hops, ends in (
            (told.rightward, session),
            (told.leftward, (destination, port, source, source_port)),
        ):
            for switch, from_port, to, to_port in hops:
                self._add_rule(self._datapaths[switch], from_port, ends, to, to_port)
        used = {switch for switch, *_ in told.rightward + told.leftward}
        barriers = {(switch, self._barrier(self._datapaths[switch])) for switch in used}
        self._waiting[session] = Waiting(message.datapath, message.match["in_port"], message.data, barriers)

    def _add_rule(self, datapath: Any, in_port: int, session: Tuple, to: str, to_port: int) -> None:
        protocol, parser = datapath.ofproto, datapath.ofproto_parser
        source, source_port, destination, port = session
        match = parser.OFPMatch(in_port=in_port, eth_type=0x0800, ip_proto=6, ipv4_src=source, ipv4_dst=destination,
                                tcp_src=source_port, tcp_dst=port)  # fmt: skip
        actions = [parser.OFPActionSetField(eth_dst=to), parser.OFPActionOutput(to_port)]
        apply = parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)
        datapath.send_msg(parser.OFPFlowMod(datapath, cookie=COOKIE, priority=SESSION, match=match, instructions=[apply],
                                            idle_timeout=IDLE_S))  # fmt: skip

    @staticmethod
    def _barrier(datapath: Any) -> int:
        request = datapath.ofproto_parser.OFPBarrierRequest(datapath)
        datapath.set_xid(request)
        datapath.send_msg(request)
        return int(request.xid)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def rules_are_there(self, event: Any) -> None:
        passed = (event.msg.datapath.id, event.msg.xid)
        for session, waiting in list(self._waiting.items()):
            waiting.barriers.discard(passed)
            if not waiting.barriers:
                del self._waiting[session]
                self._go_on(waiting)

    @staticmethod
    def _go_on(waiting: Waiting) -> None:
        """The packet goes through the switch's rules again: now there is one for it."""
        protocol, parser = waiting.datapath.ofproto, waiting.datapath.ofproto_parser
        actions = [parser.OFPActionOutput(protocol.OFPP_TABLE)]
        waiting.datapath.send_msg(
            parser.OFPPacketOut(waiting.datapath, protocol.OFP_NO_BUFFER, waiting.port, actions, waiting.frame)
        )
