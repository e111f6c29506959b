# SPDX-License-Identifier: Apache-2.0
"""Wrong changes to the core that the simulator must catch: a survivor is a hole in the checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=gnu11", "-O1", "-w", "-Idysco_ns/core", "-Idysco_ns/host", "-Itests/sim")
SEEDS = "1", "3000"


@dataclass(frozen=True)
class Mutant:
    """`was` becomes `now` in a header of the core."""

    name: str
    header: str
    was: str
    now: str


MUTANTS = (
    Mutant("beta off by one", "twopaths.h", "r->beta_out = high - (r->isn_out + 1);", "r->beta_out = high - r->isn_out;"),
    Mutant("old path is shown acks of the new", "twopaths.h", "plan->ack_old = seq_min(s->ack, r->old_rcvd);",
           "plan->ack_old = s->ack;"),
    Mutant("split one byte late", "twopaths.h", "plan->old_bytes = r->old_sent - s->seq;",
           "plan->old_bytes = r->old_sent - s->seq + 1;"),
    Mutant("a lock that two can have", "lock.h", "	if (s->lock != UNLOCKED && s->txid != txid)\n		return -1;",
           "	if (0)\n		return -1;"),
    Mutant("deltas without the egress side", "lock.h",
           "delta_of(port_ingress(&in_key), m) + delta_of(port_egress(&out_key), m);\n\n	if (left != right) {",
           "delta_of(port_ingress(&in_key), m);\n\n	if (left != right) {"),
    Mutant("old path given up before its data", "twopaths.h", "	if (r->old_rcvd_acked != r->old_rcvd)\n		return 0;", ""),
    Mutant("reneging shown", "anchor.h", "plan->ack_is_start ? high : high - 1", "high - 1"),
    Mutant("late echoes taken for new ones", "timestamps.h", "s->tsecr == r->ts_out0 || !(r->flags & RECONFIG_BETA_OUT)",
           "!(r->flags & RECONFIG_BETA_OUT)"),
    Mutant("anchors before the handshake is over", "newpath.h",
           "return (out->seen.has & in->seen.has & (SEEN_SEQ | SEEN_ACK)) == (SEEN_SEQ | SEEN_ACK);", "return 1;"),
    Mutant("a cancelled path resets the session", "datapath.h",
           "return r && r->phase < PHASE_READY && same_tuple(key, &r->new_in);", "return 0;"),
    Mutant("no tombstones", "session.h", "	s->burials++;\n	entry_bury(port_ingress(&key));", "	port_drop_ingress(&key);"),
    Mutant("checksum of the cut message forgotten", "setup_message.h",
           "x->segment.payload_change = ~port_sum(x->message, (n + 3) & ~3u, 0);", ""),
    Mutant("SACK blocks keep the other path's numbers", "anchor.h", "segment_clip_sack(s, plan->sack_delta, (struct",
           "segment_clip_sack(s, 0, (struct"),
    Mutant("repeated SYNs make second subsessions", "setup.h", "if (!e || e->flags & ENTRY_PENDING) {", "if (1) {"),
    Mutant("expired sessions leave entries", "session.h",
           "	egress_forget(&s->right_tuple, nonce);\n", ""),
)  # fmt: skip


def killed(mutant: Mutant, work: Path) -> str:
    """The first line with which the simulator objects, "" if it finds nothing.  ValueError: the code has moved on."""
    copy = work / "mutant"
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    for part in ("dysco_ns/core", "dysco_ns/host", "tests/sim"):
        shutil.copytree(ROOT / part, copy / part)
    header = copy / "dysco_ns/core" / mutant.header
    text = header.read_text()
    if text.count(mutant.was) != 1:
        raise ValueError(f"mutant '{mutant.name}': its place in {mutant.header} was found {text.count(mutant.was)} times")
    header.write_text(text.replace(mutant.was, mutant.now))
    sources = ["dysco_ns/host/agent.c", *(str(p.relative_to(copy)) for p in (copy / "tests/sim").glob("*.c"))]
    subprocess.run(["gcc", *FLAGS, "-o", "sim", *sources], cwd=copy, check=True)
    try:
        run = subprocess.run([copy / "sim", *SEEDS], capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return "it never ends"
    return run.stdout.splitlines()[0] if run.returncode else ""


def main() -> None:
    """make mutants: a table, results/mutants/<run>/summary.json, status 1 if one survives."""
    import tempfile
    import time

    from lab.results import RunDirectory, Summary, claim

    started = time.time()
    directory = RunDirectory.create("mutants")
    survivors = []
    with tempfile.TemporaryDirectory() as work:
        jobs = [(mutant, Path(work) / str(i)) for i, mutant in enumerate(MUTANTS)]
        with ThreadPool(os.cpu_count()) as pool:
            objections = pool.imap(lambda job: killed(*job), jobs)
            for mutant, objection in zip(MUTANTS, objections, strict=True):
                print(f"{'killed  ' if objection else 'SURVIVES'}  {mutant.name:42} {objection[:90]}", flush=True)
                if not objection:
                    survivors.append(mutant.name)
    directory.write_manifest(experiment="mutants", profile="quick", seed=1, settings={}, started=started,
                             duration_s=time.time() - started)  # fmt: skip
    metrics = {"mutants": float(len(MUTANTS)), "survivors": float(len(survivors))}
    claims = [claim("survivors", "wrong changes that no check catches", "-", metrics["survivors"], "", "== 0")]
    directory.write_summary(Summary("mutants", "quick", claims, metrics, 100.0, survivors))
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
