# SPDX-License-Identifier: Apache-2.0
"""The dysco-dpdk process of a namespace: started once, found again by a later daemon, ended with what it changed undone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from dysco_ns import netns
from dysco_ns.dpdk import takeover
from dysco_ns.dpdk.client import DataPath, DataPathGone
from dysco_ns.dpdk.takeover import Pair
from dysco_ns.ebpf.btf import Btf

BUILD = Path(__file__).resolve().parents[2] / "build"
PROGRAM = BUILD / os.environ.get("DYSCO_DPDK", "dysco-dpdk")  # the sanitized build, for the tests
START_S, END_S = 30.0, 5.0
SESSIONS = 16384  # as the eBPF backend has them
COMM_BYTES = 15  # of a process's name that /proc shows


class StartFailed(Exception):
    """dysco-dpdk did not start; its own word."""


def socket_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk"


def _state_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk.json"


def _log_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk.log"


def open_data_path(
    namespace: int, btf: Btf, poll: bool = False, workers: int = 1, interfaces: Sequence[str] = ()
) -> DataPath:
    """The data path of the current namespace: the one that runs, or a new one.  StartFailed, DataPathGone, Refused."""
    found = partial(DataPath, socket_path(namespace), btf, partial(_take_new, namespace))
    try:
        return found()
    except DataPathGone:
        remove(namespace)  # what one that died has left
    pairs = takeover.pairs_for(netns.interfaces(interfaces))
    if not pairs:
        raise StartFailed("no interface here has an address: there is nothing to put DPDK in front of")
    process = _start(namespace, pairs, ["--workers", str(workers), *(["--poll"] if poll else [])])
    state: dict[str, Any] = {"pid": process.pid, "pairs": [pair.as_json() for pair in pairs], "had": []}
    _write_state(namespace, state)
    try:
        state["had"] = takeover.take(pairs)
        _write_state(namespace, state)
        return found()
    except BaseException:
        remove(namespace)
        raise


def _write_state(namespace: int, state: dict[str, Any]) -> None:
    _state_path(namespace).write_text(json.dumps(state))


def _take_new(namespace: int, data_path: DataPath, ifindex: int) -> None:
    """An interface that has come later: one more pair of ports.  Refused, and it is as it was, if that cannot be."""
    state = json.loads(_state_path(namespace).read_text())
    found = [i for i in netns.interfaces() if i.index == ifindex]
    for pair in takeover.pairs_for(found, len(state["pairs"])):
        data_path.add_ports(pair.wire_device, pair.host_device)
        state["pairs"].append(pair.as_json())
        _write_state(namespace, state)
        state["had"] += takeover.take([pair])
        _write_state(namespace, state)


def _start(namespace: int, pairs: list[Pair], options: list[str]) -> subprocess.Popen[bytes]:
    if not PROGRAM.exists():
        raise StartFailed("dysco-dpdk is not built: run `make dpdk`")
    argv = [str(PROGRAM), *(word for pair in pairs for word in pair.devices), "--socket", str(socket_path(namespace)),
            "--prefix", f"dysco-{namespace}", "--sessions", str(SESSIONS), *options]  # fmt: skip
    with _log_path(namespace).open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    word = process.stdout.readline() if readable else b""
    process.stdout.close()
    if word.strip() != b"ready":
        process.kill()
        process.wait()
        raise StartFailed(_log_path(namespace).read_text().strip() or "dysco-dpdk did not get ready")
    return process


def runs(namespace: int) -> bool:
    """Whether a namespace has a DPDK data path."""
    path = _state_path(namespace)
    return path.exists() and _alive(int(json.loads(path.read_text())["pid"]))


def remove(namespace: int) -> None:
    """Ends the data path of a namespace; its interfaces are as they were.  May run twice."""
    path = _state_path(namespace)
    if path.exists():
        state = json.loads(path.read_text())
        pid = int(state["pid"])
        if not socket_path(namespace).exists():
            _await_end(pid)  # it is ending by itself: its taps come and go
        for place in (netns.path_of(pid), netns.path_of()):  # its namespace is ours if it has died and we come after it
            with contextlib.suppress(OSError, NetlinkError):  # whatever cannot be put back, the process must end
                if netns.inode(place) == namespace:
                    with netns.entered(place):
                        takeover.give_back([Pair(**pair) for pair in state["pairs"]], state.get("had", []))
                    break
        if _alive(pid):
            _end(pid)
    for left in (path, socket_path(namespace), _log_path(namespace)):
        left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process is one of ours, and no zombie."""
    try:
        name, rest = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
    except OSError:
        return False
    return name == PROGRAM.name[:COMM_BYTES] and rest.split()[0] != "Z"


def _await_end(pid: int) -> bool:
    """Whether a process has ended, after a while at most."""
    until = time.monotonic() + END_S
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not _alive(pid):
            return True
        time.sleep(0.01)
    return False


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    if not _await_end(pid):
        os.kill(pid, signal.SIGKILL)
