# SPDX-License-Identifier: Apache-2.0
"""Drives a dysco-dpdk process by its socket, as the eBPF backend drives its maps and programs.

Each request is one datagram, a line of text and then bytes, and so is its answer (docs/dpdk.md).  Layouts of keys and
values are those of the eBPF object: both are built from the same headers.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import TABLES
from dysco_ns.ebpf.maps import Codec, Integer

ANSWER_BYTES = 1 << 16
TIMEOUT_S = 10.0


class DataPathGone(OSError):
    """The process does not answer any more."""


class Refused(OSError):
    """It said no; says why."""


class Channel:
    """One connection; requests of several threads take turns.  DataPathGone if nobody listens at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT_S)
        self._turn = threading.Lock()
        try:
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise DataPathGone(error.errno, f"no data path answers at {path}") from error

    def ask(self, line: str, data: bytes = b"") -> tuple[str, bytes] | None:
        """What follows "ok" in the answer's line, and its bytes; None: there is no such thing."""
        with self._turn:
            try:
                self.socket.send(line.encode() + b"\n" + data)
                answer = self.socket.recv(ANSWER_BYTES)
            except OSError as error:
                raise DataPathGone(error.errno, f"the data path at {self.path} does not answer: {error}") from error
        if not answer:
            raise DataPathGone(0, f"the data path at {self.path} has ended")
        text, _, body = answer.partition(b"\n")
        word, _, rest = text.decode().partition(" ")
        if word == "error":
            raise Refused(0, f"{line}: {rest}")
        return (rest, body) if word == "ok" else None

    def close(self) -> None:
        self.socket.close()


class Table:
    """One table, with its keys and values as Python values."""

    def __init__(self, channel: Channel, name: str, key: Codec, value: Codec) -> None:
        self.name, self.key, self.value = name, key, value
        self._channel = channel

    def _size(self) -> tuple[int, int, int]:
        answer = self._channel.ask(f"size {self.name}")
        key, value, most = (int(word) for word in answer[0].split()) if answer else (0, 0, 0)
        return key, value, most

    def most(self) -> int:
        """How many entries it can hold."""
        return self._size()[2]

    def check(self) -> None:
        """Refused if the process was built from other headers than the object whose layouts we use."""
        if self._size()[:2] != (self.key.size, self.value.size):
            raise Refused(0, f"dysco-dpdk has another {self.name} than this agent: run `make build dpdk`, and end the old one")

    def raw(self, key: bytes, bytes_: int) -> bytes | None:
        """The value of a key as it lies in the table, filled up with zeros."""
        answer = self._channel.ask(f"get {self.name}", key)
        return answer[1].ljust(bytes_, b"\0") if answer else None

    def get(self, key: Any) -> Any | None:
        found = self.raw(self.key.encode(key), self.value.size)
        return None if found is None else self.value.decode(found)

    def put(self, key: Any, value: Mapping[str, Any] | int) -> None:
        self._channel.ask(f"put {self.name}", self.key.encode(key) + self.value.encode(value))

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All entries, some with each request: packets go on meanwhile."""
        at, size = "0", self.key.size + self.value.size
        while True:
            answer = self._channel.ask(f"next {self.name} {at}")
            at, body = answer if answer else ("0", b"")
            for begin in range(0, len(body), size):
                key, value = body[begin : begin + self.key.size], body[begin + self.key.size : begin + size]
                yield self.key.decode(key), self.value.decode(value)
            if at == "0":
                return


class EventStream:
    """Calls `on_record(bytes)` for each event; `fileno()` is readable when there are some."""

    def __init__(self, path: Path, size: int, on_record: Callable[[bytes], None]) -> None:
        self._channel, self._size, self._on_record = Channel(path), size, on_record
        self._channel.ask("events")
        self._channel.socket.setblocking(False)

    def fileno(self) -> int:
        return self._channel.socket.fileno()

    def consume(self) -> None:
        while True:
            try:
                data = self._channel.socket.recv(ANSWER_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            for at in range(0, len(data), self._size):
                self._on_record(data[at : at + self._size])

    def close(self) -> None:
        self._channel.close()


class DataPath:
    """A dysco-dpdk process: tables, commands, events.  The same calls as ebpf.loader.Programs."""

    marks = False  # a SYN loses them at the tap: tags are options

    def __init__(self, path: Path, btf: Btf, on_new_interface: Callable[[DataPath, int], None] = lambda _, __: None) -> None:
        self.btf, self._path, self._on_new_interface = btf, path, on_new_interface
        self._channel = Channel(path)
        for name in ("session_table", "reconfig_table", "egress_table", "config_table", "policy_table"):
            self.map(name).check()

    def map(self, name: str) -> Table:
        key, value = TABLES[name]
        return Table(self._channel, name, self._codec(key), self._codec(value))

    def _codec(self, kind: str | int) -> Codec:
        return Integer(kind) if isinstance(kind, int) else self.btf.layout(kind)

    def run(self, name: str, data: bytes) -> tuple[int, int]:
        """Runs a command; returns what the core answers.  `name` is that of the eBPF program and of no use here."""
        answer = self._channel.ask("run", data)
        return int(answer[0]) if answer else 0, 0

    def events(self, on_record: Callable[[bytes], None]) -> EventStream:
        return EventStream(self._path, self.btf.layout("event").size, on_record)

    def attach(self, ifindex: int) -> str:
        """Puts the data path in front of an interface that has come later.  Refused: it cannot."""
        if ifindex not in {pair["ifindex"] for pair in self.statistics()["pairs"]}:
            self._on_new_interface(self, ifindex)
        return "dpdk"

    def add_ports(self, wire: str, host: str) -> None:
        """One more pair of devices."""
        self._channel.ask(f"attach {wire} {host}")

    def release(self, nonce: int) -> int:
        """Lets what waits for a session go; returns how many segments."""
        answer = self._channel.ask("release", struct.pack("<Q", nonce))
        return int(answer[0]) if answer else 0

    def statistics(self) -> dict[str, Any]:
        """Frames of each pair of ports, counters; of all cores together and of each."""
        answer = self._channel.ask("stats")
        found: dict[str, Any] = json.loads(answer[1]) if answer else {}
        return found

    def close(self) -> None:
        self._channel.close()
