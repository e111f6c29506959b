# SPDX-License-Identifier: Apache-2.0
"""Experiments: one module each, declaration and analysis; what they share is in `framework`.  docs/experiments.md"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lab.topologies import BadSetting, Settings

if TYPE_CHECKING:
    from lab.experiments.framework.recorder import Recorder
    from lab.results import RunDirectory, Summary

NAMES = (
    "proxy-removal",
    "setup-latency",
    "throughput",
    "http",
    "switch",
    "nat-firewall",
    "state-migration",
    "contention",
    "scrubber",
    "maintenance",
    "loadbalancer",
    "sdn-baseline",
    "bench",
    "bench-dpdk",
    "traffic-dpdk",
)
ON_TESTBED = ("setup-latency", "throughput")  # they ask of hosts only what ssh can do, too
PROFILES = ("quick", "paper")


class Experiment(Protocol):
    """What a module of this package is.  The name `set-up` is the module `set_up`."""

    DESCRIPTION: str  # one line
    TOOLS: tuple[str, ...]  # programs that it needs, or paths of our own ones
    CPU_BOUND: bool  # it uses all of the CPU on purpose: ratios within the run are its results

    def plan(self, settings: Settings, profile: str) -> Any:
        """How large a run is and what it sets up; reads every setting, so that BadSetting comes before anything is made."""

    def measure(self, plan: Any, record: Recorder) -> None:
        """Step 1: records samples and raw output."""

    def summarise(self, run: RunDirectory) -> Summary:
        """Step 2: what they mean."""

    def draw(self, run: RunDirectory, summary: Summary) -> list[Path]:
        """Step 3: the figures."""


def find(name: str) -> Experiment:
    """The experiment of that name.  BadSetting names what exists."""
    if name not in NAMES:
        raise BadSetting(f"unknown experiment '{name}': one of {', '.join(NAMES)}")
    return cast(Experiment, importlib.import_module(f"lab.experiments.{name.replace('-', '_')}"))


def plan_of(name: str, given: dict[str, str], profile: str) -> tuple[Any, dict[str, str]]:
    """The plan of a run, and all settings with their values.  BadSetting on nonsense."""
    experiment = find(name)
    if profile not in PROFILES:
        raise BadSetting(f"unknown profile '{profile}': use {' or '.join(PROFILES)}")
    settings = Settings(given, f"experiment {name}")
    plan = experiment.plan(settings, profile)
    settings.finish()
    return plan, settings.used
