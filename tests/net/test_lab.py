# SPDX-License-Identifier: Apache-2.0
"""The laboratory leaves nothing behind, crashed or not, and refuses what makes no sense in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import state

LAB = [sys.executable, "-m", "lab.cli"]
SYSCTLS = ("net/core/wmem_max", "net/core/rmem_max", "net/ipv4/tcp_rmem", "fs/file-max", "net/core/netdev_max_backlog")


def root_namespace():
    """What the lab must leave as it was: interfaces, sysctls that Mininet likes to raise, firewall rules."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = sorted(line.split(":")[1].strip() for line in links.splitlines())
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    kept = [line for line in rules.splitlines() if not line.startswith("#")]
    return names, [Path("/proc/sys", name).read_text() for name in SYSCTLS if Path("/proc/sys", name).exists()], kept


def command(*words):
    return subprocess.run([*LAB, *words], capture_output=True, text=True, timeout=60, check=False)


def mounts():
    return [line for line in Path("/proc/mounts").read_text().splitlines() if "/run/dysco" in line]


def test_twenty_hosts_with_agents_are_up_within_seconds_and_gone_afterwards(lab_of):
    before = root_namespace()
    start = time.monotonic()
    lab = lab_of("proxy", pairs=8)
    hosts = len(lab.state.agents)
    took = time.monotonic() - start
    print(f"{hosts} hosts with agents in {took:.2f} s")
    assert hosts == 17
    pids = [p.pid for p in (*lab.state.hosts.values(), *lab.state.agents.values())]
    lab.stop()
    assert root_namespace() == before
    assert not any(state.start_time(pid) for pid in pids)
    assert mounts() == [] and state.load() is None


def test_detached_lab_runs_commands_and_a_second_lab_is_refused():
    try:
        assert command("up", "chain", "--set", "middleboxes=1", "--detach").returncode == 0
        hosts = json.loads(command("status", "--json").stdout)["hosts"]
        assert {h["host"] for h in hosts} == {"r0", "client", "mb1", "server"}
        assert command("exec", "client", "--", "sh", "-c", "exit 7").returncode == 7
        second = command("up", "proxy", "--detach")
        assert second.returncode == 1 and "dysco-lab down" in second.stderr and second.stderr.count("\n") == 1
        policies = subprocess.run(
            [sys.executable, "-m", "dysco_ns.policy.cli", "policy", "list", "--at", "client", "--json"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert json.loads(policies)["policies"][0]["chain"] == ["10.0.1.2"]
    finally:
        assert command("down").returncode == 0
    assert command("down").returncode == 0
    assert state.load() is None and mounts() == []


def test_down_removes_what_a_killed_lab_left():
    before = root_namespace()
    victim = subprocess.Popen([*LAB, "up", "proxy", "--set", "pairs=1"], stdout=subprocess.PIPE, text=True)
    assert "is up" in victim.stdout.readline()
    left = state.load()
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert command("down").returncode == 0
    assert root_namespace() == before
    assert not any(p.alive() for p in (*left.hosts.values(), *left.agents.values()))
    assert mounts() == [] and not list(state.RUN.glob("*.sock"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["up", "ring"], "unknown topology 'ring'"),
        (["up", "chain", "--set", "middleboxes=9"], "from 0 to 8"),
        (["up", "chain", "--set", "colour=red"], "no setting 'colour'"),
        (["run", "nothing"], "unknown experiment 'nothing'"),
        (["run", "proxy-removal", "--profile", "slow"], "quick or paper"),
        (["plot", "/nowhere"], "not the directory of a run"),
    ],
)
def test_bad_input_gets_one_line_and_status_two(words, why):
    done = command(*words)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr and done.stderr.count("\n") == 1


def test_status_without_a_lab_says_how_to_start_one():
    done = command("status")
    assert done.returncode == 1 and "dysco-lab up" in done.stderr


def test_an_interrupt_while_agents_come_up_leaves_none(lab_of, monkeypatch):
    from dysco_ns.agent import launch

    begun, start = [], launch._start

    def interrupted(target, hear):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_start", lambda targets, btf, started: (start(targets, btf, started), begun.extend(started)))
    monkeypatch.setattr(launch, "_hear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab_of("chain", middleboxes=1)
    assert len(begun) == 3 and not any(state.start_time(handle.pid) for _, handle, _ in begun)
