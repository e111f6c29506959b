# SPDX-License-Identifier: Apache-2.0
"""The host library (dysco_ns/host/bytes.h) as a backend of an agent: tables, commands and passes of frames."""

import ctypes as c
import socket
import struct
from functools import cache
from pathlib import Path

from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT, TABLES
from dysco_ns.ebpf.maps import Integer

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "libhost.so"
ON, DROPPED, WIRE, LOCAL, PARKED = range(5)  # enum way
EGRESS, EGRESS_PARKED, INGRESS = range(3)  # enum pass
AT_COMMAND, FRAME_BYTES = 14, 1 << 14


@cache
def library():
    lib = c.CDLL(str(LIBRARY))
    lib.agent_new.restype = lib.bytes_get.restype = c.c_void_p
    return lib


@cache
def layouts():
    return Btf(OBJECT)


class Table:
    """One table of an agent, with its keys and values as Python values (agent.core.Table)."""

    def __init__(self, agent, name, key, value):
        self._agent, self._name, self.key, self.value = agent, name.encode(), key, value
        size = library().bytes_of_value(agent, self._name)
        assert size == value.size, f"{name}: {size} bytes in the library, {value.size} in the eBPF object"

    def most(self):
        return library().bytes_most(self._agent, self._name)

    def raw(self, key, bytes_):
        at = library().bytes_get(self._agent, self._name, key)
        return c.string_at(at, self.value.size).ljust(bytes_, b"\0") if at else None

    def get(self, key):
        found = self.raw(self.key.encode(key), self.value.size)
        return None if found is None else self.value.decode(found)

    def put(self, key, value):
        assert not library().bytes_put(self._agent, self._name, self.key.encode(key), self.value.encode(value))

    def items(self):
        keys = c.create_string_buffer(self.most() * self.key.size)
        count = library().bytes_keys(self._agent, self._name, keys)
        for at in range(0, count * self.key.size, self.key.size):
            raw = keys[at : at + self.key.size]
            yield self.key.decode(raw), self.value.decode(self.raw(raw, self.value.size))


class HostLibrary:
    """The data path of one agent (agent.core.Backend).  What a pass sends beside its frame goes to `send(way, frame, tag)`;
    `clock()` is in seconds."""

    parks = marks = True

    def __init__(self, address, seed, send, clock):
        (own,) = struct.unpack("<I", socket.inet_aton(address))
        self._agent = c.c_void_p(library().agent_new(own, c.c_uint64(seed)))
        self._send, self._clock = send, clock
        self.btf = layouts()
        self._buffer, self._length, self._tag = c.create_string_buffer(FRAME_BYTES), c.c_uint32(), c.c_uint64()
        self._event = c.create_string_buffer(self.btf.layout("event").size)

    def free(self):
        library().agent_free(self._agent)

    def map(self, name):
        key, value = (Integer(kind) if isinstance(kind, int) else self.btf.layout(kind) for kind in TABLES[name])
        return Table(self._agent, name, key, value)

    def _now(self):
        library().agent_set_time(self._agent, c.c_uint64(int(self._clock() * 1e9)))

    def run(self, name, data):
        assert name == "dysco_command"
        self._now()
        refusal = library().agent_command(self._agent, data[AT_COMMAND:])
        self._flush()
        return refusal, 0

    def pass_(self, which, frame, tag=0):
        """Passes a frame through the agent: way, frame and tag as they come out."""
        self._now()
        c.memmove(self._buffer, frame, len(frame))
        self._length.value, self._tag.value = len(frame), tag
        way = library().bytes_pass(self._agent, which, self._buffer, c.byref(self._length), c.byref(self._tag))
        result = way, c.string_at(self._buffer, self._length.value), self._tag.value
        self._flush()
        return result

    def _flush(self):
        sent = []
        while (way := library().bytes_sent(self._agent, self._buffer, c.byref(self._length), c.byref(self._tag))) >= 0:
            sent.append((way, c.string_at(self._buffer, self._length.value), self._tag.value))
        for one in sent:
            self._send(*one)

    def events(self, on_record):
        return Events(self._agent, self._event, on_record)


class Events:
    """What the core has told since the last time (agent.core.Events)."""

    def __init__(self, agent, buffer, on_record):
        self._agent, self._buffer, self._on_record = agent, buffer, on_record

    def consume(self):
        while library().agent_event(self._agent, self._buffer):
            self._on_record(self._buffer.raw)
