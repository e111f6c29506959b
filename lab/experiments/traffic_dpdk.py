# SPDX-License-Identifier: Apache-2.0
"""Packets per second of 60,000 sessions through dysco-dpdk, beside plain forwarding over the same ports (paper Fig. 9 and 10).

The generator (lab/tools/traffic) is both ends of every session: it sets them up through the agent, sends data both ways with
numbers that advance, and checks every frame that comes out.  Generator and forwarder are processes of their own in a namespace
of their own, joined by pairs of veth (af_packet) or by shared memory (virtio_user).
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco_ns import netns
from dysco_ns.agent.core import Core
from dysco_ns.dpdk.client import DataPath
from dysco_ns.dpdk.process import PROGRAM
from dysco_ns.ebpf.btf import Btf
from dysco_ns.ebpf.loader import OBJECT
from dysco_ns.netns import Interface
from lab.experiments.framework.figures import COLOURS, Drawing
from lab.experiments.framework.recorder import Recorder
from lab.network import LabFailed, end, wait_for
from lab.results import RunDirectory, Summary, claim
from lab.statistics import median_interval
from lab.tool import run as run_tool
from lab.tools import traffic
from lab.topologies import Settings

DESCRIPTION = "DPDK over wires: packets/s of 60,000 checked sessions, agent beside plain forwarding (paper Fig. 9, 10)"
TOOLS = (str(PROGRAM), str(traffic.BINARY))
CPU_BOUND = True
POINTS = (("af_packet", 1), ("virtio_user", 1), ("virtio_user", 2))  # ports, cores; queues of af_packet overtake one another
KINDS = ("af_packet", "virtio_user")
MODES = ("plain", "agent")
SIZES = (64, 128, 256, 512, 1024, 1280, 1518)  # bytes with the frame check sequence
PAPER_PENALTY_PCT = 27.85
WRONG = ("checksums_bad", "acks_bad", "late", "foreign")
OWN, BOX, MAC = "10.0.0.1", "10.0.1.2", bytes.fromhex("020000000001")
HOP, RETURN_ONE = 512, {"code": 6, "jt": 0, "jf": 0, "k": 1}
VETHS = (("near0", "host0"), ("wire0", "far0"))


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float  # for each size
    sessions: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Devices:
    """What joins the generator (near, far) and the forwarder (host, wire)."""

    near: str
    far: str
    host: str
    wire: str
    ifindex: int  # by which the agent knows the host side


def plan(settings: Settings, profile: str) -> Plan:
    paper = profile == "paper"
    kind = settings.choice("ports", "all", ("all", *KINDS))
    return Plan(
        settings.integer("rounds", 10 if paper else 3, 1, 100),
        settings.integer("ms", 2000 if paper else 300, 100, 60_000) / 1000,
        settings.integer("sessions", 60_000, 1, 1 << 20),
        KINDS if kind == "all" else (kind,),
    )


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    points = [(kind, cores) for kind, cores in POINTS if kind in plan.kinds]
    record.expect(len(points) * len(MODES) * plan.rounds)
    for kind, cores in points:
        for turn in record.turns(plan.rounds, MODES, f"{kind}, {cores} cores,", warm_up=0):
            with _place() as (namespace, folder), netns.entered(namespace):
                said = _through(_devices(kind, cores, folder), turn.mode, cores, plan, folder)
            for subject, quantity, value in traffic.read(said):
                record(f"{kind}_{cores}_{turn.mode}_{subject}", quantity, value)


@contextmanager
def _place() -> Iterator[tuple[Path, Path]]:
    """A network namespace, and a folder for sockets."""
    with tempfile.TemporaryDirectory(prefix="dysco-") as folder:
        command = ["unshare", "-n", "sh", "-c", "echo up; exec sleep infinity"]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            wait_for(holder, "up")
            yield netns.path_of(holder.pid), Path(folder)
        finally:
            end(holder)


def _devices(kind: str, cores: int, folder: Path) -> Devices:
    if kind == "virtio_user":
        near, far = folder / "near", folder / "far"
        return Devices(f"net_vhost0,iface={near},queues={cores}", f"net_vhost1,iface={far},queues={cores}",
                       f"virtio_user0,path={near},queues={cores}", f"virtio_user1,path={far},queues={cores}", 1)  # fmt: skip
    lines = [f"link add {a} type veth peer name {b}" for a, b in VETHS]
    names = [name for pair in VETHS for name in pair]
    run_tool(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    run_tool(["ip", "-batch", "-"], "\n".join([*lines, *(f"link set {name} arp off up" for name in names)]))
    packet = {name: f"net_af_packet{i},iface={name},qpairs={cores},framecnt=1024" for i, name in enumerate(names)}
    return Devices(packet["near0"], packet["far0"], packet["host0"], packet["wire0"], socket.if_nametoindex("host0"))


def _through(devices: Devices, mode: str, cores: int, plan: Plan, folder: Path) -> str:
    """What the generator says of all sizes."""
    with ExitStack() as stack:
        command = traffic.command(devices.near, devices.far, SIZES, sessions=plan.sessions, seconds=plan.seconds, workers=cores)
        generator = _started(stack, command)
        if mode == "plain":
            _started(stack, traffic.forward_command(devices.host, devices.wire, cores))
        else:
            _started(stack, _agent_command(devices, cores, plan.sessions, folder))
            _configure(folder / "agent", devices.ifindex)
        said, complaint = generator.communicate("go\n")
        if mode == "agent" and not generator.returncode:
            said += f"setup,chained,{_chained(folder / 'agent')}\n"
    if generator.returncode:
        raise LabFailed(f"traffic through {mode}: {complaint.strip() or said}")
    return str(said)


def _started(stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    stack.callback(end, process)
    wait_for(process, "ready")
    return process


def _agent_command(devices: Devices, cores: int, sessions: int, folder: Path) -> list[str]:
    return [str(PROGRAM), "--wire", devices.wire, "--host", devices.host, "--socket", str(folder / "agent"), "--poll",
            "--workers", str(cores), "--sessions", str(max(sessions, 1024))]  # fmt: skip


def _configure(control: Path, ifindex: int) -> None:
    """What a daemon would write: one interface, a policy that sends everything by one middlebox, its next hop."""
    path = DataPath(control, Btf(OBJECT))
    core = Core(path)
    hop = {"address": BOX, "ifindex": ifindex, "resolved": 1, "from": OWN, "source": MAC, "destination": MAC}
    path.map("next_hop_table").put(HOP, hop)
    path.map("next_hop_index").put({"address": BOX, "from": "0.0.0.0"}, HOP)
    core.put_policies([{"id": 1, "insns": 1, "chain_length": 1, "chain": [BOX], "filter": [RETURN_ONE]}])
    core.configure([Interface(ifindex, "host", MAC, OWN)], domains=[{"sign": 0}], events=False)
    path.close()


def _chained(control: Path) -> int:
    """Sessions that the agent has sent by a middlebox."""
    path = DataPath(control, Btf(OBJECT))
    started = Core(path).counters().get("session_started", 0)
    path.close()
    return started


# ---- step 2 ----


def _values(samples: Any, subject: str, quantity: str) -> list[float]:
    rows = samples[(samples.subject == subject) & (samples.quantity == quantity)]
    return [float(value) for value in rows.sort_values("round").value]


def _penalties(samples: Any, point: str, size: int) -> list[float]:
    """By round, by how many per cent the agent's packets per second are fewer than the plain forwarder's."""
    rates = zip(*(_values(samples, f"{point}_{mode}_{size}", "pps") for mode in MODES), strict=True)
    return [100 * (1 - agent / plain) for plain, agent in rates if plain]


def _lost_pct(samples: Any, subject: str) -> float:
    ways = ("out", "in")
    sent, received = (sum(sum(_values(samples, subject, f"{what}_{way}")) for way in ways) for what in ("sent", "received"))
    return 100 * (1 - received / sent) if sent else 0.0


def _points(samples: Any) -> list[tuple[str, int]]:
    """Kinds of ports and numbers of cores that were measured."""
    return [(kind, cores) for kind, cores in POINTS if (samples.subject == f"{kind}_{cores}_agent_setup").any()]


def summarise(run: RunDirectory) -> Summary:
    samples = run.samples()
    metrics: dict[str, float] = {}
    claims = []
    for kind, cores in _points(samples):
        point = f"{kind}_{cores}"
        for size in SIZES:
            penalties = _penalties(samples, point, size)
            metrics[f"penalty_pct_{point}_{size}"] = statistics.median(penalties)
            for mode in MODES:
                subject = f"{point}_{mode}_{size}"
                metrics[f"kpps_{subject}"] = statistics.median(_values(samples, subject, "pps")) / 1e3
                metrics[f"lost_pct_{subject}"] = _lost_pct(samples, subject)
            if size == SIZES[0]:
                claims.append(claim(f"penalty_{point}", f"fewer packets/s of 64 bytes over {kind}, {cores} cores",
                                    f"{PAPER_PENALTY_PCT} % (one core)", statistics.median(penalties), "%",
                                    f"<= {PAPER_PENALTY_PCT}", shape=False, ci95=median_interval(penalties)))  # fmt: skip
        metrics[f"setup_per_second_{point}"] = statistics.median(_values(samples, f"{point}_agent_setup", "setup_per_second"))
    for quantity in WRONG:
        metrics[quantity] = float(samples[samples.quantity == quantity].value.sum())
    metrics["sessions"] = float(samples[samples.quantity == "sessions"].value.min())
    metrics["sessions_chained"] = float(samples[samples.quantity == "chained"].value.min())
    received = samples[samples.quantity.isin(("received_out", "received_in"))]
    metrics["frames_checked"] = float(received.value.sum())
    wrong = sum(metrics[quantity] for quantity in WRONG)
    claims += [
        claim("wrong", "frames with a wrong checksum, acknowledgment, order or session", "0", wrong, "", "== 0"),
        claim("chained", "sessions that the agent has not chained", "0", metrics["sessions"] - metrics["sessions_chained"], "",
              "<= 0"),
        claim("checked", "frames checked", "-", metrics["frames_checked"], "", ">= 1000"),
        claim("sessions", "sessions at once", "60000", metrics["sessions"], "", ">= 60000", shape=False),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics, _notes(run))


def _notes(run: RunDirectory) -> list[str]:
    processors = run.manifest()["cores"]
    busy = {cores: 2 * cores for _, cores in POINTS if 2 * cores > processors}  # generator and forwarder poll a core each
    return ["no NIC: frames cross the kernel's veth, or memory that both processes share",
            *(f"{cores} cores: {all_} busy threads on {processors} processors, oversubscribed; only the comparison with plain "
              "forwarding means something" for cores, all_ in busy.items())]  # fmt: skip


# ---- step 3 ----


def draw(run: RunDirectory, summary: Summary) -> list[Path]:
    """Packets per second by frame size, one panel for each kind of port and number of cores."""
    drawing, samples = Drawing(run, summary), run.samples()
    points = _points(samples)
    size, caption = (5.0 * len(points), 4.0), "medians of rounds, both directions together"
    with drawing.figure("traffic", caption, size, ncols=len(points), squeeze=False) as (_, grid):
        for axis, (kind, cores) in zip(grid[0], points, strict=True):
            for mode, colour in zip(MODES, (COLOURS[1], COLOURS[0]), strict=True):
                rates = [summary.metrics[f"kpps_{kind}_{cores}_{mode}_{size}"] for size in SIZES]
                axis.plot(SIZES, rates, color=colour, marker="o", label=mode)
            axis.set(xlabel="frame (bytes)", ylabel="1000 frames/s", title=f"{kind}, cores: {cores}", ylim=(0, None))
            axis.legend()
    return drawing.paths
