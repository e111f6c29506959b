# SPDX-License-Identifier: Apache-2.0
"""Passive monitors on libpcap: PRADS finds hosts and services, tshark lists TCP connections.

At an interface where an agent is they see what is on the wire: subsessions.  In front of a bridge they see sessions.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from middleboxes.box import ProcessBox, captures

CONVERSATION = re.compile(r"^(\S+):(\d+)\s+<->\s+(\S+):(\d+)\s+(.*)$", re.M)


class Prads(ProcessBox):
    """Writes down each host and service that it sees."""

    def __init__(self, folder: Path, device: str = "eth0", name: str = "prads") -> None:
        super().__init__(name, folder)
        self._device = device

    @property
    def _assets(self) -> Path:
        return self.folder / f"{self.name}-assets.csv"

    def command(self) -> list[str]:
        # every connection counts, at any address
        return ["prads", "-i", self._device, "-l", str(self._assets), "-d", "-a", "0.0.0.0/0"]

    def ready(self) -> bool:
        return super().ready() and self.process is not None and captures(self.process.pid)

    def counters(self) -> dict[str, int]:
        """Lines of its list: one for each finding about a host."""
        lines = self._assets.read_text().splitlines()[1:] if self._assets.exists() else []
        return {"assets": len(lines), "hosts": len({line.split(",")[0] for line in lines})}


class FlowMonitor(ProcessBox):
    """Keeps the headers of what passes; counts flows when asked."""

    def __init__(self, folder: Path, device: str = "eth0", name: str = "monitor") -> None:
        super().__init__(name, folder)
        self._device = device

    @property
    def _capture(self) -> Path:
        return self.folder / f"{self.name}.pcap"

    def command(self) -> list[str]:
        return ["tcpdump", "-i", self._device, "-n", "-U", "-s", "96", "-Z", "root", "-w", str(self._capture), "tcp"]

    def ready(self) -> bool:
        return super().ready() and self.process is not None and captures(self.process.pid)

    def counters(self) -> dict[str, int]:
        """TCP connections seen so far, and their frames."""
        assert self._place
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR2)  # flush
            time.sleep(0.1)
        shown = self._place.run(["tshark", "-n", "-r", str(self._capture), "-q", "-z", "conv,tcp"])
        flows = [re.findall(r"\d+", found[4]) for found in CONVERSATION.findall(shown)]
        frames = len(self._place.run(["tshark", "-n", "-r", str(self._capture), "-T", "fields", "-e", "frame.number"]).split())
        return {"flows": len(flows), "frames": frames}
