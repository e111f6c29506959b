# SPDX-License-Identifier: Apache-2.0
"""Proxies that know nothing of Dysco, and leave by the preloaded library (docs/libdysco.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from middleboxes.box import ProcessBox
from middleboxes.control import Leaves

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "libdysco_preload.so"


class Unmodified(Leaves, ProcessBox):
    """A proxy as its distribution ships it.

    `leave_when`: never, now (as soon as it is a relay), after:BYTES, command, or none (without the library).
    `relay`: tcp if it reads none of what it relays; auto if it may be HTTP.
    """

    def __init__(self, name: str, folder: Path, leave_when: str = "none", relay: str = "auto") -> None:
        super().__init__(name, folder)
        self.leave_when, self.relay = leave_when, relay

    def environment(self) -> Mapping[str, str]:
        if self.leave_when == "none":
            return {}
        return {
            "LD_PRELOAD": str(LIBRARY),
            "DYSCO_LEAVE": self.leave_when,
            "DYSCO_RELAY": self.relay,
            "DYSCO_CONTROL": str(self._control),
        }

    @property
    def _control(self) -> Path:
        return self.folder / self.name

    def sockets(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.name}.*.sock"))

    def stop(self, timeout_s: float = 5.0) -> None:
        super().stop(timeout_s)
        for path in self.sockets():
            with contextlib.suppress(OSError):
                path.unlink()
