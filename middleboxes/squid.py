# SPDX-License-Identifier: Apache-2.0
"""Squid as the distribution ships it: a web proxy that keeps nothing on the disk."""

from __future__ import annotations

import re
from pathlib import Path

from middleboxes.preload import Unmodified

CONFIGURATION = """http_port 0.0.0.0:{port}
http_access allow all
cache deny all
access_log {folder}/squid-access.log
cache_log stdio:{folder}/squid-cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
cache_effective_user root
visible_hostname {name}
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers 127.0.0.1
max_filedescriptors 4096
"""


class Squid(Unmodified):
    """A forward proxy on one port: GET of absolute URLs, and CONNECT."""

    def __init__(self, folder: Path, port: int = 3128, leave_when: str = "none", name: str = "squid") -> None:
        super().__init__(name, folder, leave_when)
        self._port = port

    @property
    def ports(self) -> tuple[int, ...]:
        return (self._port,)

    @property
    def _file(self) -> Path:
        return self.folder / "squid.conf"

    def command(self) -> list[str]:
        return ["squid", "-N", "-f", str(self._file)]

    def prepare(self) -> None:
        self._file.write_text(CONFIGURATION.format(port=self._port, folder=self.folder, name=self.name))

    def counters(self) -> dict[str, int]:
        """Requests that it has logged, and those that it has answered with success."""
        log = self.folder / "squid-access.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return {"requests": len(lines), "served": sum(bool(re.search(r" TCP_\w+/200 ", line)) for line in lines)}
