# SPDX-License-Identifier: Apache-2.0
"""Where segments wait while a middlebox's state moves: the queue of a tap device that leads nowhere but here.

The core redirects them there as the stack has written them.  When they may go they are sent again, with a mark by which
the core lets them pass.  There is room for so many; what does not fit is dropped, and TCP sends it again.  A data path that
is a process keeps them itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pyroute2 import IPRoute

from dysco_ns.agent.core import Core

NAME = b"dysco-park"
QUEUE = 1000  # segments in the device's queue, and as many that have been read from it, of all sessions together
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MARK_PARKED = 0x44790003
SO_MARK = 36
FRAME_BYTES = 1 << 16
LET_GO_S = 3.0
IP_AT, TCP_AT = 14, 34
FIN = 1


class Waiting:
    """What has been read from the queue while another session's segments were looked for: by session, in order."""

    def __init__(self, most: int = QUEUE) -> None:
        self._frames: dict[int, list[bytes]] = {}
        self._most = most

    def __len__(self) -> int:
        return sum(map(len, self._frames.values()))

    def put(self, nonce: int, frame: bytes) -> bool:
        """False: there is no room."""
        if len(self) >= self._most:
            return False
        self._frames.setdefault(nonce, []).append(frame)
        return True

    def take(self, nonce: int) -> list[bytes]:
        return self._frames.pop(nonce, [])

    def keep(self, live: Callable[[int], bool]) -> None:
        """Sessions that have ended meanwhile wait for nothing."""
        self._frames = {nonce: frames for nonce, frames in self._frames.items() if live(nonce)}


class Parking(Protocol):
    """Of one agent; `index` goes into struct config: 0 where there can be none."""

    @property
    def index(self) -> int: ...

    def release(self, nonce: int) -> int:
        """Sends what waits for a session, in order, until nothing is left; returns how much: bytes and FIN."""
        ...


class Inside:
    """The data path keeps what waits; `index` is its room."""

    index = QUEUE

    def __init__(self, release: Callable[[int], int]) -> None:
        self.release = release


def parking_of(core: Core) -> Parking:
    release = core.programs.release
    return Inside(release) if release else Device(core)


class Device:
    """A tap device; `index` is 0 where there can be none (no /dev/net/tun)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting = Waiting()
        self.index = 0
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            return
        _own(self._fd)
        # IPv6 would greet its neighbours there
        Path(f"/proc/sys/net/ipv6/conf/{NAME.decode()}/disable_ipv6").write_text("1") if _has_ipv6() else None
        with IPRoute() as ip:
            self.index = ip.link_lookup(ifname=NAME.decode())[0]
            ip.link("set", index=self.index, state="up", txqlen=QUEUE)
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._out.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK_PARKED)

    def release(self, nonce: int) -> int:
        sent = 0
        while self.index and (frames := self._next(nonce)):
            self._out.bind((self._core.interfaces[0].name, 0))  # the core finds the true one
            for frame in frames:
                with contextlib.suppress(OSError):  # a queue is full: TCP sends it again
                    self._out.send(frame)
            sent += sum(map(sequence_length, frames))
        self._waiting.keep(self._lives)
        return sent

    def _next(self, nonce: int) -> list[bytes]:
        """Segments of a session that have come so far; those of others are put aside."""
        found = self._waiting.take(nonce)
        for _ in range(4 * QUEUE):  # or else a daemon that is slow would never end
            try:
                frame = os.read(self._fd, FRAME_BYTES)
            except BlockingIOError:
                break
            session = self._session_of(frame)
            if session == nonce:
                found.append(frame)
            elif session:
                self._waiting.put(session, frame)
        return found

    def _lives(self, nonce: int) -> bool:
        s = self._core.session(nonce)
        return bool(s and not s["over_ns"])

    def _session_of(self, frame: bytes) -> int | None:
        if len(frame) < TCP_AT + 4 or frame[12:14] != b"\x08\x00":
            return None
        src, dst = (socket.inet_ntoa(frame[at : at + 4]) for at in (IP_AT + 12, IP_AT + 16))
        sport, dport = struct.unpack_from("!HH", frame, TCP_AT)
        return self._core.session_of((src, sport), (dst, dport))


def sequence_length(frame: bytes) -> int:
    """Bytes and FIN of a segment."""
    total, offset, flags = struct.unpack_from("!H", frame, IP_AT + 2)[0], frame[TCP_AT + 12] >> 4, frame[TCP_AT + 13]
    return int(total) - (TCP_AT - IP_AT) - 4 * offset + (flags & FIN)


def _own(fd: int) -> None:
    """Makes the device one's own.  A daemon that has just ended may hold it for a moment still: the kernel closes a process's
    files after the process has left the table, if another of its threads ends later.  OSError if another keeps it."""
    until = time.monotonic() + LET_GO_S
    while True:
        try:
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TAP | IFF_NO_PI))
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > until:
                why = f"{NAME.decode()} belongs to another process: does another agent serve this namespace?"
                raise OSError(error.errno, why) from error
        time.sleep(0.01)


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6/conf").exists()
