# SPDX-License-Identifier: Apache-2.0
"""A testbed as the place of an experiment (lab/site.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.network import Lab
from lab.testbed.inventory import Inventory
from lab.testbed.network import Testbed
from lab.topologies import Topology


class Machines:
    """The machines of an inventory."""

    def __init__(self, inventory: Inventory, path: Path) -> None:
        self.inventory, self._path = inventory, path

    @property
    def middleboxes(self) -> int:
        return len(self.inventory.chain) - 2

    def network(self, topology: Topology) -> Lab:
        return Testbed(topology, self.inventory)

    def need(self, tools: Sequence[str], who: str) -> None:
        """`testbed prepare` has installed and built them there; here none is needed."""

    def facts(self) -> dict[str, Any]:
        hosts = {name: machine.model_dump(mode="json") for name, machine in self.inventory.hosts.items()}
        return {"testbed": {"inventory": str(self._path), "hosts": hosts}}
