# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Layouts of C structures, read from an object's BTF: C stays the one definition.

Integers are little-endian as on the machine; a field whose type is named be32 is an IPv4 address and decodes to its
dotted form, be16 to an integer; arrays of bytes are bytes; structures are dicts, other arrays lists.
"""

from __future__ import annotations

import ctypes as c
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco_ns.ebpf.libbpf import BpfError, lib

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC_PROTO, VAR, DATASEC = 8, 9, 10, 11, 13, 14, 15
DECL_TAG, TYPE_TAG, ENUM64 = 17, 18, 19
_TRAILER = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_PER_MEMBER = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}
_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q", (4, True): "i", (8, True): "q"}


@dataclass(frozen=True)
class Type:
    name: str
    kind: int
    size: int  # or the id of the type that it refers to
    extra: tuple[Any, ...]


def _raw(path: Path) -> bytes:
    btf = lib.btf__parse(str(path).encode(), None)
    if not btf:
        raise BpfError(c.get_errno(), f"{path}: no BTF in it")
    size = c.c_uint32()
    data = c.string_at(lib.btf__raw_data(btf, c.byref(size)), size.value)
    lib.btf__free(btf)
    return data


class Btf:
    """The types of one object file."""

    def __init__(self, path: Path) -> None:
        data = _raw(path)
        _, _, _, header, type_at, type_bytes, text_at, _ = struct.unpack_from("<HBBIIIII", data)
        self._text = data[header + text_at :]
        self.types: list[Type] = [Type("void", 0, 0, ())]
        self.types.extend(self._read(data[header + type_at : header + type_at + type_bytes]))
        self._named = {(t.kind, t.name): t for t in self.types}
        self._layouts: dict[str, Layout] = {}

    def _string(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode()

    def _read(self, data: bytes) -> Iterator[Type]:
        at = 0
        while at < len(data):
            name, info, size = struct.unpack_from("<III", data, at)
            kind, count = (info >> 24) & 31, info & 0xFFFF
            at += 12
            body = data[at : at + _TRAILER.get(kind, 0) + _PER_MEMBER.get(kind, 0) * count]
            at += len(body)
            yield Type(self._string(name), kind, size, self._extra(kind, count, body))

    def _extra(self, kind: int, count: int, body: bytes) -> tuple[Any, ...]:
        if kind in (STRUCT, UNION):
            members = struct.iter_unpack("<III", body)
            return tuple((self._string(n), t, (bits & 0xFFFFFF) // 8) for n, t, bits in members)
        if kind == ENUM:
            return tuple((self._string(n), v) for n, v in struct.iter_unpack("<Ii", body))
        if kind == ARRAY:
            return struct.unpack("<III", body)
        return struct.unpack("<I", body) if kind == INT else ()

    def enum(self, name: str) -> dict[int, str]:
        """Value -> name of an enumeration.  KeyError if the object does not know it."""
        return {value: label for label, value in self._named[(ENUM, name)].extra}

    def flags(self, name: str, value: int) -> list[str]:
        """The names of the bits that are set in value."""
        return [label for bit, label in self.enum(name).items() if value & bit]

    def layout(self, name: str) -> Layout:
        """The layout of `struct name`.  KeyError if the object does not know it."""
        if name not in self._layouts:
            self._layouts[name] = Layout(self, self._named[(STRUCT, name)])
        return self._layouts[name]


class Layout:
    """Size of a structure in bytes, and its conversion from and to Python values."""

    def __init__(self, btf: Btf, type_: Type) -> None:
        self.size = type_.size
        self.name = type_.name
        self._btf = btf
        leaves = list(self._leaves(type_, 0, ()))
        self._paths = [path for path, _, _, _ in leaves]
        self._swap = [how for _, _, _, how in leaves]
        self._struct = struct.Struct(self._format(leaves))

    def _leaves(self, t: Type, at: int, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int, str, str]]:
        while t.kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
            if t.kind == TYPEDEF and t.name in ("be16", "be32"):
                yield path, at, "4s" if t.name == "be32" else "2s", t.name
                return
            t = self._btf.types[t.size]
        if t.kind == STRUCT and t.name != "bpf_spin_lock":
            for name, inner, offset in t.extra:
                yield from self._leaves(self._btf.types[inner], at + offset, (*path, name))
        elif t.kind == ARRAY:
            yield from self._array(t, at, path)
        elif t.kind in (INT, ENUM):
            signed = t.kind == INT and bool(t.extra[0] >> 24 & 1)
            yield path, at, _CODES[(t.size, signed)], ""

    def _array(self, t: Type, at: int, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int, str, str]]:
        element = self._btf.types[t.extra[0]]
        size = self._size(element)
        if size == 1:
            yield path, at, f"{t.extra[2]}s", ""
            return
        for i in range(t.extra[2]):
            yield from self._leaves(element, at + i * size, (*path, i))

    def _size(self, t: Type) -> int:
        while t.kind in (TYPEDEF, VOLATILE, CONST):
            t = self._btf.types[t.size]
        return int(self._size(self._btf.types[t.extra[0]]) * t.extra[2]) if t.kind == ARRAY else t.size

    def _format(self, leaves: list[tuple[tuple[Any, ...], int, str, str]]) -> str:
        text, at = "<", 0
        for _, offset, code, _ in leaves:
            text += f"{offset - at}x" if offset > at else ""
            text += code
            at = offset + struct.calcsize("<" + code)
        return text + (f"{self.size - at}x" if self.size > at else "")

    def decode(self, data: bytes) -> dict[str, Any]:
        """Field values of the structure in `data` (self.size bytes)."""
        result: dict[Any, Any] = {}
        for path, how, value in zip(self._paths, self._swap, self._struct.unpack(data), strict=True):
            if how == "be32":
                value = socket.inet_ntoa(value)
            elif how == "be16":
                value = int.from_bytes(value, "big")
            node = result
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = value
        return {key: _listed(value) for key, value in result.items()}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """The structure with these values; what is not given is zero.  KeyError for a field that does not exist."""
        flat = dict(_flatten(values, ()))
        packed = []
        for path, how in zip(self._paths, self._swap, strict=True):
            value = flat.pop(path, None)
            packed.append(_packed(value, how))
        if flat:
            raise KeyError(f"struct {self.name} has no field {'.'.join(map(str, next(iter(flat))))}")
        zeros = self._struct.unpack(bytes(self._struct.size))
        return self._struct.pack(*(z if v is None else v for v, z in zip(packed, zeros, strict=True)))


def _packed(value: Any, how: str) -> Any:
    if value is None or not how:
        return value
    if isinstance(value, str):
        return socket.inet_aton(value)
    return int(value).to_bytes(4 if how == "be32" else 2, "big")


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {key: _listed(inner) for key, inner in value.items()}
    return list(items.values()) if items and all(isinstance(key, int) for key in items) else items


def _flatten(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _flatten(inner, (*path, i))
    else:
        yield path, value
