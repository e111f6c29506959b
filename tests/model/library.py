# SPDX-License-Identifier: Apache-2.0
"""The shipping core and the hosts around it, compiled once for all verifiers of core.pml."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.sim.mutants.mutant import CORE, ROOT, Mutant

SOURCES = ROOT / "dysco_ns" / "model" / "core"
HOST = ROOT / "dysco_ns" / "host"
KEPT = ROOT / "build" / "verify"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")


def text(mutant: Mutant | None) -> str:
    """What the objects are made of; ValueError if the mutant's place in the core has gone."""
    files = [path.read_text() for directory in (SOURCES, HOST, CORE) for path in sorted(directory.glob("*.[ch]"))]
    return "".join([*files, *FLAGS, mutant.text() if mutant else ""])


def objects(mutant: Mutant | None = None) -> list[Path]:
    """The hosts, and the core: that one alone is the mutant's, as it changes no structure."""
    return [_kept(sorted(SOURCES.glob("*.c")), None), _kept([HOST / "agent.c"], mutant)]


def _kept(sources: list[Path], mutant: Mutant | None) -> Path:
    """One object of these sources, compiled unless an earlier run has done so."""
    target = KEPT / f"{sources[0].stem}-{hashlib.sha256(text(mutant).encode()).hexdigest()[:16]}.o"
    if not target.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as work:
            _compile(Path(work), sources, mutant).replace(target)
    return target


def _compile(work: Path, sources: list[Path], mutant: Mutant | None) -> Path:
    core = CORE
    if mutant:
        core = work / "core"
        shutil.copytree(CORE, core)
        (core / mutant.header).write_text(mutant.text())
    include = [f"-I{directory}" for directory in (SOURCES, HOST, core)]
    flags = [*FLAGS, "-O0", "-w"] if mutant else FLAGS
    subprocess.run(["gcc", *flags, *include, "-c", *sources], cwd=work, check=True, capture_output=True)
    subprocess.run(["ld", "-r", "-o", "one", *(f"{s.stem}.o" for s in sources)], cwd=work, check=True, capture_output=True)
    return work / "one"
