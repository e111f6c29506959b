# SPDX-License-Identifier: Apache-2.0
"""Starts agents for many namespaces at once: forked after everything is imported, so that each costs little.

The children leave the parent's session: they outlive it, as the data path does.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dysco_ns import netns
from dysco_ns.agent.daemon import Settings, run_here
from dysco_ns.agent.domains import parse_domains
from dysco_ns.agent.keys import read_key
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT, LoadFailed

START_TIMEOUT_S = 30.0


class StartFailed(Exception):
    """An agent did not come up; says which and why."""


@dataclass(frozen=True)
class AgentTarget:
    """A namespace that is to have an agent: that of process `pid`."""

    name: str
    pid: int
    key_file: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    domains: Sequence[str] = ()  # as `dysco agent run --domain` takes them
    backend: str = "ebpf"
    workers: int = 1  # dpdk: cores


@dataclass
class AgentHandle:
    """A running agent."""

    name: str
    pid: int
    socket_path: Path

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ends the daemon; its data path stays until the namespace goes or its pins are removed."""
        try:
            os.kill(self.pid, signal.SIGTERM)
            until = time.monotonic() + timeout_s
            while time.monotonic() < until:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def _redirect(log: Path) -> None:
    """A daemon keeps nobody's terminal or pipe open; what it complains about goes to a file."""
    null, file = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd, to in ((0, null), (1, null), (2, file)):
        os.dup2(to, fd)


def _child(target: AgentTarget, btf: Btf, said: int) -> None:
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        path = netns.path_of(target.pid)
        _redirect(netns.log_path(netns.inode(path)))
        netns.enter(path)
        key = read_key(target.key_file) if target.key_file else None
        settings = Settings(target.name, key, target.names, domains=parse_domains(target.domains), backend=target.backend,
                            workers=target.workers)  # fmt: skip
        run_here(settings, btf, lambda: os.write(said, b"ready"))
    except BaseException as error:  # an interrupt of the parent must not unwind in its child
        os.write(said, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(0)


def start_agents(targets: Sequence[AgentTarget]) -> list[AgentHandle]:
    """Starts an agent in each namespace and waits until all serve.  StartFailed, and none runs, if one does not."""
    if not OBJECT.exists():
        raise StartFailed(f"{OBJECT.name} is not built: run `make build`")
    netns.ensure_bpffs()
    try:
        btf = Btf(OBJECT)
    except OSError as error:
        raise StartFailed(str(LoadFailed(error))) from error
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy every page of its parent
    started: list[tuple[AgentTarget, AgentHandle, int]] = []
    try:
        _start(targets, btf, started)
        problems = [problem for target, _, hear in started if (problem := _hear(target, hear))]
        if problems:
            raise StartFailed("; ".join(problems))
    except BaseException:  # an interrupt, too, leaves none behind
        for _, handle, _ in started:
            handle.stop()
        raise
    return [handle for _, handle, _ in started]


def _start(targets: Sequence[AgentTarget], btf: Btf, started: list[tuple[AgentTarget, AgentHandle, int]]) -> None:
    for target in targets:
        hear, said = os.pipe()
        path = netns.socket_path(netns.inode(netns.path_of(target.pid)))
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os.close(hear)
            _child(target, btf, said)
        os.close(said)
        started.append((target, AgentHandle(target.name, pid, path), hear))


def _hear(target: AgentTarget, hear: int) -> str:
    """What is wrong with an agent that was to come up; empty if it serves."""
    readable, _, _ = select.select([hear], [], [], START_TIMEOUT_S)
    word = os.read(hear, 4096).decode() if readable else "no answer"
    os.close(hear)
    return "" if word == "ready" else f"agent of {target.name}: {word or 'died'}"
