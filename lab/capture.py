# SPDX-License-Identifier: Apache-2.0
"""Captures in several hosts at once, merged into one file."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.network import Lab, LabFailed, end, wait_for
from lab.tool import run

BUFFER_KIB = 16384
FLUSH_S = 0.2
LOOK, NOBODY = "look", "192.0.2.1"


def _interfaces(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    names = [line.split(":")[0].strip() for line in lines]
    return [name for name in names if name == "eth0" or name.startswith("to-")]


def record(hosts: dict[str, int], to: Path, seconds: float | None = None) -> None:
    """Captures all interfaces of hosts (name -> pid) into `to` until Ctrl-C, or for some seconds."""
    with tempfile.TemporaryDirectory() as work:
        parts, processes = [], []
        for host, pid in hosts.items():
            for device in _interfaces(pid):
                part = Path(work) / f"{host}-{device}.pcap"
                command = ["nsenter", "-n", "-t", str(pid), "tcpdump", "-n", "-U", "-i", device, "-s", "256", "-w", str(part)]
                processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, text=True))
                parts.append(part)
        print(f"capturing on {len(parts)} interfaces into {to}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(seconds if seconds is not None else 1 << 30)
        for process in processes:
            end(process)
        run(["mergecap", "-w", str(to), *(str(p) for p in parts if p.exists())])


@contextmanager
def capturing(lab: Lab, host: str, device: str, to: Path, what: str = "tcp") -> Iterator[None]:
    """Captures the headers of all TCP segments (or `what` a pcap-filter says) at an interface while the block lasts.  LabFailed
    if some were missed: what judges a capture takes it for complete."""
    command = ["tcpdump", "-n", "-U", "-i", device, "-s", "256", "-B", str(BUFFER_KIB), "-w", str(to), what]
    process = lab.popen(host, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(process, "tcpdump: listening")
    try:
        yield
    finally:
        time.sleep(FLUSH_S)
        process.terminate()
        said = process.communicate()[0]
    if "\n0 packets dropped by kernel" not in f"\n{said}":
        raise LabFailed(f"capture at {host}: {' '.join(said.split())}")


@contextmanager
def capturing_stack(lab: Lab, host: str, to: Path) -> Iterator[None]:
    """Captures what the TCP of an end host itself sends and gets: behind the agent, where segments are the session's own.
    Netfilter gives a copy of each to a link that leads nowhere."""
    lab.batch(host, [f"link add {LOOK} type veth peer name {LOOK}-end", f"link set {LOOK} mtu 65535 up",
                     f"link set {LOOK}-end mtu 65535 up", f"route add {NOBODY} dev {LOOK}",
                     f"neighbor add {NOBODY} lladdr 02:00:00:00:00:01 dev {LOOK}"])  # fmt: skip
    copy = f"-p tcp -j TEE --gateway {NOBODY} --oif {LOOK}".split()
    with capturing(lab, host, LOOK, to):
        for chain in ("INPUT", "OUTPUT"):
            lab.run(host, ["iptables", "-t", "mangle", "-A", chain, *copy])
        yield
    lab.run(host, ["iptables", "-t", "mangle", "-F"])
    lab.batch(host, [f"link del {LOOK}"])
