# SPDX-License-Identifier: Apache-2.0
"""Talks to an agent through its socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0


class AgentRefused(Exception):
    """The agent did not do it: one line why, and whether trying again makes sense."""

    def __init__(self, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


class NoAgent(Exception):
    """Nobody listens on the agent's socket."""


class AgentClient:
    """One connection a request; safe to use from several threads."""

    def __init__(self, path: Path | str, timeout_s: float = TIMEOUT_S) -> None:
        self.path, self._timeout_s = Path(path), timeout_s

    def _connect(self) -> socket.socket:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(self._timeout_s)
        try:
            s.connect(str(self.path))
        except OSError as error:
            s.close()
            raise NoAgent(f"no agent answers at {self.path} (start one: `dysco agent run`)") from error
        return s

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """The agent's answer.  AgentRefused if it says no, NoAgent if there is none."""
        with self._connect() as s, s.makefile("rwb") as stream:
            stream.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            stream.flush()
            try:
                line = stream.readline()
            except TimeoutError as error:
                raise NoAgent(f"the agent at {self.path} has not answered for {self._timeout_s:g} s") from error
        if not line:
            raise NoAgent(f"the agent at {self.path} went away")
        reply: dict[str, Any] = json.loads(line)
        if not reply.pop("ok", False):
            raise AgentRefused(reply.get("error", "refused"), bool(reply.get("retry")))
        return reply

    def events(self) -> Iterator[dict[str, Any]]:
        """Protocol events from now on, until the agent ends."""
        with self._connect() as s, s.makefile("rwb") as stream:
            s.settimeout(None)
            stream.write(b'{"op": "events"}\n')
            stream.flush()
            stream.readline()
            for line in stream:
                yield json.loads(line)
