# SPDX-License-Identifier: Apache-2.0
"""Squid as the distribution ships it: a web proxy that keeps nothing on the disk."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from middleboxes.preload import Unmodified

CONFIGURATION = """http_port 0.0.0.0:{port}
http_access allow all
cache deny all
memory_cache_shared off
cache_mem 16 MB
access_log {own}/access.log
cache_log {own}/cache.log
pid_filename none
coredump_dir {own}
cache_effective_user {user}
visible_hostname {name}
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers 127.0.0.1
max_filedescriptors 4096
"""


USER = "proxy"  # Debian's; Squid refuses to be root


class Squid(Unmodified):
    """A forward proxy on one port: GET of absolute URLs, and CONNECT."""

    def __init__(self, folder: Path, port: int = 3128, leave_when: str = "none", name: str = "squid") -> None:
        super().__init__(name, folder, leave_when)
        self._port = port
        self._own = Path()  # where its user may write

    @property
    def ports(self) -> tuple[int, ...]:
        return (self._port,)

    @property
    def _file(self) -> Path:
        return self.folder / "squid.conf"

    def command(self) -> list[str]:
        return ["squid", "-N", "-n", f"dysco{os.getpid()}", "-f", str(self._file)]

    def prepare(self) -> None:
        self._own = Path(tempfile.mkdtemp(prefix="dysco-squid-"))
        shutil.chown(self._own, USER)
        self._file.write_text(CONFIGURATION.format(port=self._port, own=self._own, user=USER, name=self.name))

    def stop(self, timeout_s: float = 5.0) -> None:
        super().stop(timeout_s)
        for log in self._own.glob("*.log"):
            shutil.copyfile(log, self.folder / f"{self.name}-{log.name}")
        shutil.rmtree(self._own, ignore_errors=True)

    def counters(self) -> dict[str, int]:
        """Requests that it has logged, and those that it has answered with success."""
        log = self._own / "access.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return {"requests": len(lines), "served": sum(bool(re.search(r" TCP_\w+/200 ", line)) for line in lines)}
