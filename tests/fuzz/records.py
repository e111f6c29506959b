# SPDX-License-Identifier: Apache-2.0
"""The inputs of host.c and filter.c, written: what was captured beside a host, as records that play it again.

The frames that arrive and those that the local stack sends are played.  What the agent has drawn at random (nonces, ports)
and what its daemon has commanded cannot be captured, but follows from what left.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dysco_ns.agent.core import FIRST_PORT, PORTS
from dysco_ns.agent.keys import hmac_states, read_key
from dysco_ns.ebpf.btf import Btf

ADDRESS, POLICY, KEY, OPTIONS, DRAW, PAUSE, ARRIVES, SIGNED, LEAVES, COMMAND = range(10)  # enum record of host.c
RECONFIGURE, RELEASE, CANCEL, SPLICE, TRIGGER, HEARTBEAT = 1, 3, 4, 7, 8, 13  # enum command_kind
SETUP, REQUEST_LOCK, ACK_LOCK, M_RELEASE, M_CANCEL, M_TRIGGER, M_HEARTBEAT = 1, 2, 3, 5, 7, 9, 10  # enum message_type
ASKS = {REQUEST_LOCK: RECONFIGURE, M_RELEASE: RELEASE, M_CANCEL: CANCEL, M_TRIGGER: TRIGGER, M_HEARTBEAT: HEARTBEAT}
SYN, ACK = 2, 16
MAGIC, FLAG_SIGNED, TLV_CHAIN, TLV_NEW_PATH = b"DY\x14", 1, 0x81, 0x82
AT_IP, AT_TCP, SETUP_BYTES, CONTROL_BYTES, MAX_CHAIN, PAUSE_S, ALL = 14, 34, 40, 52, 8, 0.02, 65535
FILE_HEADER, FRAME_HEADER = struct.Struct("<IHHiIII"), struct.Struct("<IIII")  # of a pcap file
CONTROL = struct.Struct("!III4x4sBBBB")  # txid, left anchor, right anchor, (delta), to, reason, flags, hops, window scale


@dataclass(frozen=True)
class Host:
    """`chains`: addresses of the middleboxes of each policy, and the edge that ends it; `key`: file of the key that signs."""

    addresses: tuple[str, ...]
    chains: Sequence[tuple[list[str], str | None]] = ()
    key: Path | None = None
    tags: bool = False


@dataclass(frozen=True)
class Seen:
    """A captured frame: in or out at an interface, or as the host's own stack has sent it."""

    time_s: float
    where: str
    frame: bytes

    @property
    def tuple_(self) -> bytes:
        return self.frame[AT_IP + 12 : AT_IP + 20] + self.frame[AT_TCP : AT_TCP + 4]

    @property
    def is_tcp(self) -> bool:
        return len(self.frame) >= AT_TCP + 20 and self.frame[AT_IP + 9] == socket.IPPROTO_TCP

    @property
    def flags(self) -> int:
        return self.frame[AT_TCP + 13] if self.is_tcp else 0

    @property
    def opens(self) -> bool:
        return self.flags & (SYN | ACK) == SYN

    @property
    def message(self) -> bytes:
        """The signalling message that it carries, empty if none."""
        at = AT_TCP + (self.frame[AT_TCP + 12] >> 4) * 4 if self.is_tcp else len(self.frame)
        found = self.frame[at:]
        return found if found[:3] == MAGIC and len(found) >= SETUP_BYTES else b""

    @property
    def kind(self) -> int:
        return self.message[3] if self.message else 0


def frames_of(file: Path) -> Iterator[tuple[float, bytes]]:
    """Time and bytes of each frame of a pcap file."""
    data, at = file.read_bytes(), FILE_HEADER.size
    while at + FRAME_HEADER.size <= len(data):
        seconds, micros, length, _ = FRAME_HEADER.unpack_from(data, at)
        at += FRAME_HEADER.size
        yield seconds + micros / 1e6, data[at : at + length]
        at += length


def program(insns: Sequence[dict[str, int]], frame: bytes) -> bytes:
    """An input of filter.c."""
    code = b"".join(struct.pack("<HBBI", i["code"], i["jt"], i["jf"], i["k"]) for i in insns)
    return bytes([len(insns)]) + code + frame


def _lists(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of the fields of a set-up message."""
    at, end = SETUP_BYTES, int.from_bytes(message[4:6], "big")
    while at + 2 <= end and message[at + 1] >= 2:
        yield message[at], message[at + 2 : at + message[at + 1]]
        at += message[at + 1]


def _new_paths(seen: Sequence[Seen]) -> dict[bytes, list[bytes]]:
    """By transaction: the middleboxes of each new path whose SYN has left here."""
    found = {}
    for s in seen:
        fields = dict(_lists(s.message)) if s.where == "out" and s.kind == SETUP else {}
        if TLV_NEW_PATH in fields:
            listed = fields.get(TLV_CHAIN, b"")
            rest = [listed[i : i + 4] for i in range(0, len(listed), 4)]  # it ends with the right anchor
            found.setdefault(fields[TLV_NEW_PATH][1:5], [s.frame[AT_IP + 16 : AT_IP + 20], *rest[:-1]] if rest else [])
    return found


def _asked(kind: int, nonce: bytes, txid: bytes = bytes(4), *, flags: int = 0, side: int = 1, anchor: bytes = bytes(4),
           chain: Sequence[bytes] = (), peer: bytes = bytes(8)) -> bytes:  # fmt: skip
    """struct asked of host.c."""
    listed = b"".join(chain).ljust(4 * MAX_CHAIN, b"\0")
    return bytes([COMMAND, kind, flags, side, len(chain)]) + txid + anchor + listed + nonce + peer


@dataclass
class Writer:
    """Records in the order in which they happen; what a later frame tells about an earlier one is put before that."""

    host: Host
    new_paths: dict[bytes, list[bytes]]
    parts: list[bytes] = field(default_factory=list)
    causes: list[int] = field(default_factory=list)  # places of what may have made a SYN leave: the last is the likeliest
    known: set[bytes] = field(default_factory=set)
    asked: set[tuple[int, bytes]] = field(default_factory=set)
    nonces: list[bytes] = field(default_factory=list)

    def begin(self) -> None:
        for address in self.host.addresses:
            self.parts.append(bytes([ADDRESS]) + socket.inet_aton(address))
        for chain, edge in self.host.chains:
            listed = [socket.inet_aton(a) for a in (*chain, *([edge] if edge else []))]
            self.parts.append(bytes([POLICY, 2 * bool(edge), len(listed)]) + b"".join(listed))
        if self.host.key:
            states = hmac_states(read_key(self.host.key))
            self.parts.append(bytes([KEY]) + struct.pack("!16I", *states["inner"], *states["outer"]))
        self.parts.append(bytes([OPTIONS, int(self.host.tags), 0]))

    def pause(self, seconds: float) -> None:
        if seconds >= PAUSE_S:
            self.parts.append(bytes([PAUSE]) + min(int(seconds * 1000), ALL).to_bytes(2, "big"))

    def frame(self, s: Seen) -> None:
        signed = s.message and s.message[6] & FLAG_SIGNED
        kind = LEAVES if s.where == "stack" else SIGNED if signed else ARRIVES
        if s.opens or s.kind == ACK_LOCK:
            self.causes.append(len(self.parts))
        self.parts.append(bytes([kind]) + len(s.frame).to_bytes(2, "big") + s.frame)

    def left(self, s: Seen) -> None:
        """What has left tells what was drawn, and what was commanded."""
        if s.kind == SETUP and s.opens:
            self._drawn(s)
        elif s.kind in ASKS and len(s.message) >= CONTROL_BYTES:
            self._commanded(s)

    def _drawn(self, s: Seen) -> None:
        if s.tuple_ in self.known or not self.causes:
            return
        self.known.add(s.tuple_)
        nonce, port = s.message[8:16], int.from_bytes(s.frame[AT_TCP : AT_TCP + 2], "big") - FIRST_PORT
        numbers = [port] if port >= 0 else []
        begins = bool(self.host.chains) and TLV_NEW_PATH not in dict(_lists(s.message))
        if begins:
            numbers = [int.from_bytes(nonce[4:], "little"), int.from_bytes(nonce[:4], "little"), *numbers]
        if nonce not in self.nonces:
            self.nonces.append(nonce)
        draws = b"".join(bytes([DRAW]) + (n & 0xFFFFFFFF).to_bytes(4, "big") for n in numbers)
        self.parts[self.causes[-1]] = draws + self.parts[self.causes[-1]]

    def _commanded(self, s: Seen) -> None:
        txid, left, right, _, _, flags, _, _ = CONTROL.unpack_from(s.message, 16)
        key, nonce = txid.to_bytes(4, "big"), s.message[8:16]
        own = [int.from_bytes(socket.inet_aton(a), "big") for a in self.host.addresses]
        if (s.kind, key) in self.asked or (left not in own and s.kind not in (M_TRIGGER, M_HEARTBEAT)):
            return
        self.asked.add((s.kind, key))
        if s.kind == M_TRIGGER:
            self.parts.append(_asked(SPLICE, nonce, peer=next((n for n in self.nonces if n != nonce), bytes(8))))
        handle = s.message[40:48] if s.kind == REQUEST_LOCK else nonce
        self.parts.append(_asked(ASKS[s.kind], handle, key, flags=flags, anchor=right.to_bytes(4, "big"),
                                 chain=self.new_paths.get(key, ())))  # fmt: skip


def records(host: Host, seen: Sequence[Seen]) -> bytes:
    """An input of host.c from what was seen beside a host, in the order of time."""
    writer = Writer(host, _new_paths(seen))
    writer.begin()
    before = seen[0].time_s if seen else 0.0
    for s in seen:
        writer.pause(s.time_s - before)
        before = s.time_s
        if s.where == "out":
            writer.left(s)
        elif s.where == "in" or s.frame[AT_IP + 12 : AT_IP + 16] in map(socket.inet_aton, host.addresses):
            writer.frame(s)
    return b"".join(writer.parts)


# ---- inputs of dpdk.c ----

REQUEST, FROM_WIRE, FROM_HOST = range(3)  # enum action
FIRST_HOP, ANY_ADDRESS, IFINDEX = 512, "0.0.0.0", 1
RETURN_ONE = {"code": 6, "jt": 0, "jf": 0, "k": 1}


def _record(action: int, data: bytes) -> bytes:
    return bytes([action]) + len(data).to_bytes(2, "big") + data


def _configured(host: Host, others: Sequence[str], btf: Btf) -> Iterator[bytes]:
    """Requests as the daemon of a host sends them: its tables, and the way to others."""

    def put(table: str, key: bytes, value: bytes) -> bytes:
        return _record(REQUEST, f"put {table}\n".encode() + key + value)

    yield put("config_table", bytes(4), btf.layout("config").encode({
        "layout_version": 1, "flags": 3, "first_port": FIRST_PORT, "ports": PORTS, "policy_slots": len(host.chains), "domains": 1,
        "domain": [{"sign": int(host.key is not None)}], "interface_count": len(host.addresses),
        "interfaces": [{"ifindex": IFINDEX, "address": a} for a in host.addresses]}))  # fmt: skip
    for i, (chain, edge) in enumerate(host.chains):
        listed = [*chain, *([edge] if edge else [])]
        policy = {
            "id": 1,
            "insns": 1,
            "chain_length": len(listed),
            "chain": listed,
            "ends": int(bool(edge)),
            "filter": [RETURN_ONE],
        }
        yield put("policy_table", i.to_bytes(4, "little"), btf.layout("policy").encode(policy))
    if host.key:
        states = {**hmac_states(read_key(host.key)), "valid": 1}
        yield put("key_table", bytes(4), btf.layout("hmac_key").encode(states))
    for number, address in enumerate(others, FIRST_HOP):
        hop = {"address": address, "ifindex": IFINDEX, "resolved": 1, "from": host.addresses[0]}
        index = number.to_bytes(4, "little")
        yield put("next_hop_table", index, btf.layout("next_hop").encode(hop))
        yield put("next_hop_index", btf.layout("hop_key").encode({"address": address, "from": ANY_ADDRESS}), index)


def port_records(host: Host, seen: Sequence[Seen], btf: Btf) -> bytes:
    """An input of dpdk.c: a host is configured, then its ports get what was seen; at last it is asked how it went."""
    ends = {socket.inet_ntoa(s.frame[at : at + 4]) for s in seen if s.is_tcp for at in (AT_IP + 12, AT_IP + 16)}
    frames = (_record(FROM_WIRE if s.where == "in" else FROM_HOST, s.frame) for s in seen if s.where != "out")
    asks = (_record(REQUEST, line) for line in (b"stats\n", b"next session_table 0\n", b"size egress_table\n"))
    return b"".join([*_configured(host, sorted(ends - set(host.addresses)), btf), *frames, *asks])
