# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Loads the tc programs for one namespace, pins them, and attaches them to its interfaces.

Pinned maps and programs outlive the daemon.  A restarted daemon finds programs of the same object there and only
opens them; another object with the same layout is loaded over the old maps and replaces the old programs at once.
"""

from __future__ import annotations

import ctypes as c
import hashlib
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dysco_ns.ebpf import libbpf
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.events import EventRing
from dysco_ns.ebpf.libbpf import BpfError, bpf, check, lib
from dysco_ns.ebpf.maps import Codec, Integer, Map

OBJECT = Path(__file__).resolve().parents[2] / "build" / "dysco.bpf.o"
LOG_BYTES = 1 << 16
LOG_LINES = 12

# how the maps of dysco.bpf.o are keyed; layouts by name are the object's own
TABLES: dict[str, tuple[str | int, str | int]] = {
    "egress_table": ("five_tuple", "entry"),
    "ingress_table": ("five_tuple", "entry"),
    "session_table": (8, "session"),
    "reconfig_table": ("reconfig_key", "reconfig"),
    "next_hop_table": (4, "next_hop"),
    "config_table": (4, "config"),
    "policy_table": (4, "policy"),
    "key_table": (4, "hmac_key"),
    "type_table": (4, "middlebox_type"),
    "member_table": (4, 8),
    "counter_table": (4, 8),
    "event_ring": (4, 4),
    "next_hop_count": (4, 4),
    "next_hop_index": ("hop_key", 4),
    "program_table": (4, 4),
}


class LoadFailed(Exception):
    """The kernel refused a program: its name and the end of the verifier's log."""


class LayoutMismatch(Exception):
    """Pinned maps of another layout are in the way."""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class Programs:
    """The programs and maps of one namespace, loaded or found pinned under `pins`."""

    marks = True  # a SYN keeps its mark through the kernel
    release = None  # segments wait at an interface of the daemon's

    def __init__(self, pins: Path, object_path: Path = OBJECT, btf: Btf | None = None) -> None:
        if not object_path.exists():
            raise LoadFailed(f"{object_path.name} is not built: run `make build`")
        self.pins = pins
        self.btf = btf or Btf(object_path)
        self._maps: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._tag = pins / f"object-{digest(object_path)}"
        self.fresh = not self._tag.exists()
        if self.fresh:
            self._load(object_path)
        else:
            self._reopen()

    # ---- maps ----

    def map(self, name: str) -> Map:
        key, value = TABLES[name]
        return Map(name, self._maps[name], self._codec(key), self._codec(value))

    def _codec(self, kind: str | int) -> Codec:
        return Integer(kind) if isinstance(kind, int) else self.btf.layout(kind)

    def program(self, name: str) -> int:
        """The file descriptor of a program."""
        return self._programs[name]

    # ---- load ----

    def _load(self, path: Path) -> None:
        self.pins.mkdir(parents=True, exist_ok=True)
        handle = lib.bpf_object__open_file(str(path).encode(), None)
        if not handle:
            raise LoadFailed(f"{path.name}: not an eBPF object")
        logs: dict[str, c.Array[c.c_char]] = {}
        for name, m in _each(lib.bpf_object__next_map, handle, lib.bpf_map__name):
            if "." not in name:
                check(lib.bpf_map__set_pin_path(m, str(self.pins / name[-15:]).encode()), f"map {name}")
        for name, p in _each(lib.bpf_object__next_program, handle, lib.bpf_program__name):
            logs[name] = c.create_string_buffer(LOG_BYTES)
            lib.bpf_program__set_log_buf(p, logs[name], LOG_BYTES)
        result = lib.bpf_object__load(handle)
        if result:
            lib.bpf_object__close(handle)
            raise self._why(-result, logs)
        for name, m in _each(lib.bpf_object__next_map, handle, lib.bpf_map__name):
            if "." not in name:
                self._maps[name] = os.dup(lib.bpf_map__fd(m))
        for name, p in _each(lib.bpf_object__next_program, handle, lib.bpf_program__name):
            self._programs[name] = os.dup(lib.bpf_program__fd(p))
        lib.bpf_object__close(handle)
        self._link_steps()
        self._pin()

    def _why(self, number: int, logs: dict[str, c.Array[c.c_char]]) -> Exception:
        for name, log in logs.items():
            lines = log.value.decode(errors="replace").strip().splitlines()
            if lines and "verification" not in lines[-1] and "safe" not in lines[-1]:
                return LoadFailed(f"program {name}: {os.strerror(number)}\n" + "\n".join(lines[-LOG_LINES:]))
        if number == 22 and any(self.pins.iterdir()):
            return LayoutMismatch(
                f"maps pinned in {self.pins} have another layout: end their sessions, then remove the directory"
            )
        return LoadFailed(f"loading failed: {os.strerror(number)}")

    def _link_steps(self) -> None:
        """Index of the program table = the core's verdict: enum next_program names the program."""
        table = self.map("program_table")
        steps = {n.lower().removeprefix("next_"): i for i, n in self.btf.enum("next_program").items()}
        for step, index in steps.items():
            table.put(index, self._programs[_PROGRAM_OF.get(step, f"dysco_{step}")])

    def _pin(self) -> None:
        for name, fd in self._programs.items():
            path = self.pins / f"p_{name}"
            path.unlink(missing_ok=True)
            check(lib.bpf_obj_pin(fd, str(path).encode()), f"pinning {name}")
        for old in self.pins.glob("object-*"):
            old.rmdir()
        self._tag.mkdir()

    def _reopen(self) -> None:
        for path in self.pins.iterdir():
            if path.name.startswith("p_"):
                self._programs[path.name[2:]] = _open_pin(path)
        for name in TABLES:
            self._maps[name] = _open_pin(self.pins / name[-15:])

    # ---- attach ----

    def attach(self, ifindex: int) -> str:
        """Both programs on an interface of the current namespace.  Returns how: tcx or clsact."""
        try:
            for hook, name in ((libbpf.TCX_INGRESS, "dysco_ingress"), (libbpf.TCX_EGRESS, "dysco_egress")):
                self._attach_tcx(ifindex, hook, self._programs[name])
            return "tcx"
        except BpfError as error:
            if error.errno not in (22, 95, 524):  # no tcx before Linux 6.6
                raise
        for point, name in ((libbpf.BPF_TC_INGRESS, "dysco_ingress"), (libbpf.BPF_TC_EGRESS, "dysco_egress")):
            self._attach_clsact(ifindex, point, self._programs[name])
        return "clsact"

    def _attach_tcx(self, ifindex: int, hook: int, program: int) -> None:
        pin = self.pins / f"link_{ifindex}_{hook}"
        if pin.exists():
            fd = _open_pin(pin)
            bpf(libbpf.BPF_LINK_UPDATE, struct.pack("<IIII", fd, program, 0, 0), f"replacing on interface {ifindex}")
        else:
            fd = bpf(libbpf.BPF_LINK_CREATE, struct.pack("<IIII", program, ifindex, hook, 0), f"attaching to interface {ifindex}")
            check(lib.bpf_obj_pin(fd, str(pin).encode()), "pinning link")
        os.close(fd)

    def _attach_clsact(self, ifindex: int, point: int, program: int) -> None:
        hook = libbpf.TcHook(c.sizeof(libbpf.TcHook), ifindex, point, 0, 0)
        result = lib.bpf_tc_hook_create(c.byref(hook))
        if result not in (0, -17):
            check(result, f"clsact on interface {ifindex}")
        options = libbpf.TcOptions(c.sizeof(libbpf.TcOptions), program, libbpf.BPF_TC_F_REPLACE, 0, 1, 1, 0)
        check(lib.bpf_tc_attach(c.byref(hook), c.byref(options)), f"attaching to interface {ifindex}")

    # ---- run ----

    def run(self, name: str, data: bytes, repeat: int = 0) -> tuple[int, int]:
        """Runs a program on a packet (BPF_PROG_RUN).  Returns its verdict and, for repeat > 0, ns for one run."""
        buffer = c.create_string_buffer(data, len(data))
        o = libbpf.TestRun(sz=c.sizeof(libbpf.TestRun), data_in=c.addressof(buffer), data_size_in=len(data), repeat=repeat)
        check(lib.bpf_prog_test_run_opts(self._programs[name], c.byref(o)), f"running {name}")
        return int(o.retval), int(o.duration)

    def events(self, on_record: Callable[[bytes], None]) -> EventRing:
        """The ring of events: `on_record` gets each as it lies there."""
        return EventRing(self.map("event_ring").fd, on_record)

    def close(self) -> None:
        for fd in (*self._maps.values(), *self._programs.values()):
            os.close(fd)


_PROGRAM_OF = {"control": "dysco_control_ingress", "lock": "dysco_lock_step", "answer": "dysco_answer_step",
               "release": "dysco_release_step", "tombstone": "dysco_tombstone_egress", "icmp": "dysco_icmp_ingress"}  # fmt: skip


def _each(step: Any, handle: Any, name_of: Any) -> Iterator[tuple[str, Any]]:
    item = step(handle, None)
    while item:
        yield name_of(item).decode(), item
        item = step(handle, item)


def _open_pin(path: Path) -> int:
    return check(lib.bpf_obj_get(str(path).encode()), f"opening {path}")


def remove(pins: Path) -> None:
    """Detaches and forgets all that an agent pinned; tcx links go with their pins.  May run twice."""
    if pins.exists():
        for path in pins.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        shutil.rmtree(pins, ignore_errors=True)
