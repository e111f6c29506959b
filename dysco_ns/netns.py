# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: enter one, name it, list its interfaces; and the file system that holds the agents' maps."""

from __future__ import annotations

import ctypes as c
import os
import socket
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

CLONE_NEWNET = 0x40000000
RUN = Path("/run/dysco")
BPFFS = RUN / "bpf"

_RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
_libc = c.CDLL(None, use_errno=True)


def _setns(fd: int, what: str) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        number = c.get_errno()
        raise OSError(number, f"entering network namespace {what}: {os.strerror(number)}")


def path_of(pid: int | None = None) -> Path:
    """The file of a process's network namespace; of this one by default."""
    return Path(f"/proc/{pid or 'self'}/ns/net")


def inode(path: Path) -> int:
    """The number that identifies a namespace while it lives."""
    return path.stat().st_ino


def enter(path: Path) -> None:
    """Moves the calling thread into a namespace for good.  OSError if it is gone or we may not."""
    fd = os.open(path, os.O_RDONLY)
    try:
        _setns(fd, str(path))
    finally:
        os.close(fd)


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """The calling thread is in the namespace inside the block, and back afterwards."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(path)
        try:
            yield
        finally:
            _setns(home, "home")
    finally:
        os.close(home)


@dataclass(frozen=True)
class Interface:
    index: int
    name: str
    mac: bytes
    address: str


def interfaces(only: Collection[str] = ()) -> list[Interface]:
    """The IPv4 addresses of the current namespace and their interfaces: those that are up and not loopback, or of them those
    named.  Of several addresses of one interface the first comes first."""
    with IPRoute() as ip:
        links = {
            link["index"]: (link.get_attr("IFLA_IFNAME"), bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")))
            for link in ip.get_links()
            if _wanted(link.get_attr("IFLA_IFNAME"), only) and link.get_attr("IFLA_ADDRESS") and link["flags"] & 1
        }
        return [
            Interface(a["index"], *links[a["index"]], a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"))
            for a in ip.get_addr(family=socket.AF_INET)
            if a["index"] in links
        ]


def _wanted(name: str, only: Collection[str]) -> bool:
    return name != "lo" and (not only or name in only)


def _ranges(text: str) -> list[tuple[int, int]]:
    """Of a list as sysctls have it: "8080,20000-32767"."""
    return [(int(first), int(last or first)) for first, _, last in (part.partition("-") for part in text.split(",") if part)]


def reserve_ports(first: int, last: int) -> None:
    """Sockets of the current namespace that ask for any port get none of these from now on.  OSError if it cannot be
    told so, and does give some of them."""
    reserved = _RESERVED.read_text().strip()
    low, high = map(int, _RESERVED.with_name("ip_local_port_range").read_text().split())
    low, high = max(low, first), min(high, last)
    if low > high or any(a <= low and high <= b for a, b in _ranges(reserved)):
        return
    wanted = ",".join(filter(None, (reserved, f"{first}-{last}")))
    try:
        _RESERVED.write_text(wanted)
    except OSError as error:
        why = f"cannot be changed ({os.strerror(error.errno or 0)}): set net.ipv4.ip_local_reserved_ports={wanted}"
        raise OSError(error.errno, f"sockets here may get ports {low}-{high}, which agents use between themselves, and that {why}"
                      ) from error  # fmt: skip
    ports_path(inode(path_of())).write_text(f"{reserved}\n{_RESERVED.read_text()}")


def give_back_ports() -> None:
    """What `reserve_ports` has added here goes, unless somebody has changed the list since.  May run twice."""
    note = ports_path(inode(path_of()))
    if note.exists():
        before, after = note.read_text().splitlines()
        if _RESERVED.read_text().strip() == after:
            _RESERVED.write_text(before or "\n")
        note.unlink()


def ensure_bpffs() -> Path:
    """Mounts the agents' private bpf file system if it is not there yet."""
    BPFFS.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "dysco", str(BPFFS)], check=True, capture_output=True)
    return BPFFS


def remove_bpffs() -> None:
    """Unmounts it: every pinned map, program and link that nobody else holds is gone with it."""
    while os.path.ismount(BPFFS):
        subprocess.run(["umount", str(BPFFS)], check=True, capture_output=True)


def policies_path(namespace: int) -> Path:
    """Where the agent of a namespace keeps its policies for the one that starts after it."""
    return RUN / f"{namespace}.policies"


def ports_path(namespace: int) -> Path:
    """Which ports were reserved in a namespace before its agent came, and which after."""
    return RUN / f"{namespace}.ports"


def log_path(namespace: int) -> Path:
    """Where an agent that was started for others writes what goes wrong."""
    return RUN / f"{namespace}.log"


def socket_path(namespace: int) -> Path:
    """Where the agent of the namespace with this inode listens."""
    return RUN / f"{namespace}.sock"
