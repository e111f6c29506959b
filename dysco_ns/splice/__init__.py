# SPDX-License-Identifier: Apache-2.0
"""Python binding of libdysco: a proxy asks to leave its sessions (paper IV-A)."""

from __future__ import annotations

import ctypes as c
import os
import socket
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "libdysco.so"
JOIN_ONLY = 1


class SpliceRefused(OSError):
    """The splice was not made: errno as libdysco.h lists it, and the reason in one line."""


def splice(inner: socket.socket, outer: socket.socket, delta_ab: int = 0, delta_ba: int = 0, *, remove: bool = True) -> None:
    """Joins the sessions of an accepted and a connected socket.

    delta_ab, delta_ba: bytes that the proxy has added to (or, negative, taken from) the stream from inner to outer
    and back.  remove=False joins them only.  SpliceRefused if the agent says no or there is none.
    """
    library = c.CDLL(str(LIBRARY), use_errno=True)
    library.dysco_error.restype = c.c_char_p
    flags = 0 if remove else JOIN_ONLY
    if library.dysco_splice_flags(inner.fileno(), outer.fileno(), delta_ab, delta_ba, flags):
        number = c.get_errno()
        raise SpliceRefused(number, library.dysco_error().decode() or os.strerror(number))
