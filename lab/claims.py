# SPDX-License-Identifier: Apache-2.0
"""docs/claims.md: what section V of the paper claims, claim by claim, beside what the reference runs say.

`python -m lab.claims` writes it anew; `make figures` does so, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.results import RESULTS, ROOT, shown

PAGE = ROOT / "docs" / "claims.md"
HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- written by `make figures` from results/reference; edit lab/claims.py -->
# The paper's claims, and what is seen here

Every claim of section V of P. Zave et al., "A Verified Session Protocol for Dynamic Service Chaining" (IEEE/ACM ToN 2021), and
the state migration of the protocol's 2017 paper. *Here* is the reference run of the experiment named, on the machine named;
`holds` and `differs` are judged against the bound that the run's REPORT.md states. The paper's testbed: three servers, ten cores
at 2.2 GHz each twice, 100 Gbit/s links, Dysco in user space over DPDK. Ours is one machine, hosts are network namespaces, Dysco
is in the kernel: what is absolute there differs here, and what is shape or correctness must not.

A run marked *suspect* shared its machine with other work, or had exhausted it (docs/results.md).
"""


@dataclass(frozen=True)
class Row:
    """A claim of the paper.  `key`: the claim, else the metric, of our experiment that answers it; `why` if none can."""

    section: str
    statement: str
    paper: str
    experiment: str = ""
    key: str = ""
    unit: str = ""
    why: str = ""
    needs: str = ""  # a setting that not every run of it has


ROWS = (
    Row("V-A, Fig. 8", "signed Dysco costs connect() through four middleboxes, over none", "22 us", "setup-latency", "over_hmac"),
    Row("V-A, Fig. 8", "the same without signatures", "less", "setup-latency", "over_dysco"),
    Row("V-A, Fig. 8", "connect() through four middleboxes, signed", "less than 110 us", "setup-latency",
        "connect_us_p50_hmac_4", "us"),
    Row("VII", "tearing a session down is fast: last FIN until acknowledged, over none", "fast", "setup-latency",
        "close_over_hmac"),
    Row("V-B, Fig. 9", "fewer packets/s on one core, 64 bytes, in the kernel", "27.85 %", "throughput", "penalty_0"),
    Row("V-B, Fig. 9", "the same over DPDK", "27.85 %", "bench-dpdk", "penalty_pct_64", "%"),
    Row("V-B, Fig. 9", "60,000 sessions at once: one agent's pass over DPDK", "-", "bench-dpdk", "extra_ns_60k", "ns"),
    Row("V-B, Fig. 10", "16 cores saturate 100 Gbit/s with packets of 128 bytes", "100 Gbit/s",
        why="needs two machines with 100 Gbit/s links and 16 cores"),
    Row("V-B", "goodput through four middleboxes over plain, super-packets", "forwards at high speed", "throughput",
        "goodput_ratio_4"),
    Row("V-B", "goodput through four middleboxes over plain, packets of 1500 bytes", "forwards at high speed", "throughput",
        "goodput_ratio_mtu_4"),
    Row("V-B, Fig. 11", "NGINX's requests per second over plain, four middleboxes", "0.959 at worst", "http", "requests_ratio_4"),
    Row("V-B, Fig. 11", "requests per second of NGINX, no middlebox", "more than 180,000", "http", "requests_0", "requests/s"),
    Row("V-B, Fig. 11", "requests per second of NGINX, four middleboxes", "a little under 175,000", "http", "requests_4",
        "requests/s"),
    Row("V-C, Fig. 13", "sessions of 500 that lose the proxy while they live", "all", "proxy-removal", "reconfigured"),
    Row("V-C, Fig. 13", "bytes lost or changed", "0", "proxy-removal", "bytes", "bytes"),
    Row("V-C, Fig. 13", "goodput after all removals over before", "increases", "proxy-removal", "gain"),
    Row("V-C, Fig. 13", "CPU of the proxy after all removals", "zero", "proxy-removal", "cpu", "%"),
    Row("V-C, Fig. 14", "four of five reconfigurations, under load", "60 us", "proxy-removal", "p80", "us"),
    Row("V-C, Fig. 14", "the slowest reconfiguration, under load", "220 us", "proxy-removal", "max", "us"),
    Row("V-C, Fig. 14", "the slow ones are lost messages: p99 with one of five lost, over none", "more", "proxy-removal",
        "loss_tail", needs="arms=on"),
    Row("V-C", "goodput during removals, windows closed, over min(w, 16 KiB)", "significantly lower", "proxy-removal",
        "throttle_zero", needs="arms=on"),
    Row("V-C, Fig. 14", "four of five, sessions lightly loaded, one by one", "60 us", "bench", "reconfig_p80", "us"),
    Row("V-C, Fig. 14", "the same, signed", "60 us", "bench", "reconfig_hmac_p80", "us"),
    Row("V-C, Fig. 16", "goodput follows the limiters: largest deviation of a step", "1 : 2.5 : 4.4", "nat-firewall", "steps"),
    Row("V-C, Fig. 16", "the firewall, sequence numbers tracked, drops nothing: packets INVALID", "0", "nat-firewall",
        "conntrack_invalid"),
    Row("V-C, Fig. 16", "reconfigurations across a NAT do not disrupt: resets", "0", "nat-firewall", "resets"),
    Row("V-C, Fig. 16", "goodput of 1, 2.5 and 4.4 Gbit/s", "Gbit/s",
        why="rates are scaled to one machine, in the paper's proportions"),
    Row("III, Fig. 5", "overlapping reconfigurations: sessions in which two locks overlapped", "0", "contention", "locks"),
    Row("I", "rules in switches that a session adds, steered by forwarding through four middleboxes", "grow", "sdn-baseline",
        "rules_sdn"),
    Row("I", "the same, Dysco", "none", "sdn-baseline", "rules_dysco"),
    Row("I", "sessions that middleboxes beyond a NAT see, steered by forwarding", "might not match", "sdn-baseline",
        "nat_skipped"),
    Row("I", "sessions that pass the whole chain, a NAT in it, Dysco", "all", "sdn-baseline", "nat_dysco"),
    Row("2017", "packets dropped when a firewall is replaced, its state moved along", "0", "state-migration", "with"),
    Row("2017", "the same, state not moved", "some", "state-migration", "without"),
)  # fmt: skip


def _summary(experiment: str) -> dict[str, Any] | None:
    path = RESULTS / "reference" / experiment / "summary.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _answer(row: Row) -> tuple[str, str]:
    """What we see, and the verdict."""
    if row.why:
        return "-", f"not testable here: {row.why}"
    summary = _summary(row.experiment)
    command = "make bench-dpdk" if row.experiment == "bench-dpdk" else f"make experiment-{row.experiment}"
    if summary is None:
        return "-", f"no reference run: `{command}`"
    doubt = ", suspect" if summary["fidelity"]["verdict"] == "suspect" else ""
    for claim in summary["claims"]:
        if claim["id"] == row.key:
            low_high = f" [{shown(claim['ci95'][0])}, {shown(claim['ci95'][1])}]" if claim["ci95"] else ""
            return f"{shown(claim['value'])} {claim['unit'] or row.unit}".strip() + low_high, claim["verdict"] + doubt
    value = summary["metrics"].get(row.key)
    if value is None and row.needs:
        return "-", f"no reference run with {row.needs}: `{command} SET={row.needs}`"
    return (f"{shown(value)} {row.unit}".strip(), "measured" + doubt) if value is not None else ("-", "not in its reference run")


def _machine(experiment: str) -> str:
    manifest = json.loads((RESULTS / "reference" / experiment / "manifest.json").read_text())
    processor = f"{manifest['cores']} x {manifest['processor']}, " if "processor" in manifest else ""
    return f"- `{experiment}`: profile {manifest['profile']}, {processor}Linux {manifest['kernel']}, commit {manifest['commit']}"


def page() -> str:
    lines = [HEAD, "| where | claim | paper | here | verdict | experiment |", "| --- | --- | --- | --- | --- | --- |"]
    for row in ROWS:
        here, verdict = _answer(row)
        lines.append(f"| {row.section} | {row.statement} | {row.paper} | {here} | {verdict} | {row.experiment} |")
    used = sorted({row.experiment for row in ROWS if row.experiment and _summary(row.experiment)})
    return "\n".join([*lines, "", "Reference runs:", "", *map(_machine, used)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
