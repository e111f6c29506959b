# SPDX-License-Identifier: Apache-2.0
"""HAProxy as the distribution ships it: TCP or HTTP, one server or a balance of several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from middleboxes.preload import Unmodified

Address = tuple[str, int]

HEAD = """global
    maxconn 4000
    nbthread {threads}
    stats socket {folder}/{name}-stats level admin
defaults
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    balance {balance}
"""
LISTEN = """listen {mode}{port}
    mode {mode}
    bind :{port} backlog 4096
{options}{servers}"""
TCP_OPTIONS = ""
SPLICE_OPTIONS = "    option splice-request\n    option splice-response\n"
HTTP_OPTIONS = "    option http-server-close\n    option forwardfor\n"


class HAProxy(Unmodified):
    """tcp, http: port -> servers.  balance: its algorithm.  kernel_splice: bytes pass through pipes in the kernel."""

    def __init__(
        self,
        folder: Path,
        *,
        tcp: Mapping[int, list[Address]] | None = None,
        http: Mapping[int, list[Address]] | None = None,
        leave_when: str = "none",
        balance: str = "roundrobin",
        kernel_splice: bool = False,
        threads: int = 1,
        name: str = "haproxy",
    ) -> None:
        super().__init__(name, folder, leave_when, "tcp" if tcp and not http else "auto")
        self._tcp, self._http = dict(tcp or {}), dict(http or {})
        self._balance, self._kernel_splice, self._threads = balance, kernel_splice, threads

    @property
    def ports(self) -> tuple[int, ...]:
        return (*self._tcp, *self._http)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.cfg"

    def command(self) -> list[str]:
        return ["haproxy", "-db", "-f", str(self._file)]

    def prepare(self) -> None:
        text = HEAD.format(threads=self._threads, folder=self.folder, name=self.name, balance=self._balance)
        options = SPLICE_OPTIONS if self._kernel_splice else TCP_OPTIONS
        for port, servers in self._tcp.items():
            text += LISTEN.format(mode="tcp", port=port, options=options, servers=_list(servers))
        for port, servers in self._http.items():
            text += LISTEN.format(mode="http", port=port, options=HTTP_OPTIONS, servers=_list(servers))
        self._file.write_text(text)


def _list(servers: list[Address]) -> str:
    return "".join(f"    server s{i} {address}:{port}\n" for i, (address, port) in enumerate(servers, 1))
