# SPDX-License-Identifier: Apache-2.0
"""Policy predicates: pcap-filter(7) expressions, compiled to classic BPF by libpcap itself."""

from __future__ import annotations

import ctypes as c
import threading

MAX_FILTER = 64
DLT_EN10MB = 1
SNAPLEN = 65535
_NETMASK_UNKNOWN = 0xFFFFFFFF
_SKF_AD_OFF = 0xFFFFF000  # loads from here on are Linux extensions, not packet bytes


class BadFilter(Exception):
    """An expression that libpcap or the core does not take; says why."""


class _Insn(c.Structure):
    _fields_ = [("code", c.c_uint16), ("jt", c.c_uint8), ("jf", c.c_uint8), ("k", c.c_uint32)]


class _Program(c.Structure):
    _fields_ = [("length", c.c_uint), ("insns", c.POINTER(_Insn))]


_pcap = c.CDLL("libpcap.so.0.8")
_pcap.pcap_open_dead.restype = c.c_void_p
_pcap.pcap_open_dead.argtypes = [c.c_int, c.c_int]
_pcap.pcap_geterr.restype = c.c_char_p
_pcap.pcap_geterr.argtypes = [c.c_void_p]
_pcap.pcap_compile.argtypes = [c.c_void_p, c.POINTER(_Program), c.c_char_p, c.c_int, c.c_uint32]
_pcap.pcap_freecode.argtypes = [c.POINTER(_Program)]
_pcap.pcap_close.argtypes = [c.c_void_p]
_lock = threading.Lock()  # pcap_compile was not reentrant before libpcap 1.8


def compile_filter(expression: str) -> list[dict[str, int]]:
    """The instructions (fields of struct filter_insn) of an expression over Ethernet frames."""
    if "\0" in expression:
        raise BadFilter(f"filter {expression!r}: libpcap would not read beyond the zero in it")
    with _lock:
        handle = _pcap.pcap_open_dead(DLT_EN10MB, SNAPLEN)
        program = _Program()
        try:
            if _pcap.pcap_compile(handle, c.byref(program), expression.encode(), 1, _NETMASK_UNKNOWN):
                reason = _pcap.pcap_geterr(handle).decode()
                raise BadFilter(f"filter '{expression}': {reason} (pcap-filter(7) has the syntax)")
            insns = [{"code": i.code, "jt": i.jt, "jf": i.jf, "k": i.k} for i in program.insns[: program.length]]
            _pcap.pcap_freecode(c.byref(program))
        finally:
            _pcap.pcap_close(handle)
    if len(insns) > MAX_FILTER:
        raise BadFilter(f"filter '{expression}' compiles to {len(insns)} instructions: {MAX_FILTER} are the limit")
    if any(i["code"] & 0xE7 in (0x20, 0x00) and i["k"] >= _SKF_AD_OFF for i in insns if i["code"] & 0xE0 == 0x20):
        raise BadFilter(f"filter '{expression}' looks beyond the packet: only packet contents can be matched")
    return insns


class Matcher:
    """A filter over a session's five-tuple: it is shown a SYN of that session."""

    def __init__(self, expression: str) -> None:
        self._insns = (_Insn * MAX_FILTER)()
        compiled = compile_filter(expression)
        for i, insn in enumerate(compiled):
            self._insns[i] = _Insn(**insn)
        self._program = _Program(len(compiled), c.cast(self._insns, c.POINTER(_Insn)))

    def __call__(self, src: bytes, dst: bytes, sport: int, dport: int) -> bool:
        ip = b"\x45\0\0\x28\0\0\x40\0\x40\x06\0\0" + src + dst
        tcp = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8) + b"\x50\x02\xff\xff\0\0\0\0"
        frame = bytes(12) + b"\x08\0" + ip + tcp
        _pcap.bpf_filter.restype = c.c_uint
        return bool(_pcap.bpf_filter(self._program.insns, frame, len(frame), len(frame)))
