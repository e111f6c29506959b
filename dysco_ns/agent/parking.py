# SPDX-License-Identifier: Apache-2.0
"""Where segments wait while a middlebox's state moves: the queue of a tap device that leads nowhere but here.

The core redirects them there as the stack has written them.  When they may go they are sent again, with a mark by which
the core lets them pass.  The queue has an end; what does not fit is dropped, and TCP sends it again.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections import defaultdict
from pathlib import Path

from pyroute2 import IPRoute

from dysco_ns.agent.core import Core

NAME = b"dysco-park"
QUEUE = 1000  # segments, of all sessions together
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MARK_PARKED = 0x44790003
SO_MARK = 36
FRAME_BYTES = 1 << 16
IP_AT, TCP_AT = 14, 34


class Parking:
    """Of one agent; `index` of its interface is 0 where there can be none (no /dev/net/tun, or no parking)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: dict[int, list[bytes]] = defaultdict(list)  # by session
        self.index = 0
        if not core.programs.parks:
            return
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            return
        fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TAP | IFF_NO_PI))
        # IPv6 would greet its neighbours there
        Path(f"/proc/sys/net/ipv6/conf/{NAME.decode()}/disable_ipv6").write_text("1") if _has_ipv6() else None
        with IPRoute() as ip:
            self.index = ip.link_lookup(ifname=NAME.decode())[0]
            ip.link("set", index=self.index, state="up", txqlen=QUEUE)
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._out.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK_PARKED)

    def release(self, nonce: int) -> int:
        """Sends what waits for a session, in order; returns how many segments."""
        if not self.index:
            return 0
        self._collect()
        segments = self._waiting.pop(nonce, [])
        if segments:
            self._out.bind((self._core.interfaces[0].name, 0))  # the core finds the true one
        for frame in segments:
            try:
                self._out.send(frame)
            except OSError:  # a queue is full: TCP sends it again
                continue
        return len(segments)

    def _collect(self) -> None:
        while True:
            try:
                frame = os.read(self._fd, FRAME_BYTES)
            except BlockingIOError:
                return
            session = self._session_of(frame)
            if session:
                self._waiting[session].append(frame)

    def _session_of(self, frame: bytes) -> int | None:
        if len(frame) < TCP_AT + 4 or frame[12:14] != b"\x08\x00":
            return None
        src, dst = (socket.inet_ntoa(frame[at : at + 4]) for at in (IP_AT + 12, IP_AT + 16))
        sport, dport = struct.unpack_from("!HH", frame, TCP_AT)
        return self._core.session_of((src, sport), (dst, dport))


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6/conf").exists()
