# SPDX-License-Identifier: Apache-2.0
"""Where an experiment runs: in namespaces of this machine, or on a testbed (lab/testbed).  Experiments do not ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lab import environment
from lab.network import Lab
from lab.topologies import Topology


class Site(Protocol):
    @property
    def middleboxes(self) -> int:
        """The longest chain that there are hosts for."""

    def network(self, topology: Topology) -> Lab:
        """The topology, to be entered with `with`; its hosts have their addresses only then."""

    def need(self, tools: Sequence[str], who: str) -> None:
        """MissingTool for the first that is not there."""

    def facts(self) -> dict[str, Any]:
        """What belongs into the manifest of a run."""


class Here:
    """Namespaces of this machine."""

    middleboxes = 8

    def network(self, topology: Topology) -> Lab:
        return Lab(topology)

    def need(self, tools: Sequence[str], who: str) -> None:
        environment.need(tuple(tools), who)

    def facts(self) -> dict[str, Any]:
        return {}
