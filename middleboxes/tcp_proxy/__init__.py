# SPDX-License-Identifier: Apache-2.0
"""Our TCP proxy, which asks to leave its sessions when it is told to."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = Path(__file__).resolve().parents[2] / "build" / "tcp_proxy"


class ProxyFailed(Exception):
    """The proxy did not carry out a command."""


@dataclass(frozen=True)
class TcpProxy:
    """Listens on ports and relays each to (address, port)."""

    routes: dict[int, tuple[str, int]]
    control: Path
    splice: str = "command"  # never, now, after:BYTES, command
    congestion: str = ""
    ready_word: str = field(default="ready")

    def command(self) -> list[str]:
        words = [str(BINARY), "--splice", self.splice, "--control", str(self.control)]
        if self.congestion:
            words += ["--congestion", self.congestion]
        for port, (address, to) in self.routes.items():
            words += ["--listen", f"{port}={address}:{to}"]
        return words

    def _ask(self, line: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as s, s.makefile("rwb") as stream:
            s.connect(str(self.control))
            stream.write(line.encode() + b"\n")
            stream.flush()
            reply: dict[str, Any] = json.loads(stream.readline())
        if not reply.get("ok"):
            raise ProxyFailed(f"{line}: {reply.get('error')}")
        return reply

    def leave(self, port: int, *, join_only: bool = False) -> dict[str, Any]:
        """Splices all sessions that came by a port: how many, how many were refused, and the last reason."""
        return self._ask(f"{'join' if join_only else 'splice'} {port}")

    def counters(self) -> dict[str, int]:
        return {key: int(value) for key, value in self._ask("stats").items() if key != "ok"}
