# SPDX-License-Identifier: Apache-2.0
"""What Dysco costs, each figure beside its baseline on the same network in one run, alternating.

No agent is attached while a baseline is measured.  Links are not shaped: the machine's CPU is the limit on purpose.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.experiments import Options, passes
from lab.network import Lab, wait_for
from lab.results import ROOT, RunDirectory, Summary, claim
from lab.statistics import median_interval, percentile
from lab.tools import bulk
from lab.topologies import build
from lab.topologies.proxy import PROXY, proxy_port, server_port
from middleboxes.tcp_proxy import TcpProxy

DESCRIPTION = "cost of connect(), of goodput, of one pass, of a reconfiguration on lightly loaded sessions"
MODES = ("baseline", "dysco", "hmac")
LENGTHS = (0, 4)
PORT = 5001
CONNECT = ROOT / "build" / "connect"
Row = tuple[float, str, str, float]


def _scale(options: Options) -> dict[str, int]:
    paper = options.profile == "paper"
    return {
        "rounds": 15 if paper else 9,
        "connects": 1000 if paper else 300,
        "goodput_rounds": 15 if paper else 9,
        "sessions": 500,
        "pass_rounds": 20 if paper else 8,
    }


# ---- step 1 ----


def run(directory: RunDirectory, options: Options) -> None:
    scale, started = _scale(options), time.time()
    rows: list[Row] = []
    for step, length in enumerate(LENGTHS):
        options.progress(0.05 + 0.35 * step, f"connect() and goodput through {length} middleboxes")
        rows += _chain(length, scale)
    options.progress(0.75, "reconfigurations, one by one")
    for mode in ("dysco", "hmac"):
        rows += _reconfigurations(directory.raw, scale["sessions"], options.seed, mode)
    rows += _attach()
    options.progress(0.9, "one pass over 1000 flows")
    rows += [(0.0, "pass", name, value) for name, value in passes.measure(1000, scale["pass_rounds"], options.seed)]
    directory.write_samples([(round(t, 3), subject, quantity, round(value, 3)) for t, subject, quantity, value in rows])
    directory.write_manifest(
        experiment="bench", profile=options.profile, seed=options.seed, settings=scale, started=started,
        duration_s=time.time() - started,
    )  # fmt: skip


def _chain(length: int, scale: dict[str, int]) -> Iterator[Row]:
    topology = build("chain", {"middleboxes": str(length), "dysco": "off"})
    server = topology.host("server").address
    zero = time.monotonic()
    with Lab(topology) as lab, lab.service("server", _on(1, [str(CONNECT), "server", server, str(PORT)])):
        iperf = lab.popen("server", _on(0, ["iperf3", "-s", "-p", str(PORT + 1)]), stdout=subprocess.DEVNULL)
        for turn in range(scale["rounds"]):
            for mode in MODES:
                _enter(lab, mode)
                for value in _connects(lab, server, scale["connects"]):
                    yield time.monotonic() - zero, f"{mode}_{length}", "connect_us", value
                if turn < scale["goodput_rounds"] and mode != "hmac":
                    yield time.monotonic() - zero, f"{mode}_{length}", "goodput_mbps", _goodput(lab, server)
                _leave(lab, mode)
        iperf.terminate()


def _on(nth: int, command: list[str]) -> list[str]:
    """The command on the first or the second of the processors that we may use."""
    ours = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(ours[min(nth, len(ours) - 1)]), *command]


def _enter(lab: Lab, mode: str) -> None:
    if mode != "baseline":
        lab.start_agents(sign=mode == "hmac")


def _leave(lab: Lab, mode: str) -> None:
    if mode != "baseline":
        lab.stop_agents()


def _connects(lab: Lab, server: str, count: int) -> list[float]:
    """The first tenth warms up neighbours and caches and is left out."""
    out = lab.run("client", _on(0, [str(CONNECT), "client", server, str(PORT), str(count + count // 10)]))
    return [float(line) for line in out.split()][count // 10 :]


def _goodput(lab: Lab, server: str) -> float:
    """Sender and receiver share one processor: every cycle that an agent takes is then missing from goodput, and
    nothing depends on how two processors wake each other.  The host's default congestion control may pace (BBR),
    which leaves the processor idle and hides the cost."""
    load = ["iperf3", "-c", server, "-p", str(PORT + 1), "-t", "1.5", "-O", "0.5", "-C", "cubic", "-J"]
    out = lab.run("client", _on(0, load))
    return float(json.loads(out)["end"]["sum_received"]["bits_per_second"]) / 1e6


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _reconfigurations(raw: Path, sessions: int, seed: int, mode: str) -> Iterator[Row]:
    """500 established, lightly loaded sessions lose a proxy, one after the other."""
    hmac = "on" if mode == "hmac" else "off"
    topology = build("proxy", {"pairs": "1", "proxy_mbps": "none", "direct_mbps": "none", "hmac": hmac})
    server, box = topology.host("server1").address, topology.host(PROXY).address
    proxy = TcpProxy({proxy_port(1): (server, server_port(1))}, raw / "proxy.sock", "command")
    with Lab(topology) as lab:
        receiver = bulk.server_command(server, server_port(1), raw / "server.jsonl", 1000)
        with lab.service("server1", receiver), lab.service(PROXY, proxy.command()):
            load = bulk.client_command(
                box, proxy_port(1), raw / "client.jsonl", sessions=sessions, seconds=30, interval_ms=1000,
                message=100, every_us=500_000, seed=seed,
            )  # fmt: skip
            client = lab.popen("client1", load, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(client, "connected")
            time.sleep(1.0)
            proxy.leave(proxy_port(1), join_only=True)
            agent = lab.agent("client1")
            zero = time.monotonic()
            for session in agent.request("sessions")["sessions"]:
                result = agent.request("reconfigure", session=session["id"], remove=PROXY)["results"][0]
                for name in ("reconfig_us", "first_byte_us", "old_path_drained_us"):
                    if result[name] is not None:
                        yield time.monotonic() - zero, f"sessions_{mode}", name, result[name]
            yield 0.0, f"sessions_{mode}", "memory_mb", _memory_mb(lab.state.agents["client1"].pid)
            client.terminate()
            client.wait(30)


def _attach() -> Iterator[Row]:
    """Load and attach, one agent after the other."""
    from dysco_ns.agent.daemon import forget_namespace
    from dysco_ns.agent.launch import AgentTarget, start_agents

    with Lab(build("chain", {"middleboxes": "0", "dysco": "off"})) as lab:
        for _ in range(5):
            start = time.monotonic()
            handle = start_agents([AgentTarget("client", lab.pid("client"))])[0]
            yield 0.0, "agent", "attach_ms", (time.monotonic() - start) * 1000
            handle.stop()
            forget_namespace(lab.state.namespaces["client"])


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str) -> list[float]:
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    found: list[float] = rows.value.tolist()
    return found


def _chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _paired(samples: Any, mode: str, length: int, connects: int) -> list[float]:
    """For each round: median connect() of a mode less the baseline's of the same round."""
    a = _chunks(_values(samples, f"{mode}_{length}", "connect_us"), connects)
    b = _chunks(_values(samples, f"baseline_{length}", "connect_us"), connects)
    return [statistics.median(x) - statistics.median(y) for x, y in zip(a, b, strict=True)]


def summarise(directory: RunDirectory) -> Summary:
    samples, manifest = directory.samples(), directory.manifest()
    metrics: dict[str, float] = {}
    claims = []
    for length in LENGTHS:
        for mode, name, bound in (("dysco", "", 5 if not length else 15), ("hmac", "_hmac", 12 if not length else 26)):
            overhead = _paired(samples, mode, length, manifest["settings"]["connects"])
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
    for mode, name in (("dysco", "reconfig"), ("hmac", "reconfig_hmac")):
        times = _values(samples, f"sessions_{mode}", "reconfig_us")
        for quantile, share in (("p50", 0.5), ("p80", 0.8), ("p99", 0.99), ("max", 1.0)):
            metrics[f"{name}_us_{quantile}"] = percentile(times, share)
        signed = ", signed" if mode == "hmac" else ""
        claims += [
            claim(f"{name}ured", f"lightly loaded sessions reconfigured, one by one{signed}", "all", float(len(times)), "",
                  f"== {manifest['settings']['sessions']}"),
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
    metrics = {name: round(value, 3) for name, value in metrics.items()}
    return Summary("bench", manifest["profile"], claims, metrics, 100.0, ["CPU-bound on purpose"])


# ---- step 3 ----


def draw(directory: RunDirectory) -> list[Path]:
    """The distribution of reconfiguration times on lightly loaded sessions (paper Fig. 14)."""
    from lab.experiments.proxy_removal_figures import COLOURS, cdf, save, style

    plt = style()
    figure, axis = plt.subplots(figsize=(7, 4))
    times: list[float] = []
    for mode, name, colour in (("dysco", "unsigned", COLOURS[0]), ("hmac", "HMAC-SHA256", COLOURS[1])):
        times = _values(directory.samples(), f"sessions_{mode}", "reconfig_us")
        cdf(axis, times, colour, name)
    axis.legend(frameon=False)
    axis.set_xscale("log")
    axis.set_xlabel("from requestLock until new data may take the new path (us)")
    axis.set_ylabel("reconfigurations (%)")
    axis.set_title(f"{len(times)} lightly loaded sessions, one by one", fontsize=12)
    paths = save(figure, directory, "reconfiguration-time")
    plt.close("all")
    return paths
