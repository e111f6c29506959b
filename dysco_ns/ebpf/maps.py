# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Access to one map, with its keys and values as Python values."""

from __future__ import annotations

import ctypes as c
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from dysco_ns.ebpf.libbpf import BpfError, check, lib

ENOENT = 2
BATCH = 1024


class Codec(Protocol):
    size: int

    def decode(self, data: bytes) -> Any: ...

    def encode(self, values: Any) -> bytes: ...


class Integer:
    """An unsigned integer of `size` bytes as a key or value."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._struct = struct.Struct({4: "<I", 8: "<Q"}[size])

    def decode(self, data: bytes) -> int:
        return int(self._struct.unpack(data)[0])

    def encode(self, values: int) -> bytes:
        return self._struct.pack(values)


class Map:
    """A map by its file descriptor.  Errors are BpfError and name the map."""

    def __init__(self, name: str, fd: int, key: Codec, value: Codec) -> None:
        self.name, self.fd, self.key, self.value = name, fd, key, value

    def most(self) -> int:
        """How many entries it can hold."""
        info, size = (c.c_uint32 * 5)(), c.c_uint32(20)  # struct bpf_map_info: type, id, key and value size, max_entries
        check(lib.bpf_obj_get_info_by_fd(self.fd, info, c.byref(size)), f"map {self.name}: reading its limits")
        return int(info[4])

    def get(self, key: Any) -> Any | None:
        buffer = c.create_string_buffer(self.value.size)
        if lib.bpf_map_lookup_elem(self.fd, self.key.encode(key), buffer) < 0:
            return None
        return self.value.decode(buffer.raw)

    def put(self, key: Any, value: Mapping[str, Any] | int) -> None:
        result = lib.bpf_map_update_elem(self.fd, self.key.encode(key), self.value.encode(value), 0)
        check(result, f"map {self.name}: writing {key}")

    def raw(self, key: bytes, bytes_: int) -> bytes | None:
        """The value of a key as it lies in the map (per-CPU maps: of all CPUs)."""
        buffer = c.create_string_buffer(bytes_)
        return buffer.raw if lib.bpf_map_lookup_elem(self.fd, key, buffer) == 0 else None

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All entries; one system call for each 1024."""
        keys = c.create_string_buffer(BATCH * self.key.size)
        values = c.create_string_buffer(BATCH * self.value.size)
        cursor, before = c.create_string_buffer(64), None
        while True:
            count = c.c_uint32(BATCH)
            result = lib.bpf_map_lookup_batch(self.fd, before, cursor, keys, values, c.byref(count), None)
            number = c.get_errno()
            if result < 0 and number != ENOENT:
                raise BpfError(number, f"map {self.name}: reading all entries")
            for i in range(count.value):
                key = keys.raw[i * self.key.size : (i + 1) * self.key.size]
                value = values.raw[i * self.value.size : (i + 1) * self.value.size]
                yield self.key.decode(key), self.value.decode(value)
            if result < 0:
                return
            before = cursor
