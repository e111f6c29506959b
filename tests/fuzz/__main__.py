# SPDX-License-Identifier: Apache-2.0
"""make fuzz TIME=seconds: libFuzzer on each target in turn, under AddressSanitizer and UndefinedBehaviorSanitizer.

What is interesting stays in build/fuzz/corpus; a finding is a file in build/fuzz/findings, and exit status 1.  Each run is a
line of results/fuzz/log (from what libFuzzer prints), and their sums are in results/fuzz/summary.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import HERE, INCLUDE, ROOT, TARGETS, Target

BUILD = ROOT / "build" / "fuzz"
RESULTS = ROOT / "results" / "fuzz"
UNIT_S, MEMORY_MB = 5, 2048
# of UndefinedBehaviorSanitizer what does not look at each pointer: clang takes minutes for that.  `make test` has all of it.
UNDEFINED = "bounds,shift,signed-integer-overflow,integer-divide-by-zero,unreachable,return"


@dataclass(frozen=True)
class Run:
    """`core`: a hash of what was tested; `seconds` and `inputs` as libFuzzer counts them; `covered` edges."""

    target: str
    core: str
    seconds: int
    inputs: int
    covered: int
    corpus: int
    findings: tuple[str, ...]


def runtime_installed() -> None:
    """Installs clang's fuzzing runtime if it is missing."""
    clang = ["clang", "-print-file-name=libclang_rt.fuzzer-x86_64.a"]
    if Path(subprocess.run(clang, check=True, capture_output=True, text=True).stdout.strip()).exists():
        return
    major = subprocess.run(["clang", "-dumpversion"], check=True, capture_output=True, text=True).stdout.split(".")[0]
    print(f"fuzz: installing libclang-rt-{major}-dev", flush=True)
    install = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", "install", "-y", "--no-install-recommends"]
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*sudo, *install, f"libclang-rt-{major}-dev"], check=True, stdout=subprocess.DEVNULL)


def fingerprint() -> str:
    """Of all that is tested."""
    files = [f for flag in (*INCLUDE, f"-I{ROOT / 'dysco_ns' / 'dpdk'}") for f in sorted(Path(flag[2:]).glob("*.[ch]"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def built(target: Target) -> Path:
    """The target for libFuzzer, compiled unless it is there already."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program, stamp = BUILD / target.name, BUILD / f"{target.name}.stamp"
    made_of = f"{fingerprint()} {hashlib.sha256((HERE / f'{target.name}.c').read_bytes()).hexdigest()} {UNDEFINED}"
    if not program.exists() or not stamp.exists() or stamp.read_text() != made_of:
        target.build(
            "clang", program, f"-fsanitize=fuzzer,address,{UNDEFINED}", "-gline-tables-only", "-Wno-unknown-warning-option"
        )
        stamp.write_text(made_of)
    return program


def fuzz(target: Target, seconds: int) -> Run:
    """One target for so many seconds; it ends early with a finding."""
    program, findings = built(target), BUILD / "findings"
    work = BUILD / "corpus" / target.name
    for directory in (findings, work, target.corpus):
        directory.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    limits = [f"-max_total_time={seconds}", f"-max_len={target.most_bytes}", f"-rss_limit_mb={MEMORY_MB}",
              f"-timeout={os.environ.get('FUZZ_UNIT_S', UNIT_S)}", f"-detect_leaks={int(not target.dpdk)}"]  # fmt: skip
    where = [f"-artifact_prefix={findings}/{target.name}-", str(work), str(target.corpus)]
    command = ["nice", "-n", "19", str(program), *limits, "-print_final_stats=1", *where]
    said = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False).stderr
    (BUILD / f"{target.name}.log").write_text(said)

    def last(pattern: str) -> int:
        found = re.findall(pattern, said)
        return int(found[-1]) if found else 0

    new = sorted(f.name for f in set(findings.iterdir()) - before)
    return Run(target.name, fingerprint(), last(r"Done \d+ runs in (\d+) second"), last(r"number_of_executed_units: (\d+)"),
               last(r"cov: (\d+)"), last(r"corp: (\d+)/"), tuple(new))  # fmt: skip


def minimise(target: Target, seeds: Sequence[Path]) -> int:
    """Keeps of its corpus, of what libFuzzer has found and of these directories what covers all that they cover together."""
    program, kept = built(target), BUILD / "minimised"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    target.corpus.mkdir(parents=True, exist_ok=True)
    sources = [d for d in (target.corpus, *(s / target.name for s in seeds)) if d.exists()]
    subprocess.run([str(program), "-merge=1", f"-max_len={target.most_bytes}", str(kept), *map(str, sources)],
                   check=True, stderr=subprocess.DEVNULL)  # fmt: skip
    hashed = re.compile(r"[0-9a-f]{40}")
    for file in target.files:
        if hashed.fullmatch(file.name):  # what people have named is a regression: it stays
            file.unlink()
    for file in kept.iterdir():
        shutil.copy(file, target.corpus / file.name)
    return sum(f.stat().st_size for f in target.files)


def noted(run: Run) -> None:
    """Into the log; the sums are made anew."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "log").open("a") as log:
        log.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **asdict(run)}) + "\n")
    totals: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, (RESULTS / "log").read_text().splitlines()):
        total = totals.setdefault(line["target"], {"seconds": 0, "inputs": 0, "findings": []})
        for what in total:
            total[what] += line[what]
    summary = {"experiment": "fuzz", "seconds": sum(t["seconds"] for t in totals.values()), "targets": totals}
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=60, help="for all targets together (default 60)")
    parser.add_argument("--only", choices=[t.name for t in TARGETS], action="append", help="this target alone")
    parser.add_argument("--merge", nargs="*", type=Path, metavar="DIRECTORY",
                        help="minimises the corpus, with seeds from DIRECTORY/TARGET, instead")  # fmt: skip
    given = parser.parse_args()
    runtime_installed()
    targets = [t for t in TARGETS if not given.only or t.name in given.only]
    if given.merge is not None:
        for target in targets:
            print(f"{target.name}: {minimise(target, given.merge)} bytes, {len(target.files)} files")
        return 0
    found, shares = 0, sum(t.share for t in targets)
    for target in targets:
        print(f"{target.name}: {target.what}", flush=True)
        run = fuzz(target, max(given.seconds * target.share // shares, 1))
        noted(run)
        found += len(run.findings)
        wrong = f"   FOUND {' '.join(run.findings)}: build/fuzz/{target.name} build/fuzz/findings/..." if run.findings else ""
        print(f"  {run.inputs} inputs, {run.seconds} s, {run.covered} edges, {run.corpus} files{wrong}", flush=True)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
