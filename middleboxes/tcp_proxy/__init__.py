# SPDX-License-Identifier: Apache-2.0
"""Our TCP proxy, which asks to leave its sessions when it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from middleboxes.box import ProcessBox
from middleboxes.control import Leaves

BINARY = Path(__file__).resolve().parents[2] / "build" / "tcp_proxy"


class TcpProxy(Leaves, ProcessBox):
    """Listens on ports and relays each to (address, port).  splice: never, now, after:BYTES, command."""

    def __init__(
        self, routes: Mapping[int, tuple[str, int]], control: Path, splice: str = "command", congestion: str = ""
    ) -> None:
        super().__init__("tcp_proxy", control.parent)
        self.routes, self.control, self.splice, self.congestion = dict(routes), control, splice, congestion

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(self.routes)

    def command(self) -> list[str]:
        words = [str(BINARY), "--splice", self.splice, "--control", str(self.control)]
        if self.congestion:
            words += ["--congestion", self.congestion]
        for port, (address, to) in self.routes.items():
            words += ["--listen", f"{port}={address}:{to}"]
        return words

    def sockets(self) -> list[Path]:
        return [self.control]
