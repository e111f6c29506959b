# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The part of libbpf and of bpf(2) that the agent uses, through ctypes.

libbpf rather than a Python BPF library: it is what distributions ship and maintain, it reads the object's BTF, and
no Python binding of it was beyond alpha when this was written.
"""

from __future__ import annotations

import ctypes as c
import os
import platform

SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)
BPF_LINK_CREATE, BPF_LINK_UPDATE = 28, 29
TCX_INGRESS, TCX_EGRESS = 46, 47
BPF_TC_INGRESS, BPF_TC_EGRESS, BPF_TC_F_REPLACE = 1, 2, 1

libc = c.CDLL(None, use_errno=True)
lib = c.CDLL("libbpf.so.1", use_errno=True)

PRINT = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, c.c_void_p)
RECORD = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_size_t)

_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "bpf_object__open_file": (c.c_void_p, [c.c_char_p, c.c_void_p]),
    "bpf_object__load": (c.c_int, [c.c_void_p]),
    "bpf_object__close": (None, [c.c_void_p]),
    "bpf_object__next_map": (c.c_void_p, [c.c_void_p, c.c_void_p]),
    "bpf_object__next_program": (c.c_void_p, [c.c_void_p, c.c_void_p]),
    "bpf_map__name": (c.c_char_p, [c.c_void_p]),
    "bpf_map__fd": (c.c_int, [c.c_void_p]),
    "bpf_map__set_pin_path": (c.c_int, [c.c_void_p, c.c_char_p]),
    "bpf_program__name": (c.c_char_p, [c.c_void_p]),
    "bpf_program__fd": (c.c_int, [c.c_void_p]),
    "bpf_program__set_log_buf": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t]),
    "bpf_obj_pin": (c.c_int, [c.c_int, c.c_char_p]),
    "bpf_obj_get": (c.c_int, [c.c_char_p]),
    "bpf_map_update_elem": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p, c.c_uint64]),
    "bpf_map_lookup_elem": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p]),
    "bpf_map_delete_elem": (c.c_int, [c.c_int, c.c_char_p]),
    "bpf_map_get_next_key": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p]),
    "bpf_obj_get_info_by_fd": (c.c_int, [c.c_int, c.c_void_p, c.c_void_p]),
    "bpf_map_lookup_batch": (
        c.c_int,
        [c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_void_p, c.POINTER(c.c_uint32), c.c_void_p],
    ),
    "bpf_tc_hook_create": (c.c_int, [c.c_void_p]),
    "bpf_tc_attach": (c.c_int, [c.c_void_p, c.c_void_p]),
    "bpf_tc_detach": (c.c_int, [c.c_void_p, c.c_void_p]),
    "bpf_prog_test_run_opts": (c.c_int, [c.c_int, c.c_void_p]),
    "ring_buffer__new": (c.c_void_p, [c.c_int, RECORD, c.c_void_p, c.c_void_p]),
    "ring_buffer__consume": (c.c_int, [c.c_void_p]),
    "ring_buffer__epoll_fd": (c.c_int, [c.c_void_p]),
    "ring_buffer__free": (None, [c.c_void_p]),
    "btf__parse": (c.c_void_p, [c.c_char_p, c.c_void_p]),
    "btf__raw_data": (c.c_void_p, [c.c_void_p, c.POINTER(c.c_uint32)]),
    "btf__free": (None, [c.c_void_p]),
    "libbpf_num_possible_cpus": (c.c_int, []),
}
for _name, (_result, _arguments) in _PROTOTYPES.items():
    _function = getattr(lib, _name)
    _function.restype = _result
    _function.argtypes = _arguments

_silent = PRINT(lambda level, text, arguments: 0)
lib.libbpf_set_print(_silent)


class TcHook(c.Structure):
    _fields_ = [
        ("sz", c.c_size_t),
        ("ifindex", c.c_int),
        ("attach_point", c.c_int),
        ("parent", c.c_uint32),
        ("qdisc", c.c_uint32),
    ]


class TcOptions(c.Structure):
    _fields_ = [
        ("sz", c.c_size_t),
        ("prog_fd", c.c_int),
        ("flags", c.c_uint32),
        ("prog_id", c.c_uint32),
        ("handle", c.c_uint32),
        ("priority", c.c_uint32),
        ("pad", c.c_uint32),
    ]


class TestRun(c.Structure):
    _fields_ = [
        ("sz", c.c_size_t),
        ("data_in", c.c_void_p),
        ("data_out", c.c_void_p),
        ("data_size_in", c.c_uint32),
        ("data_size_out", c.c_uint32),
        ("ctx_in", c.c_void_p),
        ("ctx_out", c.c_void_p),
        ("ctx_size_in", c.c_uint32),
        ("ctx_size_out", c.c_uint32),
        ("retval", c.c_uint32),
        ("repeat", c.c_int),
        ("duration", c.c_uint32),
        ("flags", c.c_uint32),
        ("cpu", c.c_uint32),
        ("batch_size", c.c_uint32),
    ]


class BpfError(OSError):
    """A bpf operation failed: errno, and what was being done to which object."""


def check(result: int, doing: str) -> int:
    """The result, or BpfError when it is negative (libbpf also returns -errno)."""
    if result < 0:
        number = c.get_errno() if result == -1 else -result
        raise BpfError(number, f"{doing}: {os.strerror(number)}")
    return result


def bpf(command: int, attributes: bytes, doing: str) -> int:
    """bpf(2) itself, for what libbpf 1.1 lacks (tcx links)."""
    buffer = c.create_string_buffer(attributes, max(len(attributes), 128))
    result = libc.syscall(SYS_BPF, command, buffer, len(buffer))
    if result < 0:
        number = c.get_errno()
        raise BpfError(number, f"{doing}: {os.strerror(number)}")
    return int(result)
