# SPDX-License-Identifier: Apache-2.0
"""Experiments: each module has DESCRIPTION, run(run, options), summarise(run) and draw(run)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from lab.topologies import BadSetting

EXPERIMENTS = {"proxy-removal": "proxy_removal", "switch": "switch", "bench": "bench", "bench-dpdk": "bench_dpdk"}
Progress = Callable[[float, str], None]


@dataclass
class Options:
    """How an experiment is to be run."""

    profile: str = "quick"
    settings: dict[str, str] = field(default_factory=dict)
    seed: int = 1
    progress: Progress = lambda fraction, text: None


def find(name: str) -> ModuleType:
    """The module of an experiment.  BadSetting names what exists."""
    if name not in EXPERIMENTS:
        raise BadSetting(f"unknown experiment '{name}': one of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"lab.experiments.{EXPERIMENTS[name]}")
