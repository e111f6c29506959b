# SPDX-License-Identifier: Apache-2.0
"""What Dysco costs, each figure beside its baseline on the same network in one run, alternating.

No agent is attached while a baseline is measured.  Links are not shaped: the machine's CPU is the limit on purpose.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.experiments import passes
from lab.experiments.framework.costs import MODES, PORT, connect_times, mode, on_cpu
from lab.experiments.framework.figures import COLOURS, Drawing, cdf
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab, wait_for
from lab.results import RunDirectory, Summary, claim
from lab.statistics import median_interval, percentile
from lab.tools import bulk, connect
from lab.topologies import Settings, build
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.tcp_proxy import TcpProxy

DESCRIPTION = "cost of connect(), of goodput, of one pass, of a reconfiguration on lightly loaded sessions"
TOOLS = (str(connect.BINARY), str(bulk.BINARY), "iperf3")
CPU_BOUND = True
LENGTHS = (0, 4)


@dataclass(frozen=True)
class Plan:
    rounds: int
    connects: int
    sessions: int
    pass_rounds: int


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    return Plan(
        settings.integer("rounds", 15 if paper else 8, 2, 100),
        settings.integer("connects", 1000 if paper else 300, 10, 3000),
        settings.integer("sessions", 500, 1, 2000),
        settings.integer("pass_rounds", 20 if paper else 8, 1, 1000),
    )


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    record.expect(len(LENGTHS) * len(MODES) * (plan.rounds + 1) + 4)
    for length in LENGTHS:
        _chain(length, plan, record)
    for name in ("dysco", "hmac"):
        record.step(f"reconfigurations, one by one, {name}")
        _reconfigurations(record, plan.sessions, name)
    record.step("agents load and attach")
    _attach(record)
    record.step("one pass over 1000 flows")
    for name, value in passes.measure(1000, plan.pass_rounds, record.seed):
        record("pass", name, value)


def _chain(length: int, plan: Plan, record: Recorder) -> None:
    topology = build("chain", {"middleboxes": str(length), "dysco": "off"})
    server = topology.host("server").address
    with Lab(topology) as lab, lab.service("server", on_cpu(lab, "server", 1, connect.server_command(server, PORT))):
        iperf = lab.popen("server", on_cpu(lab, "server", 0, ["iperf3", "-s", "-p", str(PORT + 1)]), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)  # fmt: skip
        for turn in record.turns(plan.rounds, MODES, f"{length} middleboxes,"):
            with mode(lab, turn.mode):
                record.all(f"{turn.mode}_{length}", "connect_us", connect_times(lab, plan.connects))
                if turn.mode != "hmac":
                    record(f"{turn.mode}_{length}", "goodput_mbps", _goodput(lab, server))
        iperf.terminate()


def _goodput(lab: Lab, server: str) -> float:
    """Sender and receiver share one processor: every cycle that an agent takes is then missing from goodput, and
    nothing depends on how two processors wake each other.  The host's default congestion control may pace (BBR),
    which leaves the processor idle and hides the cost."""
    load = ["iperf3", "-c", server, "-p", str(PORT + 1), "-t", "1.5", "-O", "0.5", "-C", "cubic", "-J"]
    out = lab.run("client", on_cpu(lab, "client", 0, load))
    return float(json.loads(out)["end"]["sum_received"]["bits_per_second"]) / 1e6


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _reconfigurations(record: Recorder, sessions: int, name: str) -> None:
    """Established, lightly loaded sessions lose a proxy, one after the other."""
    hmac = "on" if name == "hmac" else "off"
    topology = build("proxy", {"pairs": "1", "proxy_mbps": "none", "direct_mbps": "none", "hmac": hmac})
    server, box = topology.host("server1").address, topology.host(PROXY).address
    proxy = TcpProxy({proxy_port(1): (server, server_port(1))}, record.raw / "proxy.sock", "command")
    with Lab(topology) as lab:
        receiver = bulk.server_command(server, server_port(1), record.raw / "server.jsonl", 1000)
        with lab.service("server1", receiver), lab.service(PROXY, proxy.command()):
            load = bulk.client_command(
                box, proxy_port(1), record.raw / "client.jsonl", sessions=sessions, seconds=30, interval_ms=1000,
                message=100, every_us=500_000, seed=record.seed,
            )  # fmt: skip
            client = lab.popen("client1", load, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(client, "connected")
            time.sleep(1.0)
            proxy.leave(proxy_port(1), join_only=True)
            agent = lab.agent("client1")
            for session in agent.request("sessions")["sessions"]:
                result = agent.request("reconfigure", session=session["id"], remove=PROXY)["results"][0]
                for quantity in ("reconfig_us", "first_byte_us", "old_path_drained_us"):
                    if result[quantity] is not None:
                        record(f"sessions_{name}", quantity, result[quantity])
            record(f"sessions_{name}", "memory_mb", _memory_mb(lab.state.agents["client1"].pid))
            client.terminate()
            client.wait(30)


def _attach(record: Recorder) -> None:
    """Load and attach, one agent after the other."""
    from dysco_ns.agent.daemon import forget_namespace
    from dysco_ns.agent.launch import AgentTarget, start_agents

    with Lab(build("chain", {"middleboxes": "0", "dysco": "off"})) as lab:
        for _ in range(5):
            start = time.monotonic()
            handle = start_agents([AgentTarget("client", lab.pid("client"))])[0]
            record("agent", "attach_ms", (time.monotonic() - start) * 1000)
            handle.stop()
            forget_namespace(lab.state.namespaces["client"])


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str) -> list[float]:
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    found: list[float] = rows.value.tolist()
    return found


def _chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _paired(samples: Any, which: str, length: int, connects: int) -> list[float]:
    """For each round: median connect() in one mode less the baseline's of the same round."""
    a = _chunks(_values(samples, f"{which}_{length}", "connect_us"), connects)
    b = _chunks(_values(samples, f"baseline_{length}", "connect_us"), connects)
    return [statistics.median(x) - statistics.median(y) for x, y in zip(a, b, strict=True)]


def summarise(run: RunDirectory) -> Summary:
    samples, settings = run.samples(), run.manifest()["settings"]
    metrics: dict[str, float] = {}
    claims = []
    for length in LENGTHS:
        for which, name, bound in (("dysco", "", 5 if not length else 15), ("hmac", "_hmac", 12 if not length else 26)):
            overhead = _paired(samples, which, length, int(settings["connects"]))
            key = f"connect_overhead{name}_us_p50_{length}"
            metrics[key] = statistics.median(overhead)
            statement = f"connect() through {length} middleboxes{', signed' if name else ''}, over plain"
            claims.append(claim(key, statement, "+22 us (4, HMAC)", metrics[key], "us", f"<= {bound}", shape=False,
                                ci95=median_interval(overhead)))  # fmt: skip
        pairs = zip(_values(samples, f"dysco_{length}", "goodput_mbps"),
                    _values(samples, f"baseline_{length}", "goodput_mbps"), strict=True)  # fmt: skip
        ratios = [a / b for a, b in pairs]
        metrics[f"goodput_ratio_{length}"] = statistics.median(ratios)
        claims.append(claim(f"goodput_ratio_{length}", f"goodput through {length} middleboxes over plain", "about 1",
                            metrics[f"goodput_ratio_{length}"], "", ">= 0.97", shape=False,
                            ci95=median_interval(ratios)))  # fmt: skip
    for which, name in (("dysco", "reconfig"), ("hmac", "reconfig_hmac")):
        times = _values(samples, f"sessions_{which}", "reconfig_us")
        for quantile, share in (("p50", 0.5), ("p80", 0.8), ("p99", 0.99), ("max", 1.0)):
            metrics[f"{name}_us_{quantile}"] = percentile(times, share)
        signed = ", signed" if which == "hmac" else ""
        claims += [
            claim(f"{name}ured", f"lightly loaded sessions reconfigured, one by one{signed}", "all", float(len(times)), "",
                  f"== {settings['sessions']}"),
            claim(f"{name}_p80", f"reconfiguration time, p80{signed}", "60 us", metrics[f"{name}_us_p80"], "us", "<= 60",
                  shape=False),
            claim(f"{name}_p99", f"reconfiguration time, p99{signed}", "220 us (max)", metrics[f"{name}_us_p99"], "us",
                  "<= 220", shape=False),
        ]  # fmt: skip
    metrics["egress_pass_ns_1k"] = statistics.median(_values(samples, "pass", "egress_ns"))
    metrics["ingress_pass_ns_1k"] = statistics.median(_values(samples, "pass", "ingress_ns"))
    metrics["agent_attach_ms_p50"] = statistics.median(_values(samples, "agent", "attach_ms"))
    metrics["agent_memory_mb"] = statistics.median(_values(samples, "sessions_hmac", "memory_mb"))
    claims += [
        claim("egress", "one pass, leaving, 1000 flows", "-", metrics["egress_pass_ns_1k"], "ns", "<= 60", shape=False),
        claim("ingress", "one pass, arriving, 1000 flows", "-", metrics["ingress_pass_ns_1k"], "ns", "<= 60", shape=False),
        claim("attach", "load and attach one agent", "-", metrics["agent_attach_ms_p50"], "ms", "<= 500", shape=False),
        claim("memory", "private memory of one agent", "-", metrics["agent_memory_mb"], "MB", "<= 40", shape=False),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics)


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    """The distribution of reconfiguration times on lightly loaded sessions (paper Fig. 14)."""
    drawing, samples = Drawing(run, summary), run.samples()
    times = {which: _values(samples, f"sessions_{which}", "reconfig_us") for which in ("dysco", "hmac")}
    with drawing.figure("reconfiguration-time", "1 run each") as (_, axis):
        for (which, label), colour in zip((("dysco", "unsigned"), ("hmac", "HMAC-SHA256")), COLOURS, strict=False):
            cdf(axis, times[which], colour, label)
        axis.legend()
        axis.set(xscale="log", xlabel="from requestLock until new data may take the new path (us)", ylabel="reconfigurations (%)")
        axis.set_title(f"{len(times['dysco'])} lightly loaded sessions, one by one")
    return drawing.paths
