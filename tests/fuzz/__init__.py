# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: targets in C, how each is compiled, and inputs worth keeping."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
INCLUDE = [f"-I{ROOT / 'dysco_ns' / part}" for part in ("host", "core", "splice")]
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wno-unused-function", "-fno-sanitize-recover=undefined"]
SANITIZERS = "address,undefined"


@dataclass(frozen=True)
class Target:
    """`more`: sources and libraries beside its own file; `most_bytes` of an input; `dpdk`: it runs in DPDK (`make dpdk`);
    `share` of the time that all targets have."""

    name: str
    what: str
    more: tuple[str, ...] = ()
    most_bytes: int = 1 << 14
    dpdk: bool = False
    share: int = 1

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    @property
    def files(self) -> list[Path]:
        return sorted(self.corpus.iterdir()) if self.corpus.exists() else []

    def build(self, compiler: str, to: Path, *flags: str) -> None:
        """Compiles it.  subprocess.CalledProcessError if it does not."""
        sources = [str(HERE / f"{self.name}.c"), *self.more]
        include, libraries = _dpdk() if self.dpdk else ([], [])
        # IP headers in DPDK's frames lie at any address, which the processors that it runs on do not mind
        lenient = ["-fno-sanitize=alignment"] * self.dpdk
        command = [compiler, *FLAGS, *flags, *lenient, *INCLUDE, *include, *sources, "-o", str(to), *libraries]
        subprocess.run(command, check=True, cwd=ROOT)


def _dpdk() -> tuple[list[str], list[str]]:
    """What it takes to compile and link with DPDK; its headers are not ours to warn about."""

    def said(what: str) -> list[str]:
        command = ["pkg-config", what, "libdpdk"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    headers = [word for flag in said("--cflags") for word in (("-isystem", flag[2:]) if flag.startswith("-I") else (flag,))]
    ours = [f"-I{ROOT / 'dysco_ns' / 'dpdk'}", f"-I{ROOT / 'build' / 'dpdk'}", "-D_GNU_SOURCE"]
    return [*headers, *ours], [*said("--libs"), "-lrte_net_ring"]


PARTS = ("answers", "commands", "environment", "options", "ports", "statistics", "worker")
DPDK_PARTS = tuple(f"dysco_ns/dpdk/{part}.c" for part in PARTS)


TARGETS = (
    Target("packets", "three agents with a live session: frames again, changed; frames and commands of its own",
           ("dysco_ns/host/agent.c",), 2048, share=5),
    Target("host", "one host as it was captured: set-up, signalling, data, tags, ICMP, with signatures and without", share=8),
    Target("filter", "policy programs, against libpcap's own machine", ("-l:libpcap.so.0.8",), 700),
    Target("splice", "what libdysco makes of answers on the agent's socket", (), 1024),
    Target("dpdk", "the DPDK data path: frames of its ports, requests on its socket", DPDK_PARTS, dpdk=True,
           share=5),
)  # fmt: skip
