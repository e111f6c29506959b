# SPDX-License-Identifier: Apache-2.0
"""Python binding of libdysco: a proxy asks to leave its sessions, or chooses the next middleboxes (paper IV-A)."""

from __future__ import annotations

import ctypes as c
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "libdysco.so"
JOIN_ONLY = 1


class SpliceRefused(OSError):
    """The agent did not do it: errno as libdysco.h lists it, and the reason in one line."""


def splice(inner: socket.socket, outer: socket.socket, delta_ab: int = 0, delta_ba: int = 0, *, remove: bool = True) -> None:
    """Joins the sessions of an accepted and a connected socket.

    delta_ab, delta_ba: bytes that the proxy has added to (or, negative, taken from) the stream from inner to outer
    and back.  remove=False joins them only.  SpliceRefused if the agent says no or there is none.
    """
    library = _library()
    flags = 0 if remove else JOIN_ONLY
    _check(library, library.dysco_splice_flags(inner.fileno(), outer.fileno(), delta_ab, delta_ba, flags))


def choose(outer: socket.socket, destination: tuple[str, int], middleboxes: Sequence[str]) -> None:
    """The middleboxes (addresses) of the session that `outer`, not connected yet, will open to this destination.

    Binds the socket if it is not bound.  SpliceRefused if the agent says no or there is none.
    """
    library = _library()
    there = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(destination[1]), socket.inet_aton(destination[0]))
    boxes = b"".join(socket.inet_aton(box) for box in middleboxes)
    _check(library, library.dysco_next(outer.fileno(), there, boxes, len(middleboxes)))


def _library() -> c.CDLL:
    library = c.CDLL(str(LIBRARY), use_errno=True)
    library.dysco_error.restype = c.c_char_p
    return library


def _check(library: c.CDLL, result: int) -> None:
    if result:
        number = c.get_errno()
        raise SpliceRefused(number, library.dysco_error().decode() or os.strerror(number))
