# SPDX-License-Identifier: Apache-2.0
"""Keeps every agent's events of a run in raw/events-HOST.jsonl."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.network import Lab


class Collector:
    """Listens to all agents of a lab."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lock = threading.Lock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        for name in lab.state.agents:
            threading.Thread(target=self._listen, args=(lab, name, directory), daemon=True).start()

    def _listen(self, lab: Lab, name: str, directory: Path) -> None:
        with (directory / f"events-{name}.jsonl").open("w", buffering=1) as file:
            for event in lab.agent(name).events():
                file.write(json.dumps(event) + "\n")
                with self._lock:
                    self.events.append((name, event))

    def named(self, kind: str) -> list[dict[str, Any]]:
        with self._lock:
            return [event for _, event in self.events if event["event"] == kind]

    def ended(self) -> list[dict[str, Any]]:
        """Reconfigurations that have ended, well or not."""
        return self.named("reconfigured") + self.named("reconfig_failed")


@contextmanager
def collecting(lab: Lab, directory: Path) -> Iterator[Collector]:
    yield Collector(lab, directory)


def read_events(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(host, event) of all hosts, as recorded."""
    for path in sorted(directory.glob("events-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                yield path.stem.removeprefix("events-"), json.loads(line)
            except ValueError:  # the last line of an agent that was killed
                continue
