# SPDX-License-Identifier: Apache-2.0
"""What this machine can run, found out by trying; and what is lost where something is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from middleboxes.nginx import STREAM_MODULE

OLDEST_KERNEL = (6, 1)
TCX_KERNEL = (6, 6)
INTRUSION = ("suricata", "snort", "zeek")
Verdict = Literal["ok", "note", "missing"]


@dataclass
class Check:
    """One finding.  `needed`: without it the main job cannot run."""

    name: str
    verdict: Verdict
    found: str
    without: str = ""
    needed: bool = False


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))


def _in_namespace(script: str) -> bool:
    """Whether a shell script works in a network namespace that is thrown away."""
    if os.geteuid():
        return False
    done = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, check=False)
    return done.returncode == 0


def _probe(name: str, script: str, without: str, needed: bool = False) -> Check:
    works = _in_namespace("ip link add v0 type veth peer name v1; ip link set v0 up; " + script)
    return Check(name, "ok" if works else "missing" if needed else "note", "works" if works else "not here", without, needed)


def _tool(name: str, without: str, needed: bool = False) -> Check:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return Check(name, "ok" if path else "missing" if needed else "note", path or "not installed", without, needed)


def _module(name: str, without: str) -> Check:
    there = importlib.util.find_spec(name) is not None
    return Check(name, "ok" if there else "note", "a Python package" if there else "not installed", without)


def _check_tun() -> Check:
    there = Path("/dev/net/tun").exists()
    return Check("tun device", "ok" if there else "note", "yes" if there else "no", "Open vSwitch in user space makes taps")


def _check_kernel() -> Check:
    version, ok = os.uname().release, _kernel() >= OLDEST_KERNEL
    need = ".".join(map(str, OLDEST_KERNEL))
    return Check("kernel", "ok" if ok else "missing", version, f"Linux {need} or later is needed (bpf_loop, ring buffer)", True)


def _check_root() -> Check:
    root = os.geteuid() == 0
    return Check("root", "ok" if root else "missing", "yes" if root else "no", "network namespaces need it: use sudo", True)


def _check_btf() -> Check:
    there = Path("/sys/kernel/btf/vmlinux").exists()
    return Check("kernel BTF", "ok" if there else "note", "yes" if there else "no", "spin locks in maps may be refused")


def _check_hooks() -> Check:
    if _kernel() >= TCX_KERNEL:
        return Check("tc hook", "ok", "tcx", "")
    clsact = _in_namespace("ip link add v0 type veth peer name v1; tc qdisc add dev v0 clsact")
    return Check("tc hook", "ok" if clsact else "missing", "clsact" if clsact else "none", "the agents cannot attach", True)


def _check_bpffs() -> Check:
    works = os.geteuid() == 0 and not subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t bpf none /mnt"], capture_output=True, check=False
    ).returncode  # fmt: skip
    return Check("bpf file system", "ok" if works else "missing", "mounts" if works else "does not mount",
                 "the data path would die with its daemon", True)  # fmt: skip


def _check_conntrack() -> Check:
    works = _in_namespace("iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP")
    return Check("conntrack", "ok" if works else "note", "works" if works else "not here", "no firewall or NAT middlebox")


def _check_cores() -> Check:
    cores = os.cpu_count() or 1
    return Check("cores", "ok" if cores >= 2 else "note", str(cores), "with one core the experiments measure the machine")


def _check_memory() -> Check:
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // 1024
    return Check("memory", "ok" if total >= 3 else "note", f"{total} GiB", "the experiments want 4 GiB")


def _check_cgroups() -> Check:
    version = "2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1 or hybrid"
    return Check("cgroup version", "ok", version, "")


def _check_hugepages() -> Check:
    free = next((w for w in Path("/proc/meminfo").read_text().splitlines() if w.startswith("HugePages_Total")), "0")
    count = free.split()[-1]
    return Check("hugepages", "ok" if count != "0" else "note", count, "only the DPDK backend wants them")


def _check_stream() -> Check:
    found = STREAM_MODULE.exists()
    return Check("nginx stream", "ok" if found else "note", "module" if found else "no module", "NGINX as a TCP proxy")


def _check_intrusion() -> Check:
    """None is in every distribution's packages; no test or experiment needs one."""
    found = next((name for name in INTRUSION if shutil.which(name)), "")
    return Check("intrusion detection", "ok" if found else "note", found or f"none of {', '.join(INTRUSION)}",
                 "no intrusion detection among the middleboxes: PRADS and tshark watch")  # fmt: skip


def _check_congestion() -> Check:
    path = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    known = path.read_text().strip()
    return Check("congestion controls", "ok" if "cubic" in known else "note", known, "topologies use cubic by default")


CHECKS: tuple[Callable[[], Check], ...] = (
    _check_root,
    _check_kernel,
    _check_btf,
    _check_hooks,
    _check_bpffs,
    _check_conntrack,
    lambda: _probe("htb", "tc qdisc add dev v0 root htb default 1", "shaped links need htb or tbf", True),
    lambda: _probe("tbf", "tc qdisc add dev v0 root tbf rate 1mbit burst 64k limit 64k", "--set shaper=tbf"),
    lambda: _probe("u32 classifier", "tc qdisc add dev v0 root handle 1: htb; tc filter add dev v0 parent 1: protocol ip "
                   "u32 match ip tos 0xc0 0xfc flowid 1:1", "control segments would queue behind bulk data", True),
    lambda: _probe("netem", "tc qdisc add dev v0 root netem delay 1ms", "no emulated delay or loss; no experiment needs it yet"),
    lambda: _tool("ovs-vswitchd", "topology switched, experiment-sdn-baseline"),
    _check_tun,
    lambda: _module("os_ken", "the controller of experiment-sdn-baseline"),
    _check_congestion,
    _check_cgroups,
    _check_hugepages,
    _check_cores,
    _check_memory,
    lambda: _tool("mnexec", "Mininet's hosts", True),
    lambda: _tool("clang", "the packet core cannot be compiled", True),
    lambda: _tool("tcpdump", "dysco-lab capture"),
    lambda: _tool("mergecap", "dysco-lab capture of several interfaces"),
    lambda: _tool("iperf3", "comparisons with iperf3"),
    lambda: _tool("wrk", "experiment-http"),
    lambda: _tool("tshark", "experiment-setup-latency: what is on the wire"),
    lambda: _probe("iptables TEE", "iptables -t mangle -A FORWARD -j TEE --gateway 192.0.2.1", "no tests with doubled segments"),
    lambda: _probe("iptables statistic", "iptables -A FORWARD -m statistic --mode nth --every 2 --packet 0 -j DROP",
                   "no tests with lost segments"),
    lambda: _tool("runc", "no test of agents for OCI containers"),
    lambda: _tool("sshd", "no tests of testbeds: their stand-ins for machines"),
    lambda: _tool("nginx", "web servers and one of the unmodified proxies"),
    _check_stream,
    lambda: _tool("haproxy", "the other unmodified proxy, the load balancer"),
    lambda: _tool("squid", "the web proxy among the middleboxes"),
    lambda: _tool("prads", "one of the monitors"),
    _check_intrusion,
    lambda: _tool("bpftool", "a look into the maps; nothing needs it"),
)  # fmt: skip


def run_checks() -> list[Check]:
    """All findings; each probe cleans up after itself."""
    return [check() for check in CHECKS]


def main(as_json: bool) -> int:
    """Prints the findings; 0 if the main job can run here, else 1."""
    from rich.console import Console

    checks = run_checks()
    able = all(c.verdict != "missing" for c in checks if c.needed)
    if as_json:
        print(json.dumps({"able": able, "checks": [asdict(c) for c in checks]}, indent=1))
        return 0 if able else 1
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    console = Console(highlight=False)
    for c in checks:
        lost = f"  [dim]without it: {c.without}[/dim]" if c.verdict != "ok" and c.without else ""
        console.print(f"[{colours[c.verdict]}]{c.verdict:8}[/] {c.name:22} {c.found}{lost}", soft_wrap=True)
    console.print("the main job can run here" if able else "the main job cannot run here: mend what is missing")
    return 0 if able else 1
