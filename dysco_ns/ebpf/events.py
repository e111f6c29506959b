# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The ring buffer through which the data path tells what has happened."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable

from dysco_ns.ebpf.libbpf import RECORD, BpfError, lib


class EventRing:
    """Calls `on_record(bytes)` for each record; `fileno()` is readable when there are some."""

    def __init__(self, map_fd: int, on_record: Callable[[bytes], None]) -> None:
        def record(_context: int, data: int, size: int) -> int:
            on_record(c.string_at(data, size))
            return 0

        self._callback = RECORD(record)
        self._ring = lib.ring_buffer__new(map_fd, self._callback, None, None)
        if not self._ring:
            raise BpfError(c.get_errno(), "opening the event ring")

    def fileno(self) -> int:
        return int(lib.ring_buffer__epoll_fd(self._ring))

    def consume(self) -> None:
        lib.ring_buffer__consume(self._ring)

    def close(self) -> None:
        lib.ring_buffer__free(self._ring)
