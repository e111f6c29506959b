# SPDX-License-Identifier: Apache-2.0
"""NGINX as the distribution ships it: web server, TCP proxy (`stream`), HTTP reverse proxy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from middleboxes.preload import Unmodified

Address = tuple[str, int]
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
BUFFER = "16k"  # for each direction: what it holds when it leaves must drain first

MAIN = """{module}daemon off;
user root root;
worker_processes {workers};
pid {folder}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 8192; multi_accept on; }}
"""
HTTP = """http {{
    access_log off;
    default_type application/octet-stream;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
    map $http_upgrade $asked {{ default upgrade; '' close; }}
{servers}}}
"""
WEB_SERVER = "    server {{ listen {port} backlog=4096 reuseport; root {root}; }}\n"
REVERSE_PROXY = """    upstream to{port} {{ {servers}}}
    server {{
        listen {port} backlog=4096 reuseport;
        location / {{
            proxy_pass http://to{port};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $asked;
            proxy_max_temp_file_size 0;
        }}
    }}
"""
STREAM = """stream {{
{servers}}}
"""
STREAM_PROXY = """    upstream to{port} {{ {servers}}}
    server {{
        listen {port} backlog=4096 reuseport;
        proxy_pass to{port};
        proxy_buffer_size {buffer};
        proxy_timeout 1h;
        proxy_half_close on;
        tcp_nodelay on;
    }}
"""


class Nginx(Unmodified):
    """web: port -> folder that is served; stream, http: port -> servers, in turn, for TCP or HTTP."""

    def __init__(
        self,
        folder: Path,
        *,
        web: Mapping[int, Path] | None = None,
        stream: Mapping[int, list[Address]] | None = None,
        http: Mapping[int, list[Address]] | None = None,
        leave_when: str = "none",
        workers: int = 1,
        name: str = "nginx",
    ) -> None:
        super().__init__(name, folder, leave_when, "tcp" if stream and not http else "auto")
        self._web, self._stream, self._http = dict(web or {}), dict(stream or {}), dict(http or {})
        self._workers = workers

    @property
    def ports(self) -> tuple[int, ...]:
        return (*self._web, *self._stream, *self._http)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.conf"

    def command(self) -> list[str]:
        return ["nginx", "-e", "stderr", "-p", str(self.folder), "-c", str(self._file)]

    def prepare(self) -> None:
        where = {"folder": self.folder, "name": self.name}
        module = f"load_module {STREAM_MODULE};\n" if self._stream and STREAM_MODULE.exists() else ""
        text = MAIN.format(module=module, workers=self._workers, **where)
        if self._stream:
            servers = (STREAM_PROXY.format(port=p, servers=_list(to), buffer=BUFFER) for p, to in self._stream.items())
            text += STREAM.format(servers="".join(servers))
        if self._web or self._http:
            servers = (WEB_SERVER.format(port=p, root=root) for p, root in self._web.items())
            proxies = (REVERSE_PROXY.format(port=p, servers=_list(to)) for p, to in self._http.items())
            text += HTTP.format(servers="".join((*servers, *proxies)), **where)
        self._file.write_text(text)

    def worker_pids(self) -> list[int]:
        """The processes that do the work."""
        master = self.process.pid if self.process else os.getpid()
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def _list(servers: list[Address]) -> str:
    return "".join(f"server {address}:{port}; " for address, port in servers)
