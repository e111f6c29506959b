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
from pathlib import Path

from dysco_ns import netns
from dysco_ns.dpdk import takeover
from dysco_ns.dpdk.client import DataPath, DataPathGone
from dysco_ns.dpdk.takeover import Pair
from dysco_ns.ebpf.btf import Btf

PROGRAM = Path(__file__).resolve().parents[2] / "build" / "dysco-dpdk"
START_S, END_S = 30.0, 5.0
SESSIONS = 16384  # as the eBPF backend has them


class StartFailed(Exception):
    """dysco-dpdk did not start; its own word."""


def socket_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk"


def _state_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk.json"


def _log_path(namespace: int) -> Path:
    return netns.RUN / f"{namespace}.dpdk.log"


def open_data_path(namespace: int, btf: Btf, poll: bool = False) -> DataPath:
    """The data path of the current namespace: the one that runs, or a new one.  StartFailed, DataPathGone, Refused."""
    try:
        return DataPath(socket_path(namespace), btf)
    except DataPathGone:
        remove(namespace)  # what one that died has left
    pairs = takeover.pairs_for(netns.interfaces())
    if not pairs:
        raise StartFailed("no interface here has an address: there is nothing to put DPDK in front of")
    process = _start(namespace, pairs, poll)
    state = {"pid": process.pid, "pairs": [pair.as_json() for pair in pairs]}
    _state_path(namespace).write_text(json.dumps(state))
    try:
        takeover.take(pairs)
        return DataPath(socket_path(namespace), btf)
    except BaseException:
        remove(namespace)
        raise


def _start(namespace: int, pairs: list[Pair], poll: bool) -> subprocess.Popen[bytes]:
    if not PROGRAM.exists():
        raise StartFailed("dysco-dpdk is not built: run `make dpdk`")
    argv = [str(PROGRAM), *(word for pair in pairs for word in pair.devices), "--socket", str(socket_path(namespace)),
            "--prefix", f"dysco-{namespace}", "--sessions", str(SESSIONS), *(["--poll"] if poll else [])]  # fmt: skip
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


def remove(namespace: int) -> None:
    """Ends the data path of a namespace; its interfaces are as they were.  May run twice."""
    path = _state_path(namespace)
    if path.exists():
        state = json.loads(path.read_text())
        pid = int(state["pid"])
        with contextlib.suppress(OSError):
            if netns.inode(netns.path_of(pid)) == namespace:
                with netns.entered(netns.path_of(pid)):
                    takeover.give_back([Pair(**pair) for pair in state["pairs"]])
                _end(pid)
    for left in (path, socket_path(namespace), _log_path(namespace)):
        left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + END_S
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not _alive(pid):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
