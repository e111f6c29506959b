# SPDX-License-Identifier: Apache-2.0
"""What a run depends on besides the code: machine, kernel, versions of the tools, the settings that shape TCP."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mininet", "clang", "libbpf1", "iproute2", "iptables", "iperf3", "nginx", "nginx-light", "wrk", "haproxy", "tshark",
            "openvswitch-switch")
SYSCTLS = (
    "net/core/bpf_jit_enable", "net/core/netdev_max_backlog", "net/core/rmem_max", "net/core/wmem_max",
    "net/ipv4/tcp_congestion_control", "net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem", "kernel/bpf_stats_enabled",
)  # fmt: skip
ADMIN = "/usr/sbin:/sbin:/usr/local/sbin"


class MissingTool(Exception):
    """A program that an experiment needs is not there."""


def need(tools: tuple[str, ...], who: str) -> None:
    """MissingTool, with what to do about it, for the first program that is not there; a path names one of our own, what
    begins with `python:` a module."""
    for tool in tools:
        kind, _, module = tool.partition(":")
        if kind == "python":
            if not importlib.util.find_spec(module):
                raise MissingTool(f"{who} needs the Python package {module}, which is not installed: `make setup` installs it")
            continue
        if "/" in tool and not Path(tool).exists():
            raise MissingTool(f"{who} needs {Path(tool).name}, which has not been built: `make build` builds it")
        if "/" not in tool and not (shutil.which(tool) or shutil.which(tool, path=ADMIN)):
            raise MissingTool(f"{who} needs {tool}, which is not installed: `make setup` installs it")


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _versions() -> dict[str, str]:
    """Of the packages that are installed; empty where there is no dpkg."""
    if not shutil.which("dpkg-query"):
        return {}
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES]
    done = subprocess.run(query, capture_output=True, text=True, check=False)  # ends with 1 if some are not installed
    pairs = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {name: version for name, version in pairs if version}


def _processor() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else platform.processor()


def facts() -> dict[str, Any]:
    """For a run's manifest."""
    paths = [(name, Path("/proc/sys", name)) for name in SYSCTLS]
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version(), **_versions()},
        "sysctls": {name: " ".join(path.read_text().split()) for name, path in paths if path.exists()},
    }
