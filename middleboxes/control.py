# SPDX-License-Identifier: Apache-2.0
"""Control sockets of proxies that can leave: a command a line, a JSON object back."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from middleboxes.box import BoxFailed


def ask(path: Path, line: str) -> dict[str, Any]:
    """The answer to a command.  BoxFailed if it is refused or nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as s, s.makefile("rwb") as stream:
            s.connect(str(path))
            stream.write(line.encode() + b"\n")
            stream.flush()
            said = stream.readline()
    except OSError as error:
        raise BoxFailed(f"{path}: {error.strerror}") from error
    reply: dict[str, Any] = json.loads(said) if said else {"error": "no answer"}
    if not reply.get("ok"):
        raise BoxFailed(f"{line}: {reply.get('error')}")
    return reply


class Leaves:
    """A proxy that leaves its sessions on command, through one control socket for each of its processes."""

    def sockets(self) -> list[Path]:
        raise NotImplementedError

    def leave(self, port: int, *, join_only: bool = False) -> dict[str, Any]:
        """Takes it out of all sessions that came by a port: how many, how many were refused, and the last reason."""
        word = "join" if join_only else "splice"
        replies = [ask(path, f"{word} {port}") for path in self.sockets()]
        return {
            "spliced": sum(int(r["spliced"]) for r in replies),
            "refused": sum(int(r["refused"]) for r in replies),
            "reason": next((r["reason"] for r in replies if r["reason"]), ""),
        }

    def counters(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for path in self.sockets():
            for key, value in ask(path, "stats").items():
                if isinstance(value, int) and key != "ok":
                    total[key] = total.get(key, 0) + value
        return total

    def stayed(self) -> dict[str, int]:
        """Sessions that have kept the proxy although its policy was to leave them, by reason."""
        total: dict[str, int] = {}
        for path in self.sockets():
            for why, sessions in ask(path, "stats").get("stayed", {}).items():
                total[why] = total.get(why, 0) + int(sessions)
        return total
