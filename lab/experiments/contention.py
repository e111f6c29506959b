# SPDX-License-Identifier: Apache-2.0
"""Overlapping segments of the same sessions are to be reconfigured at once (paper III-B, Fig. 5).

client - mb1 .. mb5 - server; mb6, mb7, mb8 are what the contenders would put in.  Each session is contended for once: two or
three requests that all overlap, or a ladder, in which the first and the last do not.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dysco_ns.model.events import Event, NotAllowed, replay
from lab.collect import collecting
from lab.experiments.contention_figures import draw
from lab.experiments.contention_sets import PATTERNS, sets, told
from lab.experiments.framework.load import Flow, ends, intact, loaded
from lab.experiments.framework.recorder import Recorder
from lab.network import Lab
from lab.results import RunDirectory, Summary, claim
from lab.statistics import percentile
from lab.tools import bulk
from lab.topologies import Settings, Topology

__all__ = ["CPU_BOUND", "DESCRIPTION", "TOOLS", "draw", "measure", "plan", "summarise"]

DESCRIPTION = "overlapping reconfigurations of the same sessions, triggered at once (paper Fig. 5)"
TOOLS = (str(bulk.BINARY),)
CPU_BOUND = False


PORT = 5001
AT_ONCE = 16  # sets under way together: as many of a request an agent begins at once
LISTEN_S, SETTLED_S = 1.0, 3.0  # until agents know that somebody listens; until what no traffic settles has settled by time
TIMEOUT_S = 30
SLACK_NS = 5_000_000  # an agent tells after it has done, on several processors
MET = ("locked", "earlier")  # in the reason of a request that met another one


@dataclass(frozen=True)
class Plan:
    topology: Topology
    sets: int  # of each pattern: sessions that are contended for


def plan(settings: Settings, profile: str) -> Plan:
    sets = settings.integer("sets", 400 if profile == "paper" else 40, 1, 1000)
    rate = settings.integer("rate", 60, 1, 10_000)  # full links: an old path lives long enough for others to meet it
    return Plan(settings.topology("chain", middleboxes=8, initial=5, rate=rate), sets)


# ---- step 1 ----


def measure(plan: Plan, record: Recorder) -> None:
    record.expect(len(PATTERNS) * (-(-plan.sets // AT_ONCE) + 1))
    with Lab(plan.topology) as lab, collecting(lab, record.raw), record.watched():
        for port, name in enumerate(PATTERNS, PORT):
            with loaded(lab, record, [Flow(name, "client", port, plan.sets)]):
                time.sleep(LISTEN_S)
                described = lab.agent("client").request("sessions")["sessions"]
                sessions = [s["id"] for s in described if s["tuple"].endswith(f":{port}")]
                for batch in (sessions[i : i + AT_ONCE] for i in range(0, len(sessions), AT_ONCE)):
                    record.step(f"{name} contenders")
                    _contend(lab, record, name, batch)
                record.step("until all has settled")
                time.sleep(SETTLED_S)
        lost = sum(lab.agent(host).request("stats")["counters"].get("event_lost", 0) for host in lab.state.agents)
        record("all", "events_lost", lost)


def _contend(lab: Lab, record: Recorder, pattern: str, sessions: Sequence[str]) -> None:
    """Every contender asks for the same sessions, all at the same moment."""
    contenders = PATTERNS[pattern]
    barrier, results = threading.Barrier(len(contenders)), dict[int, list[dict[str, Any]]]()

    def ask(number: int) -> None:
        agent, what = lab.agent(contenders[number].host), contenders[number].request()
        barrier.wait()
        results[number] = agent.request("reconfigure", sessions=sessions, retries=0, timeout_s=TIMEOUT_S, **what)["results"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(contenders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, session in itertools.product(range(len(contenders)), range(len(sessions))):
        result = results[number][session]
        subject = f"{pattern} {sessions[session]} {contenders[number].host}"
        record(subject, "won", result["outcome"] == "done")
        record(subject, "met_another", any(word in result["reason"] for word in MET))


# ---- step 2 ----


def _judged(events: dict[str, list[Event]]) -> tuple[int, list[str]]:
    """Sessions in which two locks overlapped, and all that the model does not allow; judged by dysco_ns/model/events.py."""
    overlapping, wrong = 0, list[str]()
    for session in events.values():
        try:
            replay(session, SLACK_NS)
        except NotAllowed as why:
            overlapping += "has the lock" in str(why)
            wrong.append(str(why))
    return overlapping, wrong


def summarise(run: RunDirectory) -> Summary:
    samples, events = run.samples(), told(run.raw)
    found = list(sets(samples))
    contended = [s for s in found if s.contended]
    overlapping, wrong = _judged(events)
    asked = [sorted(e.time_ns for e in events[s.session] if e.kind == "lock_requested") for s in contended]
    metrics = {
        **ends(samples),
        "sessions_reconfigured": float(sum(bool(s.winners) for s in found)),
        "contending_sets": float(len(contended)),
        "overlapping_locks": float(overlapping),
        "transitions_not_allowed": float(len(wrong)),
        "sets_with_wrong_winners": float(sum(not s.right for s in contended)),
        "request_spread_us_p50": percentile([(times[-1] - times[0]) / 1000 for times in asked if len(times) > 1], 0.5),
        "events_replayed": float(sum(map(len, events.values()))),
        "events_lost": float(samples[samples.quantity == "events_lost"].value.sum()),
    }
    for pattern in PATTERNS:
        metrics[f"contending_sets_{pattern}"] = float(sum(s.pattern == pattern for s in contended))
    claims = [
        claim("sets", "sets of requests that met one another", "-", metrics["contending_sets"], "", ">= 100"
              if len(found) >= 120 else f">= {0.8 * len(found):.0f}"),
        claim("locks", "sessions in which two locks overlapped", "0", metrics["overlapping_locks"], "", "== 0"),
        claim("model", "transitions that the model does not allow", "0", metrics["transitions_not_allowed"], "", "== 0"),
        claim("winners", "sets in which nobody won, or two that overlap", "0", metrics["sets_with_wrong_winners"], "", "== 0"),
        claim("events", "events that were lost", "0", metrics["events_lost"], "", "== 0"),
        *intact(metrics),
    ]  # fmt: skip
    return Summary.of(run, claims, metrics, wrong[:3])
