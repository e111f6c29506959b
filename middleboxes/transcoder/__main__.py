# SPDX-License-Identifier: Apache-2.0
"""python -m middleboxes.transcoder PORT TO_ADDRESS TO_PORT PIECES CONTROL

A stream begins with pieces: 4 bytes of length (big-endian), then so many bytes.  Rightward each is zlib-compressed and goes
on expanded; leftward each goes on compressed.  After PIECES pieces in a direction its bytes pass as they are.  When both
directions are there, a session can leave: `splice PORT` on the control socket, with the deltas of what it has changed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dysco_ns.splice import SpliceRefused, splice

CHUNK = 16384
Code = Callable[[bytes], bytes]


@dataclass
class Session:
    """Two sockets; by direction (right, left): the bytes added, and whether it only relays by now."""

    inner: socket.socket
    outer: socket.socket
    added: list[int] = field(default_factory=lambda: [0, 0])
    plain: list[bool] = field(default_factory=lambda: [False, False])
    left: bool = False


class Transcoder:
    def __init__(self, port: int, to: tuple[str, int], pieces: int) -> None:
        self.port, self.to, self.pieces = port, to, pieces
        self.sessions: list[Session] = []
        self.opened = self.spliced = 0

    async def serve(self, inner: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        outer, forward = await asyncio.open_connection(*self.to)
        s = Session(answer.get_extra_info("socket"), forward.get_extra_info("socket"))
        self.sessions.append(s)
        self.opened += 1
        ways = ((inner, forward, zlib.decompress, 0), (outer, answer, zlib.compress, 1))
        try:
            await asyncio.gather(*(self._direction(s, *way) for way in ways))
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone in the middle of a piece
        finally:
            self.sessions.remove(s)
            forward.close()
            answer.close()

    async def _direction(self, s: Session, a: asyncio.StreamReader, b: asyncio.StreamWriter, code: Code, way: int) -> None:
        for _ in range(self.pieces):
            head = await a.readexactly(4)
            piece = code(await a.readexactly(int.from_bytes(head, "big")))
            b.write(len(piece).to_bytes(4, "big") + piece)
            s.added[way] += len(piece) - int.from_bytes(head, "big")
            await b.drain()
        s.plain[way] = True
        while data := await a.read(CHUNK):
            b.write(data)
            await b.drain()
        b.write_eof()

    def leave(self) -> dict[str, object]:
        """All sessions that only relay leave; the others are refused."""
        done, why = 0, ""
        staying = [s for s in self.sessions if not s.left]
        for s in staying:
            if not all(s.plain):
                why = "it still changes what it relays"
                continue
            try:
                splice(s.inner, s.outer, *s.added)
                s.left = True
                done += 1
            except SpliceRefused as error:
                why = str(error)
        self.spliced += done
        return {"spliced": done, "refused": len(staying) - done, "reason": why}

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).split()
        reply: dict[str, object] = {"error": "use splice PORT or stats"}
        if word and word[0] == b"splice":
            reply = {"ok": True, **self.leave()}
        elif word and word[0] == b"stats":
            reply = {"ok": True, "open": len(self.sessions), "accepted": self.opened, "spliced": self.spliced}
        writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()

    async def run(self, control: Path) -> None:
        control.unlink(missing_ok=True)
        await asyncio.start_unix_server(self.control, str(control))
        await (await asyncio.start_server(self.serve, "0.0.0.0", self.port, limit=CHUNK)).serve_forever()


if __name__ == "__main__":
    port, address, to, pieces, path = sys.argv[1:]
    asyncio.run(Transcoder(int(port), (address, int(to)), int(pieces)).run(Path(path)))
