# SPDX-License-Identifier: Apache-2.0
"""The daemon's view of the data path: tables as Python values, and commands to the core.

Nothing here decides anything; nothing here writes a session.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.libbpf import lib
from dysco_ns.netns import Interface

CONFIG_EVENTS, CONFIG_TAG_OPTION = 1, 2
FIRST_PORT, PORTS = 20000, 6384  # subsessions; control sessions use as many above: all below Linux's default for sockets
MAX_INTERFACES = 8  # addresses of its own that an agent knows
PACKET_BYTES = 320
MAX_POLICIES = 64
LIVE = ("session_started", "session_joined", "session_forgotten")
ETHERTYPE = b"\x08\x00"

Tuple4 = tuple[str, int, str, int]


class Table(Protocol):
    """A table of the data path, with its keys and values as Python values."""

    def most(self) -> int: ...

    def raw(self, key: bytes, bytes_: int) -> bytes | None: ...

    def get(self, key: Any) -> Any | None: ...

    def put(self, key: Any, value: Mapping[str, Any] | int) -> None: ...

    def items(self) -> Iterator[tuple[Any, Any]]: ...


class Events(Protocol):
    """Where events come from: readable when there are some."""

    def fileno(self) -> int: ...

    def consume(self) -> None: ...


class Backend(Protocol):
    """A data path: ebpf.loader.Programs in the kernel, dpdk.client.DataPath in a process."""

    @property
    def btf(self) -> Btf: ...

    @property
    def parks(self) -> bool: ...

    @property
    def marks(self) -> bool: ...

    def map(self, name: str) -> Table: ...

    def attach(self, ifindex: int) -> str: ...

    def run(self, name: str, data: bytes) -> tuple[int, int]: ...

    def events(self, on_record: Callable[[bytes], None]) -> Events: ...


@dataclass(frozen=True)
class Event:
    """One protocol event of the data path; time in ns, monotonic."""

    time_ns: int
    kind: str
    nonce: int
    txid: int
    value: int
    side: int


class Core:
    """One namespace's data path and tables."""

    def __init__(self, programs: Backend) -> None:
        self.programs = programs
        btf = programs.btf
        self.btf = btf
        self.sessions_map = programs.map("session_table")
        self.egress_map = programs.map("egress_table")
        self.ingress_map = programs.map("ingress_table")
        self.reconfig_map = programs.map("reconfig_table")
        self.commands = {n.removeprefix("COMMAND_").lower(): v for v, n in btf.enum("command_kind").items()}
        self.refusals = {v: n.removeprefix("REFUSED_").lower() for v, n in btf.enum("refusal").items()}
        self._kinds = {v: n.removeprefix("EVENT_").lower() for v, n in btf.enum("event_kind").items()}
        self._counter = {n.removeprefix("COUNT_").lower(): v for v, n in btf.enum("counter").items()}
        self._cpus = lib.libbpf_num_possible_cpus()
        self.most_sessions = self.sessions_map.most()
        self._event = btf.layout("event")
        self._command = btf.layout("command")
        self.interfaces: list[Interface] = []
        config = programs.map("config_table").get(0)  # an earlier daemon's policies stay in force
        self._policy_slots: int = config["policy_slots"] if config else 0

    # ---- configuration ----

    def configure(
        self,
        interfaces: list[Interface],
        *,
        domains: list[dict[str, Any]],
        events: bool,
        throttle: int | None = None,
        parking: int = 0,
        tag_option: bool = False,
    ) -> None:
        """Writes struct config.  `events`: somebody listens to all of them; `throttle`: most bytes of window that are
        offered while a session is reconfigured; `parking`: index of the interface where segments wait;
        `tag_option`: SYNs that a middlebox takes to user space are recognised afterwards."""
        self.interfaces = interfaces
        self.programs.map("config_table").put(
            0,
            {
                "layout_version": 1,
                "flags": (CONFIG_EVENTS if events else 0) | (CONFIG_TAG_OPTION if tag_option else 0),
                "parking": parking,
                "throttle": 0 if throttle is None else throttle + 1,
                "first_port": FIRST_PORT,
                "ports": PORTS,
                "policy_slots": self._policy_slots,
                "interface_count": len(interfaces),
                "domains": len(domains),
                "domain": domains,
                "interfaces": [{"ifindex": i.index, "address": i.address} for i in interfaces],
            },
        )

    def domains(self) -> list[int]:
        """By domain, the number of the key that an earlier daemon of this namespace signed with."""
        config = self.programs.map("config_table").get(0)
        return [int(d["key"]) for d in config["domain"][: config["domains"]]] if config else []

    def set_key(self, slot: int, states: dict[str, list[int]]) -> None:
        self.programs.map("key_table").put(slot, {**states, "valid": 1})

    def drop_key(self, slot: int) -> None:
        self.programs.map("key_table").put(slot, {})

    def set_type(self, slot: int, fields: dict[str, Any]) -> None:
        self.programs.map("type_table").put(slot, fields)

    def member_sessions(self) -> dict[str, int]:
        """Address of a middlebox that a type has given -> live sessions that begin here and go to it."""
        return {address_of_value(key): count for key, count in self.programs.map("member_table").items()}

    def put_policies(self, policies: Sequence[dict[str, Any]]) -> None:
        """Beside those in force, whose place they take when configure() is called: all at once."""
        first = 0 if self._policy_slots >> 16 else MAX_POLICIES
        for slot, policy in enumerate(policies, first):
            self.programs.map("policy_table").put(slot, policy)
        self._policy_slots = first << 16 | len(policies)

    # ---- reading ----

    def counters(self) -> dict[str, int]:
        """Counter name -> packets, only those that are not zero."""
        totals = {name: self._count(index) for name, index in self._counter.items()}
        return {name: total for name, total in totals.items() if total}

    def _count(self, index: int) -> int:
        raw = self.programs.map("counter_table").raw(struct.pack("<I", index), 8 * self._cpus)
        return sum(struct.unpack(f"<{self._cpus}Q", raw)) if raw else 0

    def live_sessions(self) -> int:
        """Sessions in the table, by what the data path has counted."""
        started, joined, forgotten = (self._count(self._counter[n]) for n in LIVE)
        return started + joined - forgotten

    def table_sizes(self) -> dict[str, int]:
        """Entries in each table that sessions fill."""
        tables = {"sessions": self.sessions_map, "records": self.reconfig_map, "egress": self.egress_map,
                  "ingress": self.ingress_map}  # fmt: skip
        return {name: sum(1 for _ in table.items()) for name, table in tables.items()}

    def session(self, nonce: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.sessions_map.get(nonce)
        return found

    def sessions(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self.sessions_map.items()

    def new_txid(self, nonce: int) -> int:
        """A transaction of an epoch that is new to the session, as far as this agent has heard (core/freshness.h)."""
        s = self.session(nonce)
        epoch = (s["newest"] >> 16) + 1 if s else 1
        return (epoch << 16 & 0xFFFFFFFF | int.from_bytes(os.urandom(2), "little")) or 1

    def record(self, nonce: int, side: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.reconfig_map.get({"nonce": nonce, "side": side})
        return found

    def records(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        yield from self.reconfig_map.items()

    def session_of(self, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
        """The nonce of the session of a local socket."""
        key = {"src": local[0], "sport": local[1], "dst": remote[0], "dport": remote[1]}
        entry = self.egress_map.get(key)
        return entry["nonce"] if entry else None

    # ---- commands ----

    def expire(self, linger_s: float, idle_s: float, beat_s: float) -> bool:
        """Forgets what has been over for `linger_s`, or silent for `idle_s` (0: does not look); tells of sessions that
        have been silent for `beat_s` (0: does not).  False: not all yet."""
        linger, idle, beat = (int(seconds * 1e9) for seconds in (linger_s, idle_s, beat_s))
        return self.command("expire", linger_ns=linger, idle_ns=idle, beat_ns=beat) == "not"

    def unpark(self, nonce: int, txid: int, side: int, gone: int) -> bool:
        """Segments of a session leave at once again.  False: not yet, more has been told to wait than the `gone` bytes."""
        return self.command("unpark", nonce=nonce, txid=txid, side=side, parked=gone) != "busy"

    def command(self, kind: str, interface: Interface | None = None, **fields: Any) -> str:
        """Runs one command in the data path.  Returns "not" (not refused) or the reason's name."""
        values = {"kind": self.commands[kind], **fields}
        mac = interface.mac if interface else bytes(6)
        if interface:
            values["ifindex"] = interface.index
        packet = (mac + bytes(6) + ETHERTYPE + self._command.encode(values)).ljust(PACKET_BYTES, b"\0")
        verdict, _ = self.programs.run("dysco_command", packet)
        return self.refusals.get(verdict, f"verdict {verdict}")

    def decode_event(self, data: bytes) -> Event:
        v = self._event.decode(data)
        return Event(v["time_ns"], self._kinds.get(v["kind"], "?"), v["nonce"], v["txid"], v["value"], v["side"])

    def event_ring(self, on_event: Any) -> Events:
        return self.programs.events(lambda data: on_event(self.decode_event(data)))


def beat_txid() -> int:
    """A number for one heartbeat."""
    return int.from_bytes(os.urandom(4), "little") | 1


def address_of_value(value: int) -> str:
    """An event's value that is an IPv4 address in network order."""
    return socket.inet_ntoa(struct.pack("<I", value))
